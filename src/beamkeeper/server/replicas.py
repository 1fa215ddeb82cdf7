"""Replicas over HTTP: what copies there are, asking for them, and what the services of stations do about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request

from beamkeeper.core import replicas as core
from beamkeeper.db import CatalogTransaction
from beamkeeper.db.news import Topic
from beamkeeper.domain.replicas import (
    AreaReplicas,
    DueReplicas,
    ListedReplicaPage,
    NewReplicaRequest,
    ReplicaListQuery,
    ReplicaRequest,
    ReplicaRequestQuery,
    RequestState,
    SettledReplicas,
    WantedReplicas,
)
from beamkeeper.domain.users import Caller
from beamkeeper.server.bodies import StrictRoute, described, large
from beamkeeper.server.deps import CatalogTx, CatalogWriteTx, Ctx, Who, writing
from beamkeeper.server.waiting import wait_for

router = APIRouter(route_class=StrictRoute, tags=["replicas"])

REQUEST_WAIT_S = 60.0
Wait = Annotated[float, Query(ge=0, le=REQUEST_WAIT_S, description="Seconds to wait for its end.")]


@router.get("/replicas", summary="Copies of an experiment's files")
def replicas(query: Annotated[ReplicaListQuery, Query()], tx: CatalogTx, who: Who) -> ListedReplicaPage:
    """Those of a page of files, in the order of paths, with their state and when each was last verified."""
    return core.list_(tx, who, query)


@router.get("/experiments/{uid}/replicas", summary="How an experiment's files stand in each storage area")
def by_area(
    uid: UUID,
    tx: CatalogTx,
    who: Who,
    waiting: Annotated[bool, Query(description="Only what is still to be done there, which is counted fast.")] = False,
) -> Sequence[AreaReplicas]:
    """The experiment's own storage area first."""
    return core.by_area(tx, who, uid, waiting_only=waiting)


@router.post("/replica-requests", status_code=201, summary="Have copies made, read again or dropped")
def ask(new: NewReplicaRequest, ctx: Ctx, request: Request, who: Who) -> ReplicaRequest:
    """For managers of the station. Answers at once; the last verified copy of a file is never dropped."""
    with writing(request) as tx:
        found = core.ask(tx, who, new)
    ctx.database.tell(Topic.REPLICAS)  # the engine begins at once
    return found


@router.get("/replica-requests", summary="What was asked for copies, newest first")
def requests(query: Annotated[ReplicaRequestQuery, Query()], tx: CatalogTx, who: Who) -> Sequence[ReplicaRequest]:
    """For managers of the station."""
    return core.requests(tx, who, query)


@router.get("/replica-requests/{uid}", summary="How far a request for copies is")
async def show(uid: UUID, request: Request, who: Who, wait: Wait = 0.0) -> ReplicaRequest:
    """How many copies were chosen, are done, and could not be."""

    def look(tx: CatalogTransaction, who: Caller) -> ReplicaRequest:
        return core.show(tx, who, uid)

    return await wait_for(request, look, lambda found: found.state is not RequestState.RUNNING, wait_s=wait)


@router.post("/replica-requests/{uid}:stop", summary="Stop a request for copies")
def stop(uid: UUID, tx: CatalogWriteTx, who: Who) -> ReplicaRequest:
    """What is under way is finished; the rest is not begun."""
    return core.stop(tx, who, uid)


@router.post(
    "/replicas:want", summary="Have versions in further storage areas", openapi_extra=described(WantedReplicas)
)
def want(wanted: Annotated[WantedReplicas, large(WantedReplicas)], tx: CatalogWriteTx, who: Who) -> int:
    """For services; returns how many copies are to be made. Asking again changes nothing."""
    return core.want(tx, who, wanted)


@router.get("/replicas/due", summary="Where something is to be done for copies")
def areas_due(tx: CatalogTx, who: Who) -> Sequence[UUID]:
    """For services: the storage areas, by their uids."""
    return core.areas_due(tx, who)


@router.post("/replicas:due", summary="Hand out copies to be seen to")
def due(storage_area_uid: UUID, tx: CatalogWriteTx, who: Who) -> DueReplicas | None:
    """For services: a batch in one storage area, the same one until it is settled."""
    return core.due(tx, who, storage_area_uid)


@router.post("/replicas:settle", summary="What became of copies", openapi_extra=described(SettledReplicas))
def settle(settled: Annotated[SettledReplicas, large(SettledReplicas)], tx: CatalogWriteTx, who: Who) -> Sequence[UUID]:
    """For services; returns those for which it counts. Saying it again changes nothing."""
    return core.settle(tx, who, settled)
