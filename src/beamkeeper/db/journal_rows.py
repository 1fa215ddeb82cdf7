"""The journal's table, and its rows as the watch, the workers and people need them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from beamkeeper.db.base import Base, BigId, JsonDocument
from beamkeeper.domain.acquisition import JournalEntry, JournalState
from beamkeeper.domain.files import FileKind, SourceIdentity
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.status import Service


class JournalRow(Base):
    """A file on its way. `lease` is the fencing token: who holds another one has lost the row."""

    __tablename__ = "journal"
    services = frozenset({Service.ACQUISITION})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID]
    acquisition_uid: Mapped[UUID]
    path: Mapped[bytes]
    directory: Mapped[bytes]
    kind: Mapped[str]
    state: Mapped[str]
    reason_code: Mapped[str] = mapped_column(default="")
    reason: Mapped[str] = mapped_column(default="")
    dev: Mapped[int | None] = mapped_column(BigInteger)
    ino: Mapped[int | None] = mapped_column(BigInteger)
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    mtime_ns: Mapped[int | None] = mapped_column(BigInteger)
    ctime_ns: Mapped[int | None] = mapped_column(BigInteger)
    version_uid: Mapped[UUID | None]
    number: Mapped[int | None]
    is_snapshot: Mapped[bool] = mapped_column(default=False)
    checksums: Mapped[list[dict[str, str]] | None] = mapped_column(JsonDocument)
    chunks: Mapped[list[str] | None] = mapped_column(JsonDocument)
    link_target: Mapped[bytes | None]
    batch_uid: Mapped[UUID | None] = mapped_column(index=True)
    lease: Mapped[UUID | None]
    lease_owner: Mapped[UUID | None] = mapped_column(index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime | None]
    first_seen_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    ready_at: Mapped[datetime | None]
    staged_at: Mapped[datetime | None]
    stored_at: Mapped[datetime | None]
    read_from: Mapped[str | None]
    available_at: Mapped[datetime | None]
    priority: Mapped[int]
    """Lower numbers go first."""

    __table_args__ = (
        UniqueConstraint("uid"),
        UniqueConstraint("acquisition_uid", "path"),
        Index(None, "acquisition_uid", "directory"),
        Index(None, "acquisition_uid", "state"),
        Index(None, "state", "priority", "next_at"),
    )


FIRST, USUAL = 0, 1
"""Priorities: of files that somebody wants before all others, and of these."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the watch says of a file: where it stands now, and why."""

    path: bytes
    state: JournalState
    kind: FileKind = FileKind.FILE
    identity: SourceIdentity | None = None
    reason_code: str = ""
    reason: str = ""
    finished_at: datetime | None = None
    is_snapshot: bool = False
    link_target: bytes | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What the journal knows of a file, as the watch needs it."""

    path: bytes
    state: JournalState
    identity: SourceIdentity | None
    reason_code: str
    is_leased: bool
    available_at: datetime | None
    attempts: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """A file that a worker holds, with everything that its remaining steps need."""

    id: int
    path: bytes
    kind: FileKind
    state: JournalState
    identity: SourceIdentity
    version_uid: UUID
    number: int
    is_snapshot: bool
    checksums: Sequence[Mapping[str, str]]
    chunks: Sequence[str]
    link_target: bytes | None
    attempts: int
    finished_at: datetime
    staged_at: datetime | None
    stored_at: datetime | None
    read_from: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Files that a worker holds together.

    `uid` names their staging directory and their publish, for ever: nobody else begins either. `lease` is the
    fencing token of this one claim: who goes on with the batch after another worker has one of its own.
    """

    uid: UUID
    lease: UUID
    acquisition_uid: UUID
    state: JournalState
    files: Sequence[Claimed]
    ahead: tuple[int, Sequence[str]] | None = None
    """How much of its only file is staged, from while that was written, and the digests of whole chunks."""


def signed(value: int) -> int:
    """Fold an unsigned 64-bit number into the signed range that SQL has."""
    return value - 2**64 if value >= 2**63 else value


def unsigned(value: int) -> int:
    """Unfold what `signed` folded."""
    return value + 2**64 if value < 0 else value


def to_identity(row: Any) -> SourceIdentity | None:
    """Return the identity that a row holds."""
    if row.ino is None:
        return None
    return SourceIdentity.model_construct(
        dev=unsigned(row.dev), ino=unsigned(row.ino), size=row.size, mtime_ns=row.mtime_ns, ctime_ns=row.ctime_ns
    )


_FOR_WORKERS = (
    "id path kind state dev ino size mtime_ns ctime_ns version_uid number is_snapshot checksums chunks link_target "
    "attempts first_seen_at finished_at staged_at stored_at read_from"
)
COLUMNS = tuple(JournalRow.__table__.c[name] for name in _FOR_WORKERS.split())
"""What a worker needs, and no mapper's objects, which cost several times what the query does."""


def to_claimed(row: Any) -> Claimed:
    """Return a row as a worker needs it."""
    identity = to_identity(row)
    if identity is None or row.version_uid is None:
        raise ValueError(f"journal row {row.id} is {row.state} without an identity")
    return Claimed(
        id=row.id,
        path=row.path,
        kind=FileKind(row.kind),
        state=JournalState(row.state),
        identity=identity,
        version_uid=row.version_uid,
        number=row.number or 1,
        is_snapshot=row.is_snapshot,
        checksums=row.checksums or (),
        chunks=row.chunks or (),
        link_target=row.link_target,
        attempts=row.attempts,
        finished_at=row.finished_at or row.first_seen_at,
        staged_at=row.staged_at,
        stored_at=row.stored_at,
        read_from=row.read_from,
    )


def to_entry(row: JournalRow) -> JournalEntry:
    """Return a row as people see it."""
    return JournalEntry(
        uid=row.uid,
        acquisition_uid=row.acquisition_uid,
        kind=FileKind(row.kind),
        state=JournalState(row.state),
        size=row.size,
        identity=to_identity(row),
        version_uid=row.version_uid,
        is_snapshot=row.is_snapshot,
        attempts=row.attempts,
        reason_code=row.reason_code,
        reason=row.reason,
        first_seen_at=row.first_seen_at,
        finished_at=row.finished_at,
        ready_at=row.ready_at,
        staged_at=row.staged_at,
        stored_at=row.stored_at,
        available_at=row.available_at,
        **path_fields(row.path),
    )
