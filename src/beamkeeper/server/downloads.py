"""Getting files back over HTTP: a file, an archive of many, links that need no login, and who got what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from beamkeeper.core import downloads as core
from beamkeeper.core import sharing as core_sharing
from beamkeeper.domain.downloads import (
    ContentQuery,
    DeliveryPage,
    FileSet,
    Link,
    NewFileSet,
    NewLink,
    NewLinkMade,
    SetFiles,
    Sharing,
    SharingChange,
)
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.delivering import Delivered
from beamkeeper.server.deps import Ctx, StorageTx, StorageWriteTx, Who, writing

router = APIRouter(route_class=StrictRoute, tags=["downloads"])

_SCHEMA = {"schema": {"type": "string", "format": "binary"}}
_OTHERWISE: dict[int | str, dict[str, Any]] = {
    304: {"description": "It is still what `If-None-Match` names."},
    416: {"description": "It has no such part."},
}
_BYTES: dict[int | str, dict[str, Any]] = {
    **_OTHERWISE,
    200: {"content": {"application/octet-stream": _SCHEMA}},
    206: {"description": "The part that `Range` asks for.", "content": {"application/octet-stream": _SCHEMA}},
}
_TAR: dict[int | str, dict[str, Any]] = {
    **_OTHERWISE,
    200: {"content": {"application/x-tar": _SCHEMA}},
    206: {"description": "The part that `Range` asks for.", "content": {"application/x-tar": _SCHEMA}},
}


@router.head("/experiments/{uid}/content", include_in_schema=False)
@router.get("/experiments/{uid}/content", summary="The bytes of a file", response_class=Response, responses=_BYTES)
async def content(uid: UUID, query: Annotated[ContentQuery, Query()], ctx: Ctx, request: Request, who: Who) -> Response:
    """Whole or in parts (`Range`), for those who may read the experiment; that is asked again as it goes."""
    return await _delivered(request, lambda: core.content(ctx.database, ctx.copies, who, uid, query))


@router.post("/sets", status_code=201, summary="Begin a set of files")
def add_set(new: NewFileSet, tx: StorageWriteTx, who: Who) -> FileSet:
    """That is to be got as one archive. The same uid again gives the same set."""
    return core.add_set(tx, who, new)


@router.get("/sets/{uid}", summary="A set of files")
def file_set(uid: UUID, tx: StorageTx, who: Who) -> FileSet:
    """For those who may read its experiment."""
    return core.get_set(tx, who, uid)


@router.post("/sets/{uid}/files", summary="Add files to a set")
def add_files(uid: UUID, more: SetFiles, ctx: Ctx, request: Request, who: Who) -> FileSet:
    """From a position on, so that an answer that was lost does no harm; the last ones freeze it."""
    found = core.find_files(ctx.database, ctx.copies, who, uid, more.files)
    with writing(request) as tx:
        return core.add_files(tx, who, uid, more, found)


@router.head("/sets/{uid}/archive", include_in_schema=False)
@router.get("/sets/{uid}/archive", summary="The archive of a set", response_class=Response, responses=_TAR)
async def archive(uid: UUID, ctx: Ctx, request: Request, who: Who) -> Response:
    """As tar, whole or in parts: every byte has its place, so that `curl -C -` goes on where it was."""
    return await _delivered(request, lambda: core.archive(ctx.database, ctx.copies, who, uid), "application/x-tar")


@router.get("/experiments/{uid}/links", summary="Links into an experiment")
def links(uid: UUID, tx: StorageTx, who: Who) -> Sequence[Link]:
    """Newest first, for those who may make them."""
    return core_sharing.list_(tx, who, uid)


@router.post("/links", status_code=201, summary="Make a link")
def create_link(new: NewLink, tx: StorageWriteTx, who: Who) -> NewLinkMade:
    """To a frozen set, for people without an account: for PIs and managers. Its address is shown this once."""
    return core_sharing.create(tx, who, new)


@router.delete("/links/{uid}", summary="Revoke a link")
def revoke_link(uid: UUID, tx: StorageWriteTx, who: Who) -> Link:
    """It leads nowhere from now on."""
    return core_sharing.revoke(tx, who, uid)


@router.get("/experiments/{uid}/sharing", summary="Whether links may be made")
def sharing(uid: UUID, tx: StorageTx, who: Who) -> Sharing:
    """Into an experiment."""
    return core_sharing.sharing(tx, who, uid)


@router.put("/experiments/{uid}/sharing", summary="Allow links, or forbid them")
def change_sharing(uid: UUID, change: SharingChange, tx: StorageWriteTx, who: Who) -> Sharing:
    """For the PI and for managers of the station."""
    return core_sharing.change_sharing(tx, who, uid, change)


@router.get("/experiments/{uid}/deliveries", summary="Who got what")
def deliveries(
    uid: UUID, tx: StorageTx, who: Who, after: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> DeliveryPage:
    """Newest first, with how far each came; for those who lead the experiment."""
    return core.deliveries(tx, who, uid, after=after, limit=limit)


@router.head("/shared/{token}/{name}", include_in_schema=False)
@router.get("/shared/{token}/{name}", summary="What a link leads to", response_class=Response, responses=_TAR)
async def shared(token: str, name: str, ctx: Ctx, request: Request) -> Response:
    """Public: the address is the key. The name is for people."""
    return await _delivered(request, lambda: core_sharing.shared(ctx.database, ctx.copies, token), "application/x-tar")


async def _delivered(
    request: Request, find: Callable[[], core.Content], media_type: str = "application/octet-stream"
) -> Response:
    return Delivered(await run_in_threadpool(find), request.app.state.sending, media_type)
