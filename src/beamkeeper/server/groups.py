"""Groups of experiments in a directory server over HTTP."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request

from beamkeeper.core import groups as core
from beamkeeper.db import StorageTransaction
from beamkeeper.db.news import Topic
from beamkeeper.domain.groups import Compared, ExperimentGroup, GroupPage, GroupQuery, NewComparison
from beamkeeper.domain.users import Caller
from beamkeeper.server.auditing import audited
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import Ctx, StorageTx, Who
from beamkeeper.server.waiting import wait_for

router = APIRouter(route_class=StrictRoute, tags=["groups"])

LONGEST_WAIT_S = 60.0


@router.get("/experiment-groups", summary="Groups of experiments, by name")
def groups(query: Annotated[GroupQuery, Query()], tx: StorageTx, who: Who) -> GroupPage:
    """Of those experiments on whose people the caller decides; as they were when last compared."""
    return core.page(tx, who, query)


@router.post("/experiment-groups:compare", status_code=202, summary="Have groups compared now")
def compare_all(new: NewComparison, ctx: Ctx, request: Request, who: Who) -> Compared:
    """Of those experiments on whose people the caller decides; the storage service does it."""
    with audited(request, ctx.database) as tx:
        asked = core.compare_all(tx, who, new)
    ctx.database.tell(Topic.GROUPS)  # the loop that does it
    return asked


@router.get("/experiments/{uid}/group", summary="The group of an experiment")
async def group(
    *,
    uid: UUID,
    request: Request,
    who: Who,
    wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT_S, description="Seconds to wait for a comparison.")] = 0.0,
) -> ExperimentGroup:
    """For those who decide on its people; as it was when last compared."""

    def look(tx: StorageTransaction, who: Caller) -> ExperimentGroup:
        return core.show(tx, who, uid)

    return await wait_for(request, look, lambda found: not found.is_pending, wait_s=wait)


@router.post("/experiments/{uid}/group:compare", status_code=202, summary="Have the group of an experiment compared")
def compare(uid: UUID, new: NewComparison, ctx: Ctx, request: Request, who: Who) -> ExperimentGroup:
    """Now, by the storage service; those who are missing or left are put right in any case."""
    with audited(request, ctx.database) as tx:
        asked = core.compare(tx, who, uid, new)
    ctx.database.tell(Topic.GROUPS)  # the loop that does it
    return asked
