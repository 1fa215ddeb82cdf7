"""Scrubs and audits over HTTP."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request

from beamkeeper.core import inspections as core
from beamkeeper.db import AcquisitionTransaction
from beamkeeper.db.news import Topic
from beamkeeper.domain.inspections import (
    ACTIVE_INSPECTIONS,
    Audit,
    AuditPage,
    FindingPage,
    FindingQuery,
    InspectionKind,
    InspectionQuery,
    NewAudit,
    NewScrub,
    Scrub,
    ScrubPage,
)
from beamkeeper.domain.users import Caller
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import AcquisitionTx, AcquisitionWriteTx, Ctx, Who, writing
from beamkeeper.server.waiting import wait_for

router = APIRouter(route_class=StrictRoute, tags=["inspections"])

INSPECTION_WAIT_S = 60.0


async def _station(ctx: Ctx) -> str:
    return ctx.settings.station.name


Station = Annotated[str, Depends(_station)]
Wait = Annotated[float, Query(ge=0, le=INSPECTION_WAIT_S, description="Seconds to wait for its end.")]


@router.post("/scrubs", status_code=201, summary="Read replicas again")
def scrub(new: NewScrub, ctx: Ctx, request: Request, who: Who, station: Station) -> Scrub:
    """For managers of the station. Answers at once; the engine reads, and the ledger says what was found."""
    with writing(request) as tx:
        found = core.scrub(tx, who, new, station=station)
    ctx.database.tell(Topic.INSPECTIONS)  # the engine begins at once
    return found


@router.get("/scrubs", summary="Scrubs, newest first")
def scrubs(query: Annotated[InspectionQuery, Query()], tx: AcquisitionTx, who: Who, station: Station) -> ScrubPage:
    """For managers of the station."""
    return core.scrubs(tx, who, query, station=station)


@router.get("/scrubs/{uid}", summary="A scrub")
async def show_scrub(uid: UUID, request: Request, who: Who, station: Station, *, wait: Wait = 0.0) -> Scrub:
    """How far it is, and what was found in numbers."""

    def look(tx: AcquisitionTransaction, who: Caller) -> Scrub:
        return core.show_scrub(tx, who, uid, station=station)

    return await wait_for(request, look, lambda found: found.state not in ACTIVE_INSPECTIONS, wait_s=wait)


@router.post("/scrubs/{uid}:stop", summary="Stop a scrub")
def stop_scrub(uid: UUID, tx: AcquisitionWriteTx, who: Who, station: Station) -> Scrub:
    """What it has found stays."""
    return core.stop_scrub(tx, who, uid, station=station)


@router.get("/scrubs/{uid}/findings", summary="What a scrub found")
def scrub_findings(
    uid: UUID, query: Annotated[FindingQuery, Query()], tx: AcquisitionTx, who: Who, station: Station
) -> FindingPage:
    """Replicas that have other bytes, are not there, or cannot be read."""
    return core.findings(tx, who, InspectionKind.SCRUB, uid, query=query, station=station)


@router.post("/audits", status_code=201, summary="Compare the catalogue with the storage")
def audit(new: NewAudit, ctx: Ctx, request: Request, who: Who, station: Station) -> Audit:
    """For managers of the station. Answers at once; the engine compares the names of an experiment."""
    with writing(request) as tx:
        found = core.audit(tx, who, new, station=station)
    ctx.database.tell(Topic.INSPECTIONS)  # the engine begins at once
    return found


@router.get("/audits", summary="Audits, newest first")
def audits(query: Annotated[InspectionQuery, Query()], tx: AcquisitionTx, who: Who, station: Station) -> AuditPage:
    """For managers of the station."""
    return core.audits(tx, who, query, station=station)


@router.get("/audits/{uid}", summary="An audit")
async def show_audit(uid: UUID, request: Request, who: Who, station: Station, *, wait: Wait = 0.0) -> Audit:
    """How far it is, and what was found in numbers."""

    def look(tx: AcquisitionTransaction, who: Caller) -> Audit:
        return core.show_audit(tx, who, uid, station=station)

    return await wait_for(request, look, lambda found: found.state not in ACTIVE_INSPECTIONS, wait_s=wait)


@router.post("/audits/{uid}:stop", summary="Stop an audit")
def stop_audit(uid: UUID, tx: AcquisitionWriteTx, who: Who, station: Station) -> Audit:
    """What it has found stays, and confirms nothing."""
    return core.stop_audit(tx, who, uid, station=station)


@router.get("/audits/{uid}/findings", summary="What an audit found")
def audit_findings(
    uid: UUID, query: Annotated[FindingQuery, Query()], tx: AcquisitionTx, who: Who, station: Station
) -> FindingPage:
    """Names that the catalogue does not know, and files that the storage does not have."""
    return core.findings(tx, who, InspectionKind.AUDIT, uid, query=query, station=station)
