"""Staging directories: each is written down before it is made, so that none is left over unknown."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.ahead import AheadRow
from beamkeeper.db.base import Base, BigId
from beamkeeper.db.journal_rows import JournalRow
from beamkeeper.domain.acquisition import JournalState
from beamkeeper.domain.status import Service


class StagingRow(Base):
    """The staging directory of a batch; claiming the batch makes it, the end of its publish removes it."""

    __tablename__ = "stagings"
    services = frozenset({Service.ACQUISITION})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    batch_uid: Mapped[UUID] = mapped_column(unique=True)
    acquisition_uid: Mapped[UUID]


@dataclass(frozen=True, slots=True)
class Staging:
    """Where a batch was to be staged."""

    batch_uid: UUID
    acquisition_uid: UUID


class Stagings:
    """Queries on staging directories."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def left_over(self, limit: int = 100) -> list[Staging]:
        """Return those of batches that nobody copies to, and whose publish is not waited for: oldest first."""
        is_copied = (JournalRow.state == JournalState.READY) & JournalRow.lease.is_not(None)
        is_used = select(JournalRow.id).where(
            JournalRow.batch_uid == StagingRow.batch_uid, or_(is_copied, JournalRow.state == JournalState.STAGED)
        )
        is_ahead = select(AheadRow.id).where(AheadRow.uid == StagingRow.batch_uid)
        wanted = select(StagingRow).where(~is_used.exists(), ~is_ahead.exists()).order_by(StagingRow.id).limit(limit)
        return [Staging(row.batch_uid, row.acquisition_uid) for row in self._session.scalars(wanted)]

    def add(self, uid: UUID, acquisition_uid: UUID) -> None:
        """Write one down, before it is made."""
        self._session.add(StagingRow(batch_uid=uid, acquisition_uid=acquisition_uid))

    def forget(self, batch_uid: UUID) -> None:
        """Forget one: it is removed, by its publish or by us."""
        self._session.execute(delete(StagingRow).where(StagingRow.batch_uid == batch_uid))
