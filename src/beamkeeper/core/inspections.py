"""Scrubs and audits: asking for them, stopping them, and reading what they found; the engine carries them out."""

from __future__ import annotations

from uuid import UUID

from beamkeeper.core import rights
from beamkeeper.db import AcquisitionTransaction
from beamkeeper.domain.errors import ConflictError, NotFoundError
from beamkeeper.domain.inspections import (
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
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.users import Action, Caller, Target, require

_ACTIONS = {InspectionKind.SCRUB: Action.SCRUB, InspectionKind.AUDIT: Action.AUDIT}


def scrub(tx: AcquisitionTransaction, caller: Caller, new: NewScrub, *, station: str) -> Scrub:
    """Ask for a scrub; the same uid again gives the same one."""
    _require(tx, caller, InspectionKind.SCRUB, station)
    experiment = None
    if new.experiment_uid is not None:
        experiment = rights.experiment(tx, caller, Action.SCRUB, new.experiment_uid)
    if new.uid is not None and (same := tx.inspections.find(InspectionKind.SCRUB, new.uid)) is not None:
        _check_same(same, new.experiment_uid)
        return _as_scrub(same)
    options: Metadata = {"older_than_s": new.older_than_s, "rate_bytes_s": new.rate_bytes_s}
    return _as_scrub(tx.inspections.add(InspectionKind.SCRUB, new.uid, experiment, options, by=caller.username))


def audit(tx: AcquisitionTransaction, caller: Caller, new: NewAudit, *, station: str) -> Audit:
    """Ask for an audit; the same uid again gives the same one."""
    _require(tx, caller, InspectionKind.AUDIT, station)
    experiment = rights.experiment(tx, caller, Action.AUDIT, new.experiment_uid)
    if new.uid is not None and (same := tx.inspections.find(InspectionKind.AUDIT, new.uid)) is not None:
        _check_same(same, new.experiment_uid)
        return _as_audit(same)
    return _as_audit(tx.inspections.add(InspectionKind.AUDIT, new.uid, experiment, {}, by=caller.username))


def show_scrub(tx: AcquisitionTransaction, caller: Caller, uid: UUID, *, station: str) -> Scrub:
    """Return a scrub."""
    return _as_scrub(_found(tx, caller, InspectionKind.SCRUB, uid, station=station))


def show_audit(tx: AcquisitionTransaction, caller: Caller, uid: UUID, *, station: str) -> Audit:
    """Return an audit."""
    return _as_audit(_found(tx, caller, InspectionKind.AUDIT, uid, station=station))


def scrubs(tx: AcquisitionTransaction, caller: Caller, query: InspectionQuery, *, station: str) -> ScrubPage:
    """Return scrubs, newest first."""
    _require(tx, caller, InspectionKind.SCRUB, station)
    items, cursor = tx.inspections.page(InspectionKind.SCRUB, query)
    return ScrubPage(items=tuple(_as_scrub(item) for item in items), next=cursor)


def audits(tx: AcquisitionTransaction, caller: Caller, query: InspectionQuery, *, station: str) -> AuditPage:
    """Return audits, newest first."""
    _require(tx, caller, InspectionKind.AUDIT, station)
    items, cursor = tx.inspections.page(InspectionKind.AUDIT, query)
    return AuditPage(items=tuple(_as_audit(item) for item in items), next=cursor)


def stop_scrub(tx: AcquisitionTransaction, caller: Caller, uid: UUID, *, station: str) -> Scrub:
    """Ask for the end of a scrub; what it has found stays."""
    _found(tx, caller, InspectionKind.SCRUB, uid, station=station)
    return _as_scrub(tx.inspections.request_stop(uid))


def stop_audit(tx: AcquisitionTransaction, caller: Caller, uid: UUID, *, station: str) -> Audit:
    """Ask for the end of an audit; what it has found stays, and confirms nothing."""
    _found(tx, caller, InspectionKind.AUDIT, uid, station=station)
    return _as_audit(tx.inspections.request_stop(uid))


def findings(
    tx: AcquisitionTransaction, caller: Caller, kind: InspectionKind, uid: UUID, *, query: FindingQuery, station: str
) -> FindingPage:
    """Return what a scrub or audit has found."""
    _found(tx, caller, kind, uid, station=station)
    return tx.inspections.findings(uid, query)


def _found(
    tx: AcquisitionTransaction, caller: Caller, kind: InspectionKind, uid: UUID, *, station: str
) -> Scrub | Audit:
    _require(tx, caller, kind, station)
    found = tx.inspections.find(kind, uid)
    if found is None:
        raise NotFoundError(f"there is no {kind} {uid}", uid=str(uid))
    return found


def _require(tx: AcquisitionTransaction, caller: Caller, kind: InspectionKind, station: str) -> None:
    target = Target(station_uid=tx.experiments.station_named(station).uid)
    require(caller, _ACTIONS[kind], target, f'station "{station}"')


def _as_scrub(found: Scrub | Audit) -> Scrub:
    if not isinstance(found, Scrub):
        raise NotFoundError(f"there is no scrub {found.uid}", uid=str(found.uid))
    return found


def _as_audit(found: Scrub | Audit) -> Audit:
    if not isinstance(found, Audit):
        raise NotFoundError(f"there is no audit {found.uid}", uid=str(found.uid))
    return found


def _check_same(found: Scrub | Audit, experiment_uid: UUID | None) -> None:
    if found.experiment_uid != experiment_uid:
        raise ConflictError(f"{found.uid} is of another experiment: give each a uid of its own")
