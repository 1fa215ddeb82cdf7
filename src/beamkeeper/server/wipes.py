"""Wipes and holds over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request

from beamkeeper.core import wipes as core
from beamkeeper.core.sources import Place
from beamkeeper.core.wipes import WipeRules
from beamkeeper.db import AcquisitionTransaction
from beamkeeper.db.news import Topic
from beamkeeper.domain.users import Caller
from beamkeeper.domain.wipes import (
    ACTIVE_WIPES,
    Hold,
    NewHold,
    NewWipe,
    Verdict,
    Wipe,
    WipeEntryPage,
    WipeEntryQuery,
    WipePage,
    WipeQuery,
    WipeRun,
)
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import AcquisitionTx, AcquisitionWriteTx, Ctx, Who, writing
from beamkeeper.server.waiting import wait_for

router = APIRouter(route_class=StrictRoute, tags=["wipes"])

WIPE_WAIT_S = 60.0


async def _rules(ctx: Ctx) -> WipeRules:
    return WipeRules.of(ctx.settings)


RulesHere = Annotated[WipeRules, Depends(_rules)]


def _look(ctx: Ctx, who: Who, new: NewWipe, rules: RulesHere) -> Place:
    with ctx.database.read() as tx:
        return core.look(tx, who, new, rules=rules)


@router.post("/wipes", status_code=201, summary="Ask whether a directory is safe to wipe")
def plan(
    *, new: NewWipe, place: Annotated[Place, Depends(_look)], ctx: Ctx, http: Request, who: Who, rules: RulesHere
) -> Wipe:
    """For managers of the station. Answers at once; the engine lists the directory and proves each file."""
    with writing(http) as tx:
        found = core.plan(tx, who, new, place=place, rules=rules)
    ctx.database.tell(Topic.WIPES)  # the engine begins at once
    return found


@router.get("/wipes", summary="Plans and runs, newest first")
def list_wipes(query: Annotated[WipeQuery, Query()], tx: AcquisitionTx, who: Who, rules: RulesHere) -> WipePage:
    """For managers of the station."""
    return core.list_(tx, who, query, rules=rules)


@router.post("/wipes:verdict", summary="Whether all that was taken lately may be wiped")
def verdict(*, ctx: Ctx, http: Request, who: Who, rules: RulesHere) -> Verdict:
    """For the station's staff and services: what is known, at once. The engine looks again where that is old."""
    with writing(http) as tx:
        found = core.verdict(tx, who, rules=rules)
    ctx.database.tell(Topic.WIPES)  # the engine looks again
    return found


@router.get("/wipes/{uid}", summary="A plan, and what became of it")
async def show(
    *,
    uid: UUID,
    request: Request,
    who: Who,
    rules: RulesHere,
    wait: Annotated[float, Query(ge=0, le=WIPE_WAIT_S, description="Seconds to wait for the engine.")] = 0.0,
) -> Wipe:
    """What is proven, what is not by reason, and what was deleted."""

    def look(tx: AcquisitionTransaction, who: Caller) -> Wipe:
        return core.show(tx, who, uid, rules=rules)

    return await wait_for(request, look, lambda found: found.state not in ACTIVE_WIPES, wait_s=wait)


@router.get("/wipes/{uid}/entries", summary="The entries of a directory")
def entries(
    uid: UUID, query: Annotated[WipeEntryQuery, Query()], tx: AcquisitionTx, who: Who, rules: RulesHere
) -> WipeEntryPage:
    """All of them by pages: proven or not and why, deleted by whose word and when."""
    return core.entries(tx, who, uid, query=query, rules=rules)


@router.post("/wipes/{uid}:run", status_code=202, summary="Carry a plan out")
def run(*, uid: UUID, request: WipeRun, ctx: Ctx, http: Request, who: Who, rules: RulesHere) -> Wipe:
    """Delete just what the plan proved, after it was proven anew. Asking again changes nothing."""
    with writing(http) as tx:
        found = core.run(tx, who, uid, request=request, rules=rules)
    ctx.database.tell(Topic.WIPES)  # the engine begins at once
    return found


@router.post("/holds", status_code=201, summary="Hold a path")
def hold(new: NewHold, tx: AcquisitionWriteTx, who: Who, rules: RulesHere) -> Hold:
    """Nothing at or below it is wiped until the hold is removed. For members of the station's experiments."""
    return core.hold(tx, who, new, rules=rules)


@router.get("/holds", summary="What is held")
def holds(tx: AcquisitionTx, who: Who, rules: RulesHere) -> Sequence[Hold]:
    """One's own, and for managers of the station all."""
    return core.holds(tx, who, rules=rules)


@router.delete("/holds/{uid}", status_code=204, summary="Remove a hold")
def release(uid: UUID, tx: AcquisitionWriteTx, who: Who, rules: RulesHere) -> None:
    """One's own, and for managers of the station anybody's."""
    core.release(tx, who, uid, rules=rules)
