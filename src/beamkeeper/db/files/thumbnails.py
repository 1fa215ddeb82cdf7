"""Small pictures of versions, where their bytes are kept: a file each would cost a storage as much as the frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base
from beamkeeper.domain.status import Service


class ThumbnailRow(Base):
    """The picture of a version, as a PNG."""

    __tablename__ = "thumbnails"
    services = frozenset({Service.STORAGE})

    version_uid: Mapped[UUID] = mapped_column(primary_key=True)
    experiment_uid: Mapped[UUID] = mapped_column(index=True)
    made_at: Mapped[datetime]
    png: Mapped[bytes]


class ThumbnailRows:
    """Queries on pictures."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def keep(self, experiment_uid: UUID, pictures: Mapping[UUID, bytes]) -> None:
        """Keep pictures of versions of an experiment; what another one has under these uids stays as it is."""
        if not pictures:
            return
        row = ThumbnailRow
        self._session.execute(delete(row).where(row.version_uid.in_(pictures), row.experiment_uid == experiment_uid))
        others = set(self._session.scalars(select(row.version_uid).where(row.version_uid.in_(pictures))))
        rows = [
            {"version_uid": uid, "experiment_uid": experiment_uid, "made_at": self._now, "png": png}
            for uid, png in pictures.items()
            if uid not in others
        ]
        if rows:
            self._session.execute(insert(row), rows)

    def of(self, experiment_uid: UUID, versions: Sequence[UUID]) -> Mapping[UUID, bytes]:
        """Return the pictures of versions of an experiment, of those that have one."""
        row = ThumbnailRow
        wanted = select(row.version_uid, row.png).where(
            row.version_uid.in_(versions), row.experiment_uid == experiment_uid
        )
        found: dict[UUID, bytes] = dict(self._session.execute(wanted).all())
        return found
