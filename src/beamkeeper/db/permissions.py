"""Walks through the rights of files: asked for, how far they are, and what they found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Index, delete, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId
from beamkeeper.db.experiments import ExperimentRow
from beamkeeper.db.groups import ExperimentGroupRow
from beamkeeper.db.publishes import PublishRow
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.permissions import (
    ACTIVE_WALKS,
    MOST_FAULTS,
    NewPermissionWalk,
    PermissionFault,
    PermissionWalk,
    WalkMode,
    WalkState,
)
from beamkeeper.domain.status import Service
from beamkeeper.domain.storage import PublishState

AGAIN = timedelta(minutes=5)
KEPT = timedelta(days=30)
"""So long a walk that has ended can be asked about."""


class PermissionWalkRow(Base):
    """A walk; `counts` is how far it is, `place` where it goes on after a restart."""

    __tablename__ = "permission_walks"
    services = frozenset({Service.STORAGE})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    experiment_uid: Mapped[UUID]
    mode: Mapped[str]
    rate: Mapped[int]
    state: Mapped[str]
    message: Mapped[str]
    asked_by: Mapped[str]
    counts: Mapped[Metadata]
    faults: Mapped[Metadata]
    place: Mapped[str]
    is_stop_requested: Mapped[bool]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]

    __table_args__ = (Index(None, "state", "id"), Index(None, "experiment_uid", "id"))


@dataclass(frozen=True, slots=True)
class WalkInHand:
    """A walk as the engine has it."""

    uid: UUID
    experiment_uid: UUID
    directory: str
    mode: WalkMode
    rate: int
    asked_by: str
    gid: int | None
    place: str
    counts: Metadata
    faults: tuple[PermissionFault, ...]
    is_stop_requested: bool
    created_at: datetime


class PermissionWalks:
    """Queries on walks."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(self, experiment_uid: UUID, new: NewPermissionWalk, *, by: str) -> PermissionWalk:
        """Keep a walk that is wanted; the same uid again is the same walk."""
        found = self.get(new.uid)
        if found is not None:
            return found
        row = PermissionWalkRow(
            uid=new.uid,
            experiment_uid=experiment_uid,
            mode=new.mode,
            rate=new.rate,
            state=WalkState.PENDING,
            message="",
            asked_by=by,
            counts={},
            faults={},
            place="",
            is_stop_requested=False,
            created_at=self._now,
            ended_at=None,
        )
        self._session.add(row)
        self._session.flush()  # so that the uid's constraint speaks here
        return _to_walk(row)

    def get(self, uid: UUID) -> PermissionWalk | None:
        """Return a walk; None where there is none."""
        row = self._session.scalars(select(PermissionWalkRow).where(PermissionWalkRow.uid == uid)).one_or_none()
        return None if row is None else _to_walk(row)

    def request_stop(self, uid: UUID) -> None:
        """Ask for the end of a walk."""
        row = PermissionWalkRow
        active = row.state.in_(sorted(ACTIVE_WALKS))
        self._session.execute(update(row).where(row.uid == uid, active).values(is_stop_requested=True))

    def areas(self) -> Sequence[UUID]:
        """Return the storage areas in which there is something to walk through."""
        row = PermissionWalkRow
        active = select(ExperimentRow.storage_area_uid).join(row, row.experiment_uid == ExperimentRow.uid)
        active = active.where(row.state.in_(sorted(ACTIVE_WALKS)))
        given = select(ExperimentRow.storage_area_uid).join(
            ExperimentGroupRow, ExperimentGroupRow.experiment_uid == ExperimentRow.uid
        )
        found = set(self._session.scalars(active.distinct()))
        return list(found | set(self._session.scalars(given.where(_is_unapplied()).distinct())))

    def with_new_groups(self, storage_area_uid: UUID, *, by: str, limit: int) -> Sequence[UUID]:
        """Return experiments whose group is new or has another number; where a walk by us failed, after a while."""
        row = PermissionWalkRow
        is_failed_lately = (row.state == WalkState.FAILED) & (row.ended_at > self._now - AGAIN)
        lately = select(row.experiment_uid).where(
            (row.asked_by == by) & (row.state.in_(sorted(ACTIVE_WALKS)) | is_failed_lately)
        )
        wanted = (
            select(ExperimentRow.uid)
            .join(ExperimentGroupRow, ExperimentGroupRow.experiment_uid == ExperimentRow.uid)
            .where(ExperimentRow.storage_area_uid == storage_area_uid, _is_unapplied())
            .where(ExperimentRow.uid.not_in(lately))
            .limit(limit)
        )
        return self._session.scalars(wanted).all()

    def active(self, storage_area_uid: UUID, *, limit: int) -> Sequence[WalkInHand]:
        """Return the walks of a storage area that have not ended, the oldest first."""
        row = PermissionWalkRow
        wanted = (
            select(row, ExperimentRow.directory, ExperimentGroupRow.gid)
            .join(ExperimentRow, ExperimentRow.uid == row.experiment_uid)
            .outerjoin(ExperimentGroupRow, ExperimentGroupRow.experiment_uid == row.experiment_uid)
            .where(row.state.in_(sorted(ACTIVE_WALKS)), ExperimentRow.storage_area_uid == storage_area_uid)
            .order_by(row.id)
            .limit(limit)
        )
        return [_in_hand(*found) for found in self._session.execute(wanted)]

    def is_publishing(self, experiment_uid: UUID, *, before: datetime) -> bool:
        """Whether a batch of this experiment that was asked for before has not ended."""
        row = PublishRow
        wanted = select(row.id).where(row.experiment_uid == experiment_uid, row.state != PublishState.DONE)
        return self._session.execute(wanted.where(row.created_at <= before).limit(1)).first() is not None

    def progress(self, uid: UUID, place: str, counts: Metadata, faults: Sequence[PermissionFault]) -> None:
        """Record how far a walk is."""
        kept = [one.model_dump(mode="json", exclude_defaults=True) for one in faults[:MOST_FAULTS]]
        self._set(uid, state=WalkState.RUNNING, place=place, counts=counts, faults={"items": kept}, message="")

    def wait(self, uid: UUID, message: str) -> None:
        """Say why a walk does not come on."""
        self._set(uid, message=message[:2000])

    def end(self, uid: UUID, state: WalkState, message: str = "") -> None:
        """Record the end of a walk."""
        self._set(uid, state=state, message=message[:2000], ended_at=self._now)

    def given(self, experiment_uid: UUID, gid: int) -> None:
        """Record that the files of an experiment have been given to this group."""
        row = ExperimentGroupRow
        self._session.execute(update(row).where(row.experiment_uid == experiment_uid).values(applied_gid=gid))

    def sweep(self) -> None:
        """Forget what ended long ago."""
        self._session.execute(delete(PermissionWalkRow).where(PermissionWalkRow.ended_at < self._now - KEPT))

    def _set(self, uid: UUID, **values: Any) -> None:
        self._session.execute(update(PermissionWalkRow).where(PermissionWalkRow.uid == uid).values(**values))


def _is_unapplied() -> Any:
    row = ExperimentGroupRow
    return row.gid.is_not(None) & row.applied_gid.is_distinct_from(row.gid)


def _in_hand(row: PermissionWalkRow, directory: str, gid: int | None) -> WalkInHand:
    return WalkInHand(
        uid=row.uid,
        experiment_uid=row.experiment_uid,
        directory=directory,
        mode=WalkMode(row.mode),
        rate=row.rate,
        asked_by=row.asked_by,
        gid=gid,
        place=row.place,
        counts=row.counts,
        faults=_faults(row),
        is_stop_requested=row.is_stop_requested,
        created_at=row.created_at,
    )


def _faults(row: PermissionWalkRow) -> tuple[PermissionFault, ...]:
    kept: Any = row.faults.get("items", [])
    return tuple(PermissionFault.model_validate(one) for one in kept)


def _to_walk(row: PermissionWalkRow) -> PermissionWalk:
    facts: dict[str, Any] = {
        name: getattr(row, name)
        for name in ("uid", "experiment_uid", "mode", "state", "message", "asked_by", "created_at", "ended_at")
    }
    return PermissionWalk.model_validate({**facts, **row.counts, "faults": _faults(row)})
