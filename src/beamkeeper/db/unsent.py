"""Experiments that were made at a station while it was cut off: kept until the site has made them as well."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, JsonDocument
from beamkeeper.db.experiments import ExperimentRow
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.experiments import SentExperiment, UnsentExperiment
from beamkeeper.domain.status import Service

FIRST_PAUSE = timedelta(seconds=10)
LONGEST_PAUSE = timedelta(hours=1)


class UnsentRow(Base):
    """An experiment that the site does not know yet, as somebody wanted it."""

    __tablename__ = "unsent_experiments"
    services = frozenset({Service.ACQUISITION})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    wanted: Mapped[dict[str, Any]] = mapped_column(JsonDocument)
    message: Mapped[str] = mapped_column(default="")
    made_at: Mapped[datetime]
    tries: Mapped[int]
    next_at: Mapped[datetime]


class UnsentExperiments:
    """Queries on experiments that the site does not know yet."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(self, uid: UUID, wanted: SentExperiment) -> None:
        """Keep one."""
        row = UnsentRow(uid=uid, wanted=wanted.model_dump(mode="json"), message="", made_at=self._now)
        row.tries, row.next_at = 0, self._now
        self._session.add(row)
        self._session.flush()

    def list(self) -> Sequence[UnsentExperiment]:
        """Return all, oldest first."""
        return [_to_unsent(row) for row in self._session.scalars(select(UnsentRow).order_by(UnsentRow.id))]

    def get(self, uid: UUID) -> UnsentExperiment:
        """Return one; nobody else changes it before this transaction ends."""
        return _to_unsent(self._row(uid))

    def due(self) -> Sequence[UnsentExperiment]:
        """Return those that are to be sent now, oldest first: what was refused rests for longer each time."""
        wanted = select(UnsentRow).where(UnsentRow.next_at <= self._now).order_by(UnsentRow.id)
        return [_to_unsent(row) for row in self._session.scalars(wanted)]

    def counts(self) -> tuple[int, int]:
        """Return how many there are, and how many of them the site has refused."""
        refused = select(func.count()).select_from(UnsentRow).where(UnsentRow.message != "")
        everything = select(func.count()).select_from(UnsentRow)
        return self._session.scalar(everything) or 0, self._session.scalar(refused) or 0

    def refuse(self, uid: UUID, message: str) -> None:
        """Keep why the site does not make one, and let it rest."""
        row = self._session.scalars(select(UnsentRow).where(UnsentRow.uid == uid).with_for_update()).one_or_none()
        if row is not None:  # it may have been dropped meanwhile
            row.message, row.tries = message[:2000], row.tries + 1
            row.next_at = self._now + min(LONGEST_PAUSE, FIRST_PAUSE * (1 << min(row.tries - 1, 20)))

    def send_again(self, uid: UUID, wanted: SentExperiment) -> UnsentExperiment:
        """Let one be sent now, as it is wanted by now."""
        row = self._row(uid)
        row.wanted, row.message, row.tries, row.next_at = wanted.model_dump(mode="json"), "", 0, self._now
        self._session.flush()
        return _to_unsent(row)

    def rename(self, uid: UUID, name: str) -> None:
        """Let one be called something else at this station."""
        self._session.execute(update(ExperimentRow).where(_is_unsent(uid)).values(name=name))

    def drop(self, uid: UUID) -> None:
        """Let one be gone from this station, and its name be free; what names it, such as DAQs, stays."""
        self._row(uid)
        number = self._session.scalar(select(ExperimentRow.id).where(_is_unsent(uid)))
        values = {"name": f"dropped-{number}", "deleted_at": self._now}
        self._session.execute(update(ExperimentRow).where(_is_unsent(uid)).values(**values))
        self.forget(uid)

    def forget(self, uid: UUID) -> None:
        """Forget one: the site has made it, or nobody wants it any more."""
        self._session.execute(delete(UnsentRow).where(UnsentRow.uid == uid))

    def _row(self, uid: UUID) -> UnsentRow:
        row = self._session.scalars(select(UnsentRow).where(UnsentRow.uid == uid).with_for_update()).one_or_none()
        if row is None:
            raise NotFoundError(f"no experiment {uid} waits here: it is made, or was dropped", uid=str(uid))
        return row


def _is_unsent(uid: UUID) -> ColumnElement[bool]:
    return and_(ExperimentRow.uid == uid, ExperimentRow.number < 0)


def _to_unsent(row: UnsentRow) -> UnsentExperiment:
    wanted = SentExperiment.model_validate(row.wanted)
    return UnsentExperiment(
        uid=row.uid,
        name=wanted.new.name,
        made_by=wanted.by,
        made_at=row.made_at,
        message=row.message,
        tries=row.tries,
        next_at=row.next_at,
        wanted=wanted,
    )
