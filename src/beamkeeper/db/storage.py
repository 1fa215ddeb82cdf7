"""Storage areas: table and queries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, new_uid
from beamkeeper.db.events import Events
from beamkeeper.domain.errors import AlreadyExistsError, NotFoundError
from beamkeeper.domain.status import Service
from beamkeeper.domain.storage import NewStorageArea, StorageArea


class StorageAreaRow(Base):
    """A place that holds files."""

    __tablename__ = "storage_areas"
    services = frozenset(Service)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    name: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    station_url: Mapped[str]
    path: Mapped[str]
    transfer: Mapped[str]
    created_at: Mapped[datetime]
    revision: Mapped[int] = mapped_column(BigId, index=True)


class StorageAreas:
    """Queries on storage areas."""

    def __init__(self, session: Session, events: Events, now: datetime) -> None:
        self._session = session
        self._events = events
        self._now = now

    def get(self, uid: UUID) -> StorageArea:
        """Return a storage area by its uid."""
        row = self._session.scalars(select(StorageAreaRow).where(StorageAreaRow.uid == uid)).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no storage area {uid}", uid=str(uid))
        return to_area(row)

    def named(self, name: str) -> StorageArea:
        """Return a storage area by its name."""
        row = self._session.scalars(select(StorageAreaRow).where(StorageAreaRow.name == name)).one_or_none()
        if row is None:
            raise NotFoundError(f'there is no storage area "{name}": `dm storage list` shows all', name=name)
        return to_area(row)

    def list(self) -> Sequence[StorageArea]:
        """Return every storage area, by name."""
        return [to_area(row) for row in self._session.scalars(select(StorageAreaRow).order_by(StorageAreaRow.name))]

    def add(self, new: NewStorageArea) -> StorageArea:
        """Add a storage area."""
        revision = self._events.revise()
        taken = select(StorageAreaRow.id).where(StorageAreaRow.name == new.name)
        if self._session.execute(taken).first() is not None:
            raise AlreadyExistsError(f'there is a storage area "{new.name}" already', name=new.name)
        area = StorageArea(uid=new_uid(), created_at=self._now, **{**new.model_dump(), "transfer": new.plugin})
        self._session.execute(insert(StorageAreaRow).values(**area.model_dump(), revision=revision))
        return area


def to_area(row: StorageAreaRow) -> StorageArea:
    """Return the storage area that a row holds."""
    return StorageArea.model_validate(row, from_attributes=True)
