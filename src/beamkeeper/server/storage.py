"""Storage areas, publishing of staged batches, and looking at what is stored, over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request

from beamkeeper.core import checks as core_checks
from beamkeeper.core import copies as core_copies
from beamkeeper.core import probing
from beamkeeper.core import publishes as core_publishes
from beamkeeper.core import storage as core
from beamkeeper.db import StorageTransaction
from beamkeeper.db.news import Topic
from beamkeeper.domain.replicas import Copy, NewCopy
from beamkeeper.domain.storage import (
    AreaCheck,
    Check,
    Discard,
    Listing,
    NewCheck,
    NewDiscard,
    NewListing,
    NewPublish,
    NewStorageArea,
    Publish,
    PublishState,
    StorageArea,
    StorageProbe,
    TaskState,
)
from beamkeeper.domain.users import Caller
from beamkeeper.plugins.rclone import rclone_options
from beamkeeper.server.bodies import StrictRoute, described, large
from beamkeeper.server.deps import Ctx, StorageTx, Who
from beamkeeper.server.identity import IdentityTx
from beamkeeper.server.waiting import wait_for

router = APIRouter(route_class=StrictRoute, tags=["storage"])

PUBLISH_WAIT_S = 60.0
LOOKED_AT = 20
"""Whether the host knows the groups of experiments is tried with so many of the newest."""

Wait = Annotated[float, Query(ge=0, le=PUBLISH_WAIT_S, description="Seconds to wait for its end.")]


@router.get("/storage-areas", summary="Storage areas")
def areas(tx: StorageTx, who: Who) -> Sequence[StorageArea]:
    """For the staff of stations."""
    return core.list_(tx, who)


@router.post("/storage-areas", status_code=201, summary="Add a storage area")
def add(new: NewStorageArea, tx: IdentityTx, who: Who) -> StorageArea:
    """For administrators."""
    return core.add(tx, who, new)


@router.post("/storage-areas/{name}/check", summary="Prove that a storage area works")
def check(name: str, ctx: Ctx, who: Who) -> AreaCheck:
    """Write, make durable, read back and remove a probe file."""
    with ctx.database.read() as tx:
        area = core.area(tx, who, name)
        gids = tx.groups.gids_in(area.uid, limit=LOOKED_AT)
    return ctx.probes.check(area, rclone_options(ctx.settings.transfer), gids)


@router.post("/storage-areas/{name}/probe", summary="Read a station's probe back")
def read_probe(name: str, probe: StorageProbe, ctx: Ctx, who: Who) -> AreaCheck:
    """For managers of stations: what a station has sent is read where the storage is, and removed."""
    with ctx.database.read() as tx:
        area = core.area(tx, who, name)
    options = rclone_options(ctx.settings.transfer)
    return ctx.probes.run(area, lambda: probing.read(area, probe, options))


@router.post(
    "/publishes",
    status_code=202,
    summary="Ask for a staged batch to be published",
    openapi_extra=described(NewPublish),
)
def publish(who: Who, new: Annotated[NewPublish, large(NewPublish)], ctx: Ctx) -> Publish:
    """Answers at once; the same uid again gives the same publish."""
    with ctx.database.write() as tx:
        found = core_publishes.request(tx, who, new)
    ctx.database.tell(Topic.PUBLISHES)  # the engine begins at once
    return found


@router.get("/publishes/{uid}", summary="What became of a batch")
async def show_publish(
    uid: UUID,
    request: Request,
    who: Who,
    wait: Wait = 0.0,
) -> Publish:
    """For each file, once the publish is done."""

    def look(tx: StorageTransaction, who: Caller) -> Publish:
        return core_publishes.show(tx, who, uid)

    return await wait_for(
        request, look, lambda found: found.state is PublishState.DONE, wait_s=wait, about=Topic.PUBLISHED
    )


@router.post(
    "/checks", status_code=202, summary="Ask for stored files to be looked at", openapi_extra=described(NewCheck)
)
def check_files(who: Who, new: Annotated[NewCheck, large(NewCheck)], ctx: Ctx) -> Check:
    """For the services of stations: that files are there, or that their bytes are. Answers at once."""
    with ctx.database.write() as tx:
        found = core_checks.request(tx, who, new)
    ctx.database.tell(Topic.TASKS)  # the engine begins at once
    return found


@router.get("/checks/{uid}", summary="What stored files are like")
async def show_check(uid: UUID, request: Request, who: Who, wait: Wait = 0.0) -> Check:
    """For each file, once the check is done; kept for a day."""

    def look(tx: StorageTransaction, who: Caller) -> Check:
        return core_checks.show(tx, who, uid)

    return await wait_for(request, look, lambda found: found.state is TaskState.DONE, wait_s=wait)


@router.post(
    "/copies",
    status_code=202,
    summary="Ask for versions to be copied to another storage area",
    openapi_extra=described(NewCopy),
)
def copy(who: Who, new: Annotated[NewCopy, large(NewCopy)], ctx: Ctx) -> Copy:
    """For the services of stations; without a source they are removed from it. Answers at once."""
    with ctx.database.write() as tx:
        found = core_copies.request(tx, who, new)
    ctx.database.tell(Topic.COPIES)  # the engine begins at once
    return found


@router.get("/copies/{uid}", summary="What became of copies")
async def show_copy(uid: UUID, request: Request, who: Who, wait: Wait = 0.0) -> Copy:
    """For each version, once the batch is done; kept for a day."""

    def look(tx: StorageTransaction, who: Caller) -> Copy:
        return core_copies.show(tx, who, uid)

    return await wait_for(request, look, lambda found: found.state is TaskState.DONE, wait_s=wait)


@router.post("/listings", status_code=202, summary="Ask for a page of plain names")
def list_names(new: NewListing, ctx: Ctx, who: Who) -> Listing:
    """For the services of stations: what stands in an experiment's `data`, catalogued or not. Answers at once."""
    with ctx.database.write() as tx:
        found = core_checks.request_listing(tx, who, new)
    ctx.database.tell(Topic.TASKS)  # the engine begins at once
    return found


@router.post("/discards", status_code=202, summary="Ask for a staging directory to be removed")
def discard(new: NewDiscard, ctx: Ctx, who: Who) -> Discard:
    """For the services of stations, of batches that nobody will publish. Answers at once."""
    with ctx.database.write() as tx:
        found = core_checks.request_discard(tx, who, new)
    ctx.database.tell(Topic.TASKS)  # the engine begins at once
    return found


@router.get("/discards/{uid}", summary="Whether a staging directory is gone")
async def show_discard(uid: UUID, request: Request, who: Who, wait: Wait = 0.0) -> Discard:
    """Done once it is; kept for a day."""

    def look(tx: StorageTransaction, who: Caller) -> Discard:
        return core_checks.show_discard(tx, who, uid)

    return await wait_for(request, look, lambda found: found.state is TaskState.DONE, wait_s=wait)


@router.get("/listings/{uid}", summary="A page of plain names")
async def show_listing(uid: UUID, request: Request, who: Who, wait: Wait = 0.0) -> Listing:
    """The names in the order of their bytes, once the listing is done; kept for a day."""

    def look(tx: StorageTransaction, who: Caller) -> Listing:
        return core_checks.show_listing(tx, who, uid)

    return await wait_for(request, look, lambda found: found.state is TaskState.DONE, wait_s=wait)
