"""Stations, experiment types, experiments and their people over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request

from beamkeeper.core import experiments as core
from beamkeeper.core import stations as core_stations
from beamkeeper.domain.experiments import (
    Experiment,
    ExperimentChange,
    ExperimentPage,
    ExperimentQuery,
    ExperimentType,
    ExperimentTypeChange,
    Join,
    JoinToken,
    Member,
    MemberRole,
    NewExperiment,
    NewExperimentType,
    NewStation,
    SentExperiment,
    ServiceKey,
    Station,
    StationChange,
)
from beamkeeper.domain.metadata import MetadataHistory
from beamkeeper.domain.status import SiteServices
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import Ctx, StorageTx, StorageWriteTx, Who
from beamkeeper.server.identity import IdentityTx, changing

router = APIRouter(route_class=StrictRoute, tags=["experiments"])


@router.get("/site", summary="Where the services are")
def site(ctx: Ctx, tx: StorageTx) -> SiteServices:
    """Public, so that a client needs one address only."""
    return core_stations.site(tx, ctx.settings)


@router.get("/stations", summary="Stations")
def stations(tx: StorageTx, who: Who) -> Sequence[Station]:
    """Those that the caller is staff of."""
    return core_stations.list_(tx, who)


@router.post("/stations", status_code=201, summary="Make a station")
def create_station(new: NewStation, tx: IdentityTx, who: Who) -> Station:
    """For administrators."""
    return core_stations.create(tx, who, new)


@router.post("/stations/join", summary="Get the key of a station's services")
def join(join: Join, tx: IdentityTx) -> ServiceKey:
    """For a one-time token, which is used up."""
    return core_stations.join(tx, join)


@router.get("/stations/{name}", summary="A station")
def station(name: str, tx: StorageTx, who: Who) -> Station:
    """For its staff."""
    return core_stations.show(tx, who, name)


@router.patch("/stations/{name}", summary="Change a station")
def change_station(name: str, change: StationChange, tx: IdentityTx, who: Who) -> Station:
    """For its managers; its services may tell their addresses."""
    return core_stations.change(tx, who, name, change)


@router.post("/stations/{name}/tokens", status_code=201, summary="Make a one-time token")
def make_join_token(name: str, tx: StorageWriteTx, who: Who) -> JoinToken:
    """With which the station's services get their key."""
    return core_stations.make_join_token(tx, who, name)


@router.get("/experiment-types", summary="Experiment types")
def types(tx: StorageTx, who: Who) -> Sequence[ExperimentType]:
    """For everybody who is logged in."""
    return core.types(tx)


@router.post("/experiment-types", status_code=201, summary="Make an experiment type")
def create_type(new: NewExperimentType, tx: IdentityTx, who: Who) -> ExperimentType:
    """For administrators."""
    return core.create_type(tx, who, new)


@router.patch("/experiment-types/{name}", summary="Change an experiment type")
def change_type(name: str, change: ExperimentTypeChange, tx: IdentityTx, who: Who) -> ExperimentType:
    """For administrators; files of its experiments are indexed anew by the keys that it names."""
    return core.change_type(tx, who, name, change)


@router.get("/experiments", summary="Experiments, by default newest first")
def experiments(query: Annotated[ExperimentQuery, Query()], tx: StorageTx, who: Who) -> ExperimentPage:
    """Those that the caller may see."""
    return core.page(tx, who, query)


@router.post("/experiments", status_code=201, summary="Make an experiment and its directories")
def create(new: NewExperiment, ctx: Ctx, request: Request, who: Who) -> Experiment:
    """For managers of its station; nothing is left half-made."""
    with ctx.database.read() as read:
        if (made := core.made_before(read, who, new.uid)) is not None:
            return made
        planned = core.plan(read, who, new)
    with planned.directories(), changing(request) as tx:
        return core.create(tx, who, planned)


@router.post("/stations/{name}/experiments", summary="Take over an experiment that a station made")
def take(name: str, sent: SentExperiment, ctx: Ctx, request: Request, who: Who) -> Experiment:
    """For its services, after it was cut off. A name that was given meanwhile gets a number behind it."""
    with ctx.database.read() as read:
        planned = core.plan_sent(read, who, name, sent)
    if isinstance(planned, Experiment):
        return planned
    with planned.directories(), changing(request) as tx:
        return core.create_sent(tx, planned)


@router.get("/experiments/{uid}", summary="An experiment")
def experiment(uid: UUID, tx: StorageTx, who: Who) -> Experiment:
    """For those who may see it."""
    return core.show(tx, who, uid)


@router.patch("/experiments/{uid}", summary="Change an experiment")
def change(uid: UUID, change: ExperimentChange, tx: IdentityTx, who: Who) -> Experiment:
    """What is left out stays; metadata is merged, and a value of null goes."""
    return core.change(tx, who, uid, change)


@router.get("/experiments/{uid}/metadata/history", summary="How an experiment's metadata came about")
def metadata_history(
    uid: UUID, tx: StorageTx, who: Who, after: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> MetadataHistory:
    """Who changed what when, and what stood there before; newest first."""
    return core.metadata_history(tx, who, uid, after=after, limit=limit)


@router.delete("/experiments/{uid}", summary="Hide an experiment")
def delete(uid: UUID, tx: IdentityTx, who: Who) -> Experiment:
    """Its files stay, and its name is not given again."""
    return core.delete(tx, who, uid)


@router.get("/experiments/{uid}/people", summary="People of an experiment")
def people(uid: UUID, tx: StorageTx, who: Who) -> Sequence[Member]:
    """With their roles, by name."""
    return core.people(tx, who, uid)


@router.put("/experiments/{uid}/people/{username}", summary="Give somebody a role in an experiment")
def put_member(uid: UUID, username: str, role: MemberRole, tx: IdentityTx, who: Who) -> Member:
    """In place of the one held before; for PIs and managers of the station."""
    return core.put_member(tx, who, uid, username, role=role)


@router.delete("/experiments/{uid}/people/{username}", status_code=204, summary="Take somebody's role away")
def remove_member(uid: UUID, username: str, tx: IdentityTx, who: Who) -> None:
    """For PIs and managers of the station."""
    core.remove_member(tx, who, uid, username)
