"""Syncs with the facility's databases over HTTP, and the proposals that came of them."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request

from beamkeeper.core import proposals as core_proposals
from beamkeeper.core import syncs as core
from beamkeeper.db import StorageTransaction
from beamkeeper.db.news import Topic
from beamkeeper.domain.people import NewSync, ProposalPage, ProposalQuery, Sync, SyncPage, SyncState
from beamkeeper.domain.users import Caller
from beamkeeper.server.auditing import audited
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import Ctx, StorageTx, Who
from beamkeeper.server.waiting import wait_for

router = APIRouter(route_class=StrictRoute, tags=["syncs"])

LONGEST_WAIT_S = 60.0


@router.post("/syncs", status_code=202, summary="Ask for a sync")
def create(new: NewSync, ctx: Ctx, request: Request, who: Who) -> Sync:
    """For administrators; the storage service does it."""
    with audited(request, ctx.database) as tx:
        asked = core.request(tx, who, new)
    ctx.database.tell(Topic.SYNCS)  # the loop that does it
    return asked


@router.get("/syncs", summary="Syncs, newest first")
def syncs(
    tx: StorageTx, who: Who, after: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> SyncPage:
    """For administrators: what each did."""
    return core.page(tx, who, after=after, limit=limit)


@router.get("/proposals", summary="The facility's proposals and forms, by number")
def proposals(query: Annotated[ProposalQuery, Query()], tx: StorageTx, who: Who) -> ProposalPage:
    """For those who make experiments of them: managers of a station."""
    return core_proposals.page(tx, who, query)


@router.get("/syncs/{uid}", summary="A sync, and what it did")
async def sync(
    *,
    uid: UUID,
    request: Request,
    who: Who,
    wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT_S, description="Seconds to wait for its end.")] = 0.0,
) -> Sync:
    """For administrators."""

    def look(tx: StorageTransaction, who: Caller) -> Sync:
        return core.show(tx, who, uid)

    return await wait_for(request, look, lambda found: found.state is not SyncState.PENDING, wait_s=wait)
