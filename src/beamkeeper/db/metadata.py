"""The history of metadata: a row for each change of a file, dataset, run or experiment; rows are only added."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol, cast
from uuid import UUID

from sqlalchemy import Index, Table, insert, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, new_uid
from beamkeeper.db.pages import parts, to_cursor, uid_of
from beamkeeper.domain.metadata import MetadataChange, MetadataHistory, difference, patched, touched
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.replication import MetadataChangeDocument
from beamkeeper.domain.status import Service


class MetadataChangeRow(Base):
    """One change of the metadata of a thing, whose uid tells which; its `id` tells the order."""

    __tablename__ = "metadata_changes"
    __table_args__ = (Index(None, "subject_uid", "id"),)
    services = frozenset({Service.STORAGE, Service.CATALOG})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    subject_uid: Mapped[UUID]
    experiment_uid: Mapped[UUID]
    changed_at: Mapped[datetime]
    changed_by: Mapped[str]
    patch: Mapped[Metadata]
    before: Mapped[Metadata]
    version: Mapped[int | None]


_TABLE = cast(Table, MetadataChangeRow.__table__)


class Change(NamedTuple):
    """What is to be remembered."""

    subject_uid: UUID
    experiment_uid: UUID
    before: Metadata
    patch: Metadata
    version: int | None = None


class MetadataChanges:
    """Queries on the history of metadata."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(self, changes: Sequence[Change], *, by: str) -> None:
        """Remember changes, each with the whole document as it was before; what changes nothing leaves no row."""
        rows = [self._row(change, by) for change in changes if _is_change(change)]
        if rows:
            self._session.connection().execute(insert(_TABLE), rows)

    def _row(self, change: Change, by: str) -> dict[str, Any]:
        return {
            "uid": new_uid(),
            "subject_uid": change.subject_uid,
            "experiment_uid": change.experiment_uid,
            "changed_at": self._now,
            "changed_by": by,
            "patch": change.patch,
            "before": touched(change.before, change.patch),
            "version": change.version,
        }

    def page(self, subject_uid: UUID, *, after: str | None, limit: int) -> MetadataHistory:
        """Return some changes of one thing, newest first."""
        wanted = select(MetadataChangeRow).where(MetadataChangeRow.subject_uid == subject_uid)
        if after is not None:
            known = select(MetadataChangeRow.id).where(
                MetadataChangeRow.subject_uid == subject_uid, MetadataChangeRow.uid == uid_of(after)
            )
            wanted = wanted.where(MetadataChangeRow.id < known.scalar_subquery())
        rows = self._session.scalars(wanted.order_by(MetadataChangeRow.id.desc()).limit(limit + 1)).all()
        items = [MetadataChange.model_validate(row, from_attributes=True) for row in rows[:limit]]
        return MetadataHistory(items=items, next=to_cursor(items[-1].uid.hex) if len(rows) > limit else None)


def replaced(subject_uid: UUID, experiment_uid: UUID, old: Metadata, new: Metadata, *, version: int) -> Change:
    """Return the change that a new version of a file makes: it comes with metadata of its own."""
    return Change(subject_uid, experiment_uid, old, difference(old, new), version)


class Remembered(Protocol):
    """A document that has the history of its metadata."""

    @property
    def uid(self) -> UUID:
        """Of what the history is."""
        ...

    @property
    def experiment_uid(self) -> UUID:
        """The experiment of that."""
        ...

    @property
    def history(self) -> Sequence[MetadataChangeDocument]:
        """Oldest first."""
        ...


def histories(session: Session, uids: Iterable[UUID]) -> Mapping[UUID, Sequence[MetadataChangeDocument]]:
    """Return the changes of the metadata of some things, oldest first."""
    found: defaultdict[UUID, list[MetadataChangeDocument]] = defaultdict(list)
    for part in parts(uids):
        wanted = select(MetadataChangeRow).where(MetadataChangeRow.subject_uid.in_(part))
        for row in session.scalars(wanted.order_by(MetadataChangeRow.id)):
            plain = {name: getattr(row, name) for name in MetadataChangeDocument.model_fields}
            found[row.subject_uid].append(MetadataChangeDocument.model_validate(plain))
    return found


def take_histories(session: Session, documents: Iterable[Remembered]) -> None:
    """Add changes of metadata that have come with documents; those that are there stay."""
    rows = {
        change.uid: {**change.model_dump(), "subject_uid": each.uid, "experiment_uid": each.experiment_uid}
        for each in documents
        for change in each.history
    }
    for part in parts(rows):
        for uid in session.scalars(select(MetadataChangeRow.uid).where(MetadataChangeRow.uid.in_(part))):
            del rows[uid]
    if rows:
        session.execute(insert(MetadataChangeRow), list(rows.values()))


def _is_change(change: Change) -> bool:
    return bool(difference(change.before, patched(change.before, change.patch)))
