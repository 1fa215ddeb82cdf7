"""Scrubs and audits, and what they found: tables and queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, and_, exists, func, insert, or_, select, update
from sqlalchemy.orm import Mapped, Session, aliased, mapped_column

from beamkeeper.db.base import EPOCH, MICROSECOND, Base, BigId, new_uid
from beamkeeper.db.pages import from_cursor, to_cursor
from beamkeeper.db.workers import WorkerRow
from beamkeeper.domain.errors import ConflictError, InvalidError, NotFoundError
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.inspections import (
    ACTIVE_INSPECTIONS,
    Audit,
    Finding,
    FindingKind,
    FindingPage,
    FindingQuery,
    InspectionKind,
    InspectionQuery,
    InspectionState,
    Scrub,
    check_inspection_step,
)
from beamkeeper.domain.names import Metadata, to_b64
from beamkeeper.domain.status import Service


class InspectionRow(Base):
    """A scrub or an audit. `options` is what was asked for, `counts` how far it is."""

    __tablename__ = "inspections"
    __table_args__ = (Index(None, "kind", "state"), Index(None, "kind", "created_at", "uid"))
    services = frozenset({Service.ACQUISITION})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    kind: Mapped[str]
    state: Mapped[str]
    message: Mapped[str]
    experiment_uid: Mapped[UUID | None] = mapped_column(index=True)
    experiment: Mapped[str | None]
    options: Mapped[Metadata]
    counts: Mapped[Metadata]
    place: Mapped[str | None]
    """Where to go on after a restart."""
    started_by: Mapped[str]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    stop_requested_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    owner: Mapped[UUID | None]
    """The process of the engine that has it in hand; one that is no worker any more has it no more."""


class FindingRow(Base):
    """Something that is not as it should be. `path_key` stands for the path: no index takes one of 4096 bytes."""

    __tablename__ = "findings"
    __table_args__ = (Index(None, "inspection_id", "path_key"),)
    services = frozenset({Service.ACQUISITION})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    inspection_id: Mapped[int] = mapped_column(BigId, ForeignKey("inspections.id"))
    kind: Mapped[str]
    experiment_uid: Mapped[UUID]
    path: Mapped[bytes]
    path_key: Mapped[bytes]
    number: Mapped[int | None]
    version_uid: Mapped[UUID | None]
    replica_uid: Mapped[UUID | None]
    size: Mapped[int | None] = mapped_column(BigInteger)
    message: Mapped[str]
    is_confirmed: Mapped[bool]
    found_at: Mapped[datetime]


@dataclass(frozen=True, slots=True)
class InHand:
    """A scrub or audit as the engine has it."""

    uid: UUID
    kind: InspectionKind
    state: InspectionState
    experiment_uid: UUID | None
    options: Metadata
    counts: Metadata
    place: str | None
    started_by: str
    created_at: datetime
    is_stop_requested: bool


@dataclass(frozen=True, slots=True)
class NewFinding:
    """Something that is not as it should be, to be written down."""

    kind: FindingKind
    experiment_uid: UUID
    path: bytes
    message: str = ""
    number: int | None = None
    version_uid: UUID | None = None
    replica_uid: UUID | None = None
    size: int | None = None
    is_confirmed: bool = False


class Inspections:
    """Queries on scrubs and audits."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(
        self, kind: InspectionKind, uid: UUID | None, experiment: Experiment | None, options: Metadata, *, by: str
    ) -> Scrub | Audit:
        """Write a new one, pending."""
        row = InspectionRow(
            uid=uid or new_uid(),
            kind=kind,
            state=InspectionState.PENDING,
            message="",
            experiment_uid=experiment.uid if experiment else None,
            experiment=experiment.name if experiment else None,
            options=options,
            counts={},
            started_by=by,
            created_at=self._now,
        )
        self._session.add(row)
        self._session.flush()  # so that the uid's constraint speaks here
        return _shown(row)

    def find(self, kind: InspectionKind, uid: UUID) -> Scrub | Audit | None:
        """Return one, or None where there is none of this kind."""
        wanted = select(InspectionRow).where(InspectionRow.uid == uid, InspectionRow.kind == kind)
        row = self._session.scalars(wanted).one_or_none()
        return None if row is None else _shown(row)

    def page(self, kind: InspectionKind, query: InspectionQuery) -> tuple[list[Scrub | Audit], str | None]:
        """Return some, newest first, and the cursor that continues the list."""
        wanted = select(InspectionRow).where(InspectionRow.kind == kind)
        if query.is_active:
            wanted = wanted.where(InspectionRow.state.in_(sorted(ACTIVE_INSPECTIONS)))
        if query.after is not None:
            at, uid = _from_cursor(query.after)
            is_older = and_(InspectionRow.created_at == at, InspectionRow.uid < uid)
            wanted = wanted.where(or_(InspectionRow.created_at < at, is_older))
        newest_first = (InspectionRow.created_at.desc(), InspectionRow.uid.desc())
        rows = self._session.scalars(wanted.order_by(*newest_first).limit(query.limit + 1)).all()
        items = [_shown(row) for row in rows[: query.limit]]
        last = rows[query.limit - 1] if len(rows) > query.limit else None
        cursor = None if last is None else to_cursor((last.created_at - EPOCH) // MICROSECOND, last.uid.hex)
        return items, cursor

    def request_stop(self, uid: UUID) -> Scrub | Audit:
        """Ask for the end of one; asking again changes nothing."""
        row = self._row(uid, for_update=True)
        if row.stop_requested_at is None and row.state in ACTIVE_INSPECTIONS:
            row.stop_requested_at = self._now
        self._session.flush()
        return _shown(row)

    def findings(self, uid: UUID, query: FindingQuery) -> FindingPage:
        """Return what one has found, in the order in which it was found."""
        wanted = select(FindingRow).where(FindingRow.inspection_id == self._row(uid).id)
        if query.after is not None:
            wanted = wanted.where(FindingRow.id > self._after(query.after))
        rows = self._session.scalars(wanted.order_by(FindingRow.id).limit(query.limit + 1)).all()
        shown = rows[: query.limit]
        cursor = to_cursor(shown[-1].uid.hex) if len(rows) > query.limit else None
        return FindingPage(items=tuple(_to_finding(row) for row in shown), next=cursor)

    def _after(self, cursor: str) -> int:
        (uid,) = from_cursor(cursor, str)
        try:
            wanted = select(FindingRow.id).where(FindingRow.uid == UUID(hex=str(uid)))
        except ValueError as error:
            raise InvalidError(f"{cursor[:80]!r} is no cursor of this list") from error
        return self._session.execute(wanted).scalar() or 0

    # What the engine does.

    def claim(self, kind: InspectionKind, owner: UUID) -> InHand | None:
        """Take the oldest that has not ended and is in no living process's hands."""
        row = self._session.scalars(
            select(InspectionRow)
            .where(
                InspectionRow.kind == kind,
                InspectionRow.state.in_(sorted(ACTIVE_INSPECTIONS)),
                or_(
                    InspectionRow.owner.is_(None),
                    InspectionRow.owner == owner,
                    InspectionRow.owner.not_in(select(WorkerRow.uid)),
                ),
            )
            .order_by(InspectionRow.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        ).one_or_none()
        if row is None:
            return None
        row.owner = owner
        if row.state == InspectionState.PENDING and row.stop_requested_at is None:
            row.state, row.started_at = InspectionState.RUNNING, self._now
        self._session.flush()
        return _in_hand(row)

    def progress(
        self, uid: UUID, owner: UUID, counts: Metadata, place: str | None, found: Sequence[NewFinding] = ()
    ) -> InHand:
        """Write down how far one is, and what it has found; ConflictError where it is another's now."""
        row = self._own(uid, owner)
        row.counts, row.place = counts, place
        if found:
            self._session.execute(insert(FindingRow), [_finding(row.id, new, self._now) for new in found])
        self._session.flush()
        return _in_hand(row)

    def say(self, uid: UUID, owner: UUID, message: str) -> None:
        """Say what people should know of one now, such as what it waits for."""
        row = self._own(uid, owner)
        row.message = message[:2000]
        self._session.flush()

    def end(self, uid: UUID, owner: UUID, state: InspectionState, message: str = "") -> Scrub | Audit:
        """Say how one ended."""
        row = self._own(uid, owner)
        row.state = check_inspection_step(f"{row.kind} {uid}", InspectionState(row.state), state)
        row.message, row.ended_at, row.owner = message[:2000], self._now, None
        self._session.flush()
        return _shown(row)

    def confirm(self, uid: UUID, owner: UUID) -> int:
        """Confirm what the audit before this one, of the same experiment, found as well; returns how much."""
        row = self._own(uid, owner)
        before = self._session.scalars(
            select(InspectionRow.id)
            .where(
                InspectionRow.kind == row.kind,
                InspectionRow.experiment_uid == row.experiment_uid,
                InspectionRow.state == InspectionState.DONE,
                InspectionRow.id < row.id,
            )
            .order_by(InspectionRow.id.desc())
            .limit(1)
        ).one_or_none()
        earlier = aliased(FindingRow)
        is_same = exists().where(
            earlier.inspection_id == before,
            earlier.path_key == FindingRow.path_key,
            earlier.kind == FindingRow.kind,
            earlier.version_uid.is_not_distinct_from(FindingRow.version_uid),
        )
        self._session.execute(
            update(FindingRow)
            .where(FindingRow.inspection_id == row.id, is_same)
            .values(is_confirmed=True)
            .execution_options(synchronize_session=False)
        )
        wanted = select(func.count()).where(FindingRow.inspection_id == row.id, FindingRow.is_confirmed)
        return self._session.execute(wanted).scalar_one()

    def _own(self, uid: UUID, owner: UUID) -> InspectionRow:
        row = self._row(uid, for_update=True)
        if row.owner != owner:
            raise ConflictError(f"{row.kind} {uid} is in the hands of another process: this one has lost it")
        return row

    def _row(self, uid: UUID, *, for_update: bool = False) -> InspectionRow:
        wanted = select(InspectionRow).where(InspectionRow.uid == uid)
        if for_update:
            wanted = wanted.with_for_update().execution_options(populate_existing=True)
        row = self._session.scalars(wanted).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no scrub or audit {uid}", uid=str(uid))
        return row


def _finding(inspection: int, new: NewFinding, now: datetime) -> dict[str, Any]:
    return {
        "uid": new_uid(),
        "inspection_id": inspection,
        "kind": new.kind,
        "experiment_uid": new.experiment_uid,
        "path": bytes(new.path),
        "path_key": blake2b(new.path, digest_size=16).digest(),
        "number": new.number,
        "version_uid": new.version_uid,
        "replica_uid": new.replica_uid,
        "size": new.size,
        "message": new.message[:2000],
        "is_confirmed": new.is_confirmed,
        "found_at": now,
    }


def _from_cursor(cursor: str) -> tuple[datetime, UUID]:
    microseconds, uid = from_cursor(cursor, int, str)
    try:
        return EPOCH + int(microseconds) * MICROSECOND, UUID(hex=str(uid))
    except (ValueError, OverflowError) as error:
        raise InvalidError(f"{cursor[:80]!r} is no cursor of this list: take the `next` of the page before") from error


def _in_hand(row: InspectionRow) -> InHand:
    return InHand(
        uid=row.uid,
        kind=InspectionKind(row.kind),
        state=InspectionState(row.state),
        experiment_uid=row.experiment_uid,
        options=row.options,
        counts=row.counts,
        place=row.place,
        started_by=row.started_by,
        created_at=row.created_at,
        is_stop_requested=row.stop_requested_at is not None,
    )


def _shown(row: InspectionRow) -> Scrub | Audit:
    model = Scrub if row.kind == InspectionKind.SCRUB else Audit
    return model.model_validate(
        {
            **row.options,
            **row.counts,
            "uid": row.uid,
            "state": row.state,
            "message": row.message,
            "experiment_uid": row.experiment_uid,
            "experiment": row.experiment,
            "started_by": row.started_by,
            "created_at": row.created_at,
            "started_at": row.started_at,
            "stop_requested_at": row.stop_requested_at,
            "ended_at": row.ended_at,
        }
    )


def _to_finding(row: FindingRow) -> Finding:
    return Finding(
        path_b64=to_b64(row.path),
        kind=FindingKind(row.kind),
        experiment_uid=row.experiment_uid,
        number=row.number,
        version_uid=row.version_uid,
        replica_uid=row.replica_uid,
        size=row.size,
        message=row.message,
        is_confirmed=row.is_confirmed,
        found_at=row.found_at,
    )
