"""Storage areas, and publishing of staged batches, over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request

from beamkeeper.core import publishes as core_publishes
from beamkeeper.core import storage as core
from beamkeeper.domain.storage import AreaCheck, NewPublish, NewStorageArea, Publish, PublishState, StorageArea
from beamkeeper.server.bodies import described, large
from beamkeeper.server.deps import Ctx, StorageTx, Who
from beamkeeper.server.identity import IdentityTx
from beamkeeper.server.waiting import wait_for

router = APIRouter(tags=["storage"])

PUBLISH_WAIT_S = 60.0


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
    return core.check(area)


@router.post(
    "/publishes",
    status_code=202,
    summary="Ask for a staged batch to be published",
    openapi_extra=described(NewPublish),
)
def publish(new: Annotated[NewPublish, large(NewPublish)], ctx: Ctx, who: Who) -> Publish:
    """Answers at once; the same uid again gives the same publish."""
    with ctx.database.write() as tx:
        found = core_publishes.request(tx, who, new)
    ctx.database.tell()  # the engine begins at once
    return found


@router.get("/publishes/{uid}", summary="What became of a batch")
async def show_publish(
    uid: UUID,
    ctx: Ctx,
    request: Request,
    who: Who,
    wait: Annotated[float, Query(ge=0, le=PUBLISH_WAIT_S, description="Seconds to wait for its end.")] = 0.0,
) -> Publish:
    """For each file, once the publish is done."""

    def look() -> Publish:
        with ctx.database.read() as tx:
            return core_publishes.show(tx, who, uid)

    return await wait_for(request, look, lambda found: found.state is PublishState.DONE, wait_s=wait)
