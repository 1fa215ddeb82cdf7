"""Commands for stations over HTTP: given at the site, collected by the station, which opens every connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request

from beamkeeper.core import commands as core
from beamkeeper.db import StorageTransaction
from beamkeeper.db.news import Topic
from beamkeeper.domain.commands import Command, CommandAnswer, CommandState, NewCommand, WaitingCommand
from beamkeeper.domain.users import Caller
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import StorageTx, StorageWriteTx, Who
from beamkeeper.server.waiting import wait_for

router = APIRouter(route_class=StrictRoute, tags=["commands"])

WAIT_S = 60.0
Wait = Annotated[float, Query(ge=0, le=WAIT_S, description="Seconds to wait for news.")]


@router.post("/stations/{name}/commands", status_code=201, summary="Give a station a command")
def give(name: str, new: NewCommand, tx: StorageWriteTx, who: Who) -> Command:
    """It waits until the station collects it. The same uid again gives the same command."""
    return core.give(tx, who, name, new)


@router.get("/stations/{name}/commands", summary="Commands of a station")
def commands(
    name: str, tx: StorageTx, who: Who, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Sequence[Command]:
    """Newest first: one's own, and for its staff all."""
    return core.list_(tx, who, name, limit=limit)


@router.get("/commands/waiting", summary="Commands that a station should do now")
async def waiting(request: Request, who: Who, wait: Wait = 0.0) -> Sequence[WaitingCommand]:
    """For the services of that station."""

    def look(tx: StorageTransaction, who: Caller) -> Sequence[WaitingCommand]:
        return core.waiting(tx, who)

    return await wait_for(request, look, bool, wait_s=wait, about=Topic.EVENTS)


@router.get("/commands/{uid}", summary="A command, and what became of it")
async def command(uid: UUID, request: Request, who: Who, wait: Wait = 0.0) -> Command:
    """For whoever gave it, and for the station's staff."""

    def look(tx: StorageTransaction, who: Caller) -> Command:
        return core.show(tx, who, uid)

    return await wait_for(request, look, lambda found: found.state is not CommandState.WAITING, wait_s=wait)


@router.post("/commands/{uid}/answer", summary="Tell what became of a command")
def answer(uid: UUID, answer: CommandAnswer, tx: StorageWriteTx, who: Who) -> Command:
    """For the services of the station; the first answer counts."""
    return core.answered(tx, who, uid, answer)
