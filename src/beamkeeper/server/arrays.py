"""Arrays in stored files over HTTP: what is in a file, and slices of it, read where the bytes lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar
from uuid import UUID

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from beamkeeper.core.arrays import Opened
from beamkeeper.core.copies_read import Places, root
from beamkeeper.domain.arrays import STATE_HEADER, FileChoice, FileNode, FileTree, NodeQuery, TreeQuery, ValuesQuery
from beamkeeper.domain.users import Caller
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import Context, Ctx, Who

router = APIRouter(route_class=StrictRoute, tags=["arrays"])

FoundT = TypeVar("FoundT")
_NPY: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/x-npy": {"schema": {"type": "string", "format": "binary"}}}}
}


@router.get("/experiments/{uid}/arrays/node", summary="What is at a name in a file")
async def node(uid: UUID, query: Annotated[NodeQuery, Query()], ctx: Ctx, request: Request, who: Who) -> FileNode:
    """A group with its members, or a dataset with its shape; links into other files are told and not followed."""
    return await _read(request, who, uid, query, lambda file: ctx.arrays.node(file, query))


@router.get("/experiments/{uid}/arrays/tree", summary="What is at a name in a file and below it")
async def tree(uid: UUID, query: Annotated[TreeQuery, Query()], ctx: Ctx, request: Request, who: Who) -> FileTree:
    """In order, without attributes."""
    return await _read(request, who, uid, query, lambda file: ctx.arrays.tree(file, query))


@router.get("/experiments/{uid}/arrays/members", summary="What is at a name in a file and directly in it")
async def members(uid: UUID, query: Annotated[TreeQuery, Query()], ctx: Ctx, request: Request, who: Who) -> FileTree:
    """With attributes; links within the file are followed, and links into other files told."""
    return await _read(request, who, uid, query, lambda file: ctx.arrays.members(file, query))


@router.get(
    "/experiments/{uid}/arrays/values",
    summary="Values of a dataset",
    response_class=Response,
    responses=_NPY,
)
async def values(uid: UUID, query: Annotated[ValuesQuery, Query()], ctx: Ctx, request: Request, who: Who) -> Response:
    """As the content of a .npy file; 64 MiB at most."""
    state, found = await _read(request, who, uid, query, lambda file: (file.state, ctx.arrays.values(file, query)))
    return Response(found, media_type="application/x-npy", headers={STATE_HEADER: state})


async def _read(
    request: Request, who: Caller, uid: UUID, choice: FileChoice, read: Callable[[Opened], FoundT]
) -> FoundT:
    """Return what a reader finds in a file; who waits for a reader holds no thread that others need."""
    ctx: Context = request.app.state.context

    def look() -> Places:
        with ctx.database.read() as tx:
            return root(tx, who, uid)

    places = await run_in_threadpool(look)

    def work() -> FoundT:
        with ctx.copies.opened(places, choice) as file:
            return read(file)

    return await to_thread.run_sync(work, limiter=request.app.state.readers)
