"""Announcements: paths whose writer says that they are finished, until the watch has decided on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import UniqueConstraint, delete, insert, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId
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

    # Numbers are never used again, so that what is announced anew is always new to who remembers the last.
    __table_args__ = (UniqueConstraint("acquisition_uid", "path"), {"sqlite_autoincrement": True})


class Announcements:
    """Queries on announcements."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(self, acquisition_uid: UUID, paths: Iterable[bytes]) -> int:
        """Keep announced paths, each once; returns how many different ones there were.

        One that is announced again counts as new. The acquisition must be locked, so that numbers rise in the order
        of commits.
        """
        wanted = list(dict.fromkeys(map(bytes, paths)))
        self.drop(acquisition_uid, wanted)
        if wanted:
            plain = {"acquisition_uid": acquisition_uid, "announced_at": self._now}
            self._session.execute(insert(AnnouncementRow), [{**plain, "path": path} for path in wanted])
        return len(wanted)

    def after(self, acquisition_uid: UUID, number: int = 0) -> list[tuple[int, bytes]]:
        """Return the paths that are not decided yet, with their numbers, in the order in which they were announced."""
        wanted = select(AnnouncementRow.id, AnnouncementRow.path).where(
            AnnouncementRow.acquisition_uid == acquisition_uid, AnnouncementRow.id > number
        )
        return [(row.id, row.path) for row in self._session.execute(wanted.order_by(AnnouncementRow.id))]

    def drop(self, acquisition_uid: UUID, paths: Sequence[bytes], *, up_to: int | None = None) -> None:
        """Forget paths that are decided; what was announced after number `up_to` stays."""
        is_known = AnnouncementRow.acquisition_uid == acquisition_uid
        if up_to is not None:
            is_known &= AnnouncementRow.id <= up_to
        for start in range(0, len(paths), IN_CHUNK):
            chunk = AnnouncementRow.path.in_(paths[start : start + IN_CHUNK])
            self._session.execute(delete(AnnouncementRow).where(is_known, chunk))

    def drop_all(self, acquisition_uid: UUID) -> None:
        """Forget every path of an acquisition that has ended."""
        self._session.execute(delete(AnnouncementRow).where(AnnouncementRow.acquisition_uid == acquisition_uid))
