"""Announcements: paths whose writer says that they are finished, until the watch has decided on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import UniqueConstraint, delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, upsert
from beamkeeper.domain.status import Service

IN_CHUNK = 500
"""Values in one IN list: under every database's limit of bound parameters."""


class AnnouncementRow(Base):
    """A path that was announced; below its acquisition's directory."""

    __tablename__ = "announcements"
    services = frozenset({Service.ACQUISITION})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    acquisition_uid: Mapped[UUID]
    path: Mapped[bytes]
    announced_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("acquisition_uid", "path"),)


class Announcements:
    """Queries on announcements."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(self, acquisition_uid: UUID, paths: Iterable[bytes]) -> int:
        """Keep announced paths, each once; returns how many different ones there were."""
        rows = [
            {"acquisition_uid": acquisition_uid, "path": bytes(path), "announced_at": self._now}
            for path in dict.fromkeys(paths)
        ]
        upsert(self._session, AnnouncementRow, rows, key=("acquisition_uid", "path"))
        return len(rows)

    def of(self, acquisition_uid: UUID) -> list[bytes]:
        """Return the paths that are not decided yet, in the order in which they were announced."""
        wanted = select(AnnouncementRow.path).where(AnnouncementRow.acquisition_uid == acquisition_uid)
        return list(self._session.scalars(wanted.order_by(AnnouncementRow.id)))

    def drop(self, acquisition_uid: UUID, paths: Sequence[bytes]) -> None:
        """Forget paths that are decided."""
        for start in range(0, len(paths), IN_CHUNK):
            self._session.execute(
                delete(AnnouncementRow).where(
                    AnnouncementRow.acquisition_uid == acquisition_uid,
                    AnnouncementRow.path.in_(paths[start : start + IN_CHUNK]),
                )
            )

    def drop_all(self, acquisition_uid: UUID) -> None:
        """Forget every path of an acquisition that has ended."""
        self._session.execute(delete(AnnouncementRow).where(AnnouncementRow.acquisition_uid == acquisition_uid))
