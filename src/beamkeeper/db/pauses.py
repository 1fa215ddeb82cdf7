"""Storage areas that take nothing at present: since when, why, and when they are tried again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import BigInteger, delete, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.acquisition import AcquisitionRow
from beamkeeper.db.base import Base, BigId, is_due
from beamkeeper.db.experiments import ExperimentRow
from beamkeeper.db.journal_rows import JournalRow
from beamkeeper.domain.acquisition import JournalState
from beamkeeper.domain.status import Service

TRIAL = timedelta(minutes=2)
"""A batch that was let through to see whether an area works has this long, then another is."""


class PauseRow(Base):
    """A storage area that files wait for."""

    __tablename__ = "pauses"
    services = frozenset({Service.ACQUISITION})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    storage_area_uid: Mapped[UUID] = mapped_column(unique=True)
    trouble: Mapped[str]
    message: Mapped[str]
    since: Mapped[datetime]
    failed_at: Mapped[datetime]
    failures: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime]
    wanted_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    is_trial: Mapped[bool] = mapped_column(default=False)


@dataclass(frozen=True, slots=True)
class Pause:
    """Why files wait for a storage area. `is_trial`: one batch may go, to see whether it works again."""

    storage_area_uid: UUID
    trouble: str
    message: str
    since: datetime
    failed_at: datetime
    failures: int
    next_at: datetime
    wanted_bytes: int
    is_trial: bool


class Pauses:
    """Queries on storage areas that are paused."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def all(self) -> list[Pause]:
        """Return every area that is paused."""
        return [_to_pause(row) for row in self._session.scalars(select(PauseRow).order_by(PauseRow.id))]

    def due(self) -> list[Pause]:
        """Return those that may be looked at again."""
        wanted = select(PauseRow).where(PauseRow.is_trial.is_(False), is_due(PauseRow.next_at, self._now))
        return [_to_pause(row) for row in self._session.scalars(wanted.order_by(PauseRow.id))]

    def find(self, area_uid: UUID) -> Pause | None:
        """Return why an area is paused, None where it is not."""
        row = self._row(area_uid)
        return None if row is None else _to_pause(row)

    def begin(self, area_uid: UUID, trouble: str, message: str, *, wanted_bytes: int, pause: timedelta) -> Pause:
        """Let files wait for an area, or wait longer; returns it with how often it has failed by now."""
        row = self._row(area_uid)
        if row is None:
            row = PauseRow(storage_area_uid=area_uid, since=self._now, failures=0, wanted_bytes=0)
            self._session.add(row)
        row.trouble, row.message, row.is_trial, row.failed_at = trouble, message[:2000], False, self._now
        row.failures, row.next_at = row.failures + 1, self._now + pause
        row.wanted_bytes = max(row.wanted_bytes, wanted_bytes)
        self._session.flush()
        return _to_pause(row)

    def wait(self, area_uid: UUID, message: str, *, until: datetime) -> None:
        """Look again later, and say why."""
        self._set(area_uid, message=message[:2000], next_at=until, is_trial=False)

    def grant(self, area_uid: UUID) -> None:
        """Let one batch go, to see whether an area works again."""
        self._set(area_uid, is_trial=True)

    def take(self, area_uid: UUID) -> None:
        """Say that the batch is on its way; should it never come to an end, another may go later."""
        self._set(area_uid, is_trial=False, next_at=self._now + TRIAL)

    def look_now(self) -> None:
        """Look at every area again now."""
        self._session.execute(update(PauseRow).values(next_at=self._now))

    def end(self, area_uid: UUID) -> None:
        """Let files wait for an area no more."""
        self._session.execute(delete(PauseRow).where(PauseRow.storage_area_uid == area_uid))

    def waiting(self, area_uid: UUID) -> int:
        """Return how many files wait for an area."""
        of_area = (
            select(AcquisitionRow.uid)
            .join(ExperimentRow, ExperimentRow.uid == AcquisitionRow.experiment_uid)
            .where(ExperimentRow.storage_area_uid == area_uid)
        )
        on_their_way = (JournalState.READY, JournalState.STAGED)
        wanted = select(func.count()).where(
            JournalRow.acquisition_uid.in_(of_area), JournalRow.state.in_([str(state) for state in on_their_way])
        )
        return self._session.execute(wanted).scalar_one()

    def _row(self, area_uid: UUID) -> PauseRow | None:
        return self._session.scalars(select(PauseRow).where(PauseRow.storage_area_uid == area_uid)).one_or_none()

    def _set(self, area_uid: UUID, **values: object) -> None:
        self._session.execute(update(PauseRow).where(PauseRow.storage_area_uid == area_uid).values(**values))


def _to_pause(row: PauseRow) -> Pause:
    return Pause(
        storage_area_uid=row.storage_area_uid,
        trouble=row.trouble,
        message=row.message,
        since=row.since,
        failed_at=row.failed_at,
        failures=row.failures,
        next_at=row.next_at,
        wanted_bytes=row.wanted_bytes,
        is_trial=row.is_trial,
    )
