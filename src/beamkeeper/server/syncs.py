"""Syncs with the facility's databases over HTTP."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request

from beamkeeper.core import syncs as core
from beamkeeper.domain.people import NewSync, Sync, SyncState
from beamkeeper.server.auditing import audited
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import Ctx, Who
from beamkeeper.server.waiting import wait_for

router = APIRouter(route_class=StrictRoute, tags=["syncs"])

LONGEST_WAIT_S = 60.0


@router.post("/syncs", status_code=202, summary="Ask for a sync")
def create(new: NewSync, ctx: Ctx, request: Request, who: Who) -> Sync:
    """For administrators; the storage service does it."""
    with audited(request, ctx.database) as tx:
        asked = core.request(tx, who, new)
    ctx.database.tell()  # the loop that does it
    return asked


@router.get("/syncs/{uid}", summary="A sync, and what it did")
async def sync(
    *,
    uid: UUID,
    ctx: Ctx,
    request: Request,
    who: Who,
    wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT_S, description="Seconds to wait for its end.")] = 0.0,
) -> Sync:
    """For administrators."""

    def look() -> Sync:
        with ctx.database.read() as tx:
            return core.show(tx, who, uid)

    return await wait_for(request, look, lambda found: found.state is not SyncState.PENDING, wait_s=wait)
