"""Small pictures that are still to be made: noted with the step that makes a file available, made behind it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, delete, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, upsert
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.status import Service


class PictureRow(Base):
    """A version whose first frame is still to be looked at."""

    __tablename__ = "pictures"
    __table_args__ = (Index(None, "next_at", "id"),)
    services = frozenset({Service.ACQUISITION})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    version_uid: Mapped[UUID] = mapped_column(unique=True)
    experiment_uid: Mapped[UUID]
    path: Mapped[bytes]
    processor: Mapped[str]
    told: Mapped[Metadata]
    state: Mapped[str]
    next_at: Mapped[datetime]
    attempts: Mapped[int]


@dataclass(frozen=True, slots=True)
class WantedPicture:
    """A version of which a picture is wanted."""

    version_uid: UUID
    experiment_uid: UUID
    path: bytes
    """Where its bytes are on this host."""
    processor: str
    """Which processor makes it."""
    told: Metadata
    """What that one said of the file when it was stored."""
    state: str
    """How the file looked then: one that looks different holds another version now."""
    attempts: int = 0


class Pictures:
    """Queries on pictures that are still to be made."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(self, wanted: Iterable[WantedPicture]) -> None:
        """Note versions; in the transaction that makes them available: neither is without the other."""
        rows = [
            {
                "version_uid": one.version_uid,
                "experiment_uid": one.experiment_uid,
                "path": one.path,
                "processor": one.processor,
                "told": one.told,
                "state": one.state,
                "next_at": self._now,
                "attempts": 0,
            }
            for one in wanted
        ]
        upsert(self._session, PictureRow, rows, key=("version_uid",))

    def due(self, limit: int) -> Sequence[WantedPicture]:
        """Return some of which it is time, those that wait longest first."""
        row = PictureRow
        wanted = (
            select(row.version_uid, row.experiment_uid, row.path, row.processor, row.told, row.state, row.attempts)
            .where(row.next_at <= self._now)
            .order_by(row.next_at, row.id)
            .limit(limit)
        )
        return [WantedPicture(*found) for found in self._session.execute(wanted)]

    def settle(self, versions: Collection[UUID]) -> None:
        """Forget versions: they have their pictures, or will not have any."""
        self._session.execute(delete(PictureRow).where(PictureRow.version_uid.in_(versions)))

    def put_off(self, versions: Collection[UUID], until: datetime) -> None:
        """Let versions be tried again later."""
        row = PictureRow
        later = update(row).where(row.version_uid.in_(versions)).values(next_at=until, attempts=row.attempts + 1)
        self._session.execute(later, execution_options={"synchronize_session": False})

    def count(self) -> int:
        """Return how many are still to be made."""
        return self._session.execute(select(func.count()).select_from(PictureRow)).scalar_one()
