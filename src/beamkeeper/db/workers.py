"""Workers of the engine: which process each is, and a counter that shows whether it lives."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, delete, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId
from beamkeeper.domain.status import Service


class WorkerRow(Base):
    """A process that holds leases."""

    __tablename__ = "workers"
    services = frozenset({Service.ACQUISITION, Service.PROCESSING})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    host: Mapped[str]
    boot_id: Mapped[str]
    pid: Mapped[int] = mapped_column(BigInteger)
    start_ticks: Mapped[int] = mapped_column(BigInteger)
    beat: Mapped[int] = mapped_column(BigInteger, default=0)
    started_at: Mapped[datetime]


@dataclass(frozen=True, slots=True)
class Registered:
    """A worker as the database knows it."""

    uid: UUID
    host: str
    boot_id: str
    pid: int
    start_ticks: int
    beat: int


class Workers:
    """Queries on workers."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(self, uid: UUID, *, host: str, boot_id: str, pid: int, start_ticks: int) -> None:
        """Write a new one."""
        row = WorkerRow(
            uid=uid, host=host, boot_id=boot_id, pid=pid, start_ticks=start_ticks, beat=0, started_at=self._now
        )
        self._session.add(row)

    def beat(self, uid: UUID) -> bool:
        """Show that a worker lives: its counter goes up. No clock is compared (leases survive clock jumps).

        False where it is not written down any more: somebody took it for dead.
        """
        result = self._session.execute(update(WorkerRow).where(WorkerRow.uid == uid).values(beat=WorkerRow.beat + 1))
        return bool(result.rowcount)  # type: ignore[attr-defined]

    def all(self) -> list[Registered]:
        """Return every worker that is written down."""
        return [
            Registered(row.uid, row.host, row.boot_id, row.pid, row.start_ticks, row.beat)
            for row in self._session.scalars(select(WorkerRow).order_by(WorkerRow.id))
        ]

    def remove(self, uid: UUID) -> None:
        """Forget a worker; what it held must be free before."""
        self._session.execute(delete(WorkerRow).where(WorkerRow.uid == uid))
