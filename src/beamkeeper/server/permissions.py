"""Walks through the rights of files over HTTP."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request

from beamkeeper.core import permissions as core
from beamkeeper.db import StorageTransaction
from beamkeeper.db.news import Topic
from beamkeeper.domain.permissions import ACTIVE_WALKS, NewPermissionWalk, PermissionWalk
from beamkeeper.domain.users import Caller
from beamkeeper.server.auditing import audited
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import Ctx, Who
from beamkeeper.server.waiting import wait_for

router = APIRouter(route_class=StrictRoute, tags=["permissions"])

LONGEST_WAIT_S = 60.0


@router.post("/experiments/{uid}/permission-walks", status_code=202, summary="Ask for a look through rights of files")
def create(uid: UUID, new: NewPermissionWalk, ctx: Ctx, request: Request, who: Who) -> PermissionWalk:
    """For managers of the station: told of, or put right as well. The storage service does it."""
    with audited(request, ctx.database) as tx:
        asked = core.request(tx, who, uid, new)
    ctx.database.tell(Topic.WALKS)  # the loop that does it
    return asked


@router.get("/permission-walks/{uid}", summary="What a look through rights of files found")
async def walk(
    *,
    uid: UUID,
    request: Request,
    who: Who,
    wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT_S, description="Seconds to wait for its end.")] = 0.0,
) -> PermissionWalk:
    """So far; for managers of the station."""

    def look(tx: StorageTransaction, who: Caller) -> PermissionWalk:
        return core.show(tx, who, uid)

    return await wait_for(request, look, lambda found: found.state not in ACTIVE_WALKS, wait_s=wait)


@router.post("/permission-walks/{uid}:stop", summary="Stop a look through rights of files")
def stop(uid: UUID, ctx: Ctx, request: Request, who: Who) -> PermissionWalk:
    """What it put right stays so; for managers of the station."""
    with audited(request, ctx.database) as tx:
        stopped = core.stop(tx, who, uid)
    ctx.database.tell(Topic.WALKS)
    return stopped
