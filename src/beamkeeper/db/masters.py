"""Master files and which of the files that they link to are not in the catalogue yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Index, UniqueConstraint, func, or_, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, JsonDocument, upsert
from beamkeeper.domain.masters import MISSING_TOLD, MasterCount, MasterFile, MasterPage
from beamkeeper.domain.names import from_b64, path_fields, show_path, to_b64
from beamkeeper.domain.status import Service

REST = timedelta(seconds=5)
"""While the files of a series arrive, a master file is looked after no more often."""


class MasterRow(Base):
    """A master file. `path` is below the experiment, and so are the paths in `missing` (as URL-safe base64)."""

    __tablename__ = "masters"
    services = frozenset({Service.ACQUISITION})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    acquisition_uid: Mapped[UUID] = mapped_column(index=True)
    experiment_uid: Mapped[UUID]
    path: Mapped[bytes]
    version_uid: Mapped[UUID]
    linked: Mapped[int]
    unread: Mapped[int]
    missing: Mapped[list[str]] = mapped_column(JsonDocument)
    is_complete: Mapped[bool]
    is_told: Mapped[bool]
    created_at: Mapped[datetime]
    checked_at: Mapped[datetime | None]
    next_at: Mapped[datetime | None]

    __table_args__ = (UniqueConstraint("experiment_uid", "path"), Index(None, "next_at"))


@dataclass(frozen=True, slots=True)
class Links:
    """A master file that has just become available, and every path that it links to; all below the experiment."""

    path: bytes
    version_uid: UUID
    linked: Sequence[bytes]
    unread: int = 0
    """To how many more files it links: their names were too many to be read."""


@dataclass(frozen=True, slots=True)
class Master:
    """A master file to be looked after: what was missing of it, and whether its metadata say so."""

    id: int
    acquisition_uid: UUID
    experiment_uid: UUID
    path: bytes
    version_uid: UUID
    linked: int
    unread: int
    missing: Sequence[bytes]
    is_told: bool
    created_at: datetime


class Masters:
    """Queries on master files."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(self, acquisition_uid: UUID, experiment_uid: UUID, found: Sequence[Links]) -> None:
        """Write master files down, to be looked after at once; a newer version takes the place of the older."""
        rows = [
            {
                "acquisition_uid": acquisition_uid,
                "experiment_uid": experiment_uid,
                "path": bytes(links.path),
                "version_uid": links.version_uid,
                "linked": len(links.linked) + links.unread,
                "unread": links.unread,
                "missing": [to_b64(path) for path in links.linked],
                "is_complete": False,
                "is_told": False,
                "created_at": self._now,
                "checked_at": None,
                "next_at": self._now,
            }
            for links in found
        ]
        upsert(self._session, MasterRow, rows, key=("experiment_uid", "path"))

    def stir(self, experiment_uid: UUID) -> None:
        """Have what is incomplete in an experiment looked after: now, or soon where that has just been done."""
        wanting = (MasterRow.experiment_uid == experiment_uid) & MasterRow.is_complete.is_(False)
        just_now = MasterRow.checked_at > self._now - REST
        long_ago = or_(MasterRow.checked_at.is_(None), MasterRow.checked_at <= self._now - REST)
        for condition, at in ((wanting & just_now, self._now + REST), (wanting & long_ago, self._now)):
            self._session.execute(
                update(MasterRow).where(condition).values(next_at=at).execution_options(synchronize_session=False)
            )

    def are_wanting(self, experiment_uids: Iterable[UUID]) -> list[UUID]:
        """Return the experiments that have incomplete master files."""
        wanted = select(MasterRow.experiment_uid).distinct()
        conditions = MasterRow.experiment_uid.in_(list(experiment_uids)) & MasterRow.is_complete.is_(False)
        return list(self._session.scalars(wanted.where(conditions)))

    def due(self, limit: int) -> list[Master]:
        """Return those that are to be looked after, longest due first."""
        wanted = select(MasterRow).where(MasterRow.next_at <= self._now).order_by(MasterRow.next_at, MasterRow.id)
        return [
            Master(
                id=row.id,
                acquisition_uid=row.acquisition_uid,
                experiment_uid=row.experiment_uid,
                path=row.path,
                version_uid=row.version_uid,
                linked=row.linked,
                unread=row.unread,
                missing=[from_b64(path) for path in row.missing],
                is_told=row.is_told,
                created_at=row.created_at,
            )
            for row in self._session.scalars(wanted.limit(limit))
        ]

    def settle(self, master: Master, *, missing: Sequence[bytes], is_told: bool, next_at: datetime | None) -> None:
        """Write what was found of one; a newer version that came meanwhile is not touched."""
        self._session.execute(
            update(MasterRow)
            .where(MasterRow.id == master.id, MasterRow.version_uid == master.version_uid)
            .values(
                missing=[to_b64(path) for path in missing],
                is_complete=not missing and not master.unread,
                is_told=is_told,
                checked_at=self._now,
                next_at=next_at,
            )
            .execution_options(synchronize_session=False)
        )

    def count(self, acquisition_uid: UUID) -> MasterCount:
        """Return how many of an acquisition's master files are complete."""
        wanted = (
            select(MasterRow.is_complete, func.count())
            .where(MasterRow.acquisition_uid == acquisition_uid)
            .group_by(MasterRow.is_complete)
        )
        found = {bool(is_complete): count for is_complete, count in self._session.execute(wanted)}
        return MasterCount(complete=found.get(True, 0), incomplete=found.get(False, 0))

    def page(self, acquisition_uid: UUID, is_complete: bool | None, after: str | None, limit: int) -> MasterPage:
        """Return some of an acquisition's, in the order of their paths."""
        wanted = select(MasterRow).where(MasterRow.acquisition_uid == acquisition_uid)
        if is_complete is not None:
            wanted = wanted.where(MasterRow.is_complete.is_(is_complete))
        if after is not None:
            wanted = wanted.where(MasterRow.path > from_b64(after))
        rows = self._session.scalars(wanted.order_by(MasterRow.path).limit(limit)).all()
        last = to_b64(rows[-1].path) if len(rows) == limit else None
        return MasterPage(items=tuple(_to_master_file(row) for row in rows), next=last)


def _to_master_file(row: MasterRow) -> MasterFile:
    return MasterFile(
        acquisition_uid=row.acquisition_uid,
        is_complete=row.is_complete,
        linked=row.linked,
        missing=len(row.missing) + row.unread,
        first_missing=tuple(show_path(from_b64(path)) for path in row.missing[:MISSING_TOLD]),
        checked_at=row.checked_at,
        **path_fields(row.path),
    )
