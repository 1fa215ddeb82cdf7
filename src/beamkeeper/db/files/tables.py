"""The tables of the catalogue, and how their rows become what callers get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import BigInteger, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from beamkeeper.db.base import Base, BigId, JsonDocument
from beamkeeper.db.kinds import kept_by_us, partial_index
from beamkeeper.domain.files import (
    File,
    FileKind,
    ReadFrom,
    Replica,
    ReplicaState,
    Source,
    SourceIdentity,
    Verification,
    Version,
)
from beamkeeper.domain.names import Checksum, Metadata, path_fields
from beamkeeper.domain.status import Service

CATALOG = frozenset({Service.CATALOG})
_CHECKSUM = TypeAdapter(Checksum)


class FileRow(Base):
    """A path below an experiment; `number` is that of its newest version."""

    __tablename__ = "files"
    __table_args__ = (UniqueConstraint("experiment_uid", "path"),)
    services = CATALOG

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    experiment_uid: Mapped[UUID]
    path: Mapped[bytes]
    path_shown: Mapped[str]
    parent: Mapped[bytes]
    kind: Mapped[str]
    number: Mapped[int]
    source_agent: Mapped[str]
    source_path: Mapped[bytes]
    metadata_: Mapped[Metadata] = mapped_column("metadata", JsonDocument)
    annotations: Mapped[Metadata]
    """What people have set and removed, as a merge patch: it is laid over the metadata of the next version too."""
    deleted_at: Mapped[datetime | None]
    deleted_by: Mapped[str | None]


class VersionRow(Base):
    """The content of a path at one time."""

    __tablename__ = "versions"
    __table_args__ = (
        kept_by_us("file_id", "files.id"),
        UniqueConstraint("file_id", "number"),
        # Of those few only: nearly all are verified as they are registered.
        partial_index(
            "ix_versions_unverified", "file_id", on_postgresql="NOT is_verified", on_sqlite="is_verified = 0"
        ),
    )
    services = CATALOG

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    file_id: Mapped[int] = mapped_column(BigId)
    number: Mapped[int]
    size: Mapped[int] = mapped_column(BigInteger)
    identity: Mapped[Metadata]
    """A document, since inode numbers may have all of 64 bits, for which neither database has a column."""
    link_target: Mapped[str | None]
    chunks: Mapped[list[str] | None] = mapped_column(JsonDocument)
    is_snapshot: Mapped[bool]
    is_verified: Mapped[bool]
    modified_at: Mapped[datetime]
    finished_at: Mapped[datetime]
    transferred_at: Mapped[datetime]
    verified_at: Mapped[datetime | None]
    catalogued_at: Mapped[datetime]
    is_suspect: Mapped[bool]


class ChecksumRow(Base):
    """A version's checksum by one algorithm."""

    __tablename__ = "checksums"
    __table_args__ = (kept_by_us("version_id", "versions.id"),)
    services = CATALOG

    version_id: Mapped[int] = mapped_column(BigId, primary_key=True)
    algorithm: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class ReplicaRow(Base):
    """A copy of a version in a storage area."""

    __tablename__ = "replicas"
    __table_args__ = (
        kept_by_us("version_id", "versions.id"),
        UniqueConstraint("version_id", "storage_area_uid"),
        Index(None, "checked_at", "uid"),
        # Of those few only, so that it costs nothing where copies are read back at once.
        partial_index("ix_replicas_to_read", "uid", on_postgresql="is_to_read", on_sqlite="is_to_read = 1"),
    )
    services = CATALOG

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    version_id: Mapped[int] = mapped_column(BigId)
    storage_area_uid: Mapped[UUID]
    state: Mapped[str]
    created_at: Mapped[datetime]
    verified_at: Mapped[datetime | None]
    checked_at: Mapped[datetime]
    """When it was last looked at, whatever was found; EPOCH where it never was."""
    is_to_read: Mapped[bool]
    """It was stored unread, and is to be read by itself."""


class VerificationRow(Base):
    """The ledger: rows are added, and never changed."""

    __tablename__ = "verifications"
    __table_args__ = (kept_by_us("replica_id", "replicas.id"), Index(None, "replica_id"))
    services = CATALOG

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    replica_id: Mapped[int] = mapped_column(BigId)
    verified_at: Mapped[datetime]
    is_match: Mapped[bool]
    read_from: Mapped[str]
    algorithm: Mapped[str | None]
    value: Mapped[str | None]
    by: Mapped[str]
    message: Mapped[str] = mapped_column(default="")


Checksums = Mapping[int, Sequence[Checksum]]
"""Checksums by the local key of their version."""


def to_checksum(algorithm: str, value: str) -> Checksum:
    """Return the checksum of a row."""
    return _CHECKSUM.validate_python({"algorithm": algorithm, "value": value})


def to_file(row: FileRow, version: VersionRow, checksums: Checksums) -> File:
    """Return a file with its newest version, as it was looked at when it came: to look again takes most of the time."""
    return File.model_construct(
        **path_fields(row.path),
        uid=row.uid,
        experiment_uid=row.experiment_uid,
        kind=FileKind(row.kind),
        version=version.number,
        version_uid=version.uid,
        size=version.size,
        checksums=tuple(checksums.get(version.id, ())),
        link_target_b64=version.link_target,
        source=Source.model_construct(agent=row.source_agent, **path_fields(row.source_path)),
        identity=SourceIdentity.model_validate(version.identity),
        is_snapshot=version.is_snapshot,
        is_verified=version.is_verified,
        is_suspect=version.is_suspect,
        modified_at=version.modified_at,
        finished_at=version.finished_at,
        transferred_at=version.transferred_at,
        verified_at=version.verified_at,
        catalogued_at=version.catalogued_at,
        metadata=row.metadata_,
        deleted_at=row.deleted_at,
    )


def to_version(row: VersionRow, file_uid: UUID, checksums: Checksums) -> Version:
    """Return a version."""
    return Version(
        uid=row.uid,
        file_uid=file_uid,
        number=row.number,
        size=row.size,
        checksums=checksums.get(row.id, ()),
        is_snapshot=row.is_snapshot,
        modified_at=row.modified_at,
        finished_at=row.finished_at,
        transferred_at=row.transferred_at,
        verified_at=row.verified_at,
        catalogued_at=row.catalogued_at,
    )


def to_replica(row: ReplicaRow, version_uid: UUID) -> Replica:
    """Return a replica."""
    return Replica(
        uid=row.uid,
        version_uid=version_uid,
        storage_area_uid=row.storage_area_uid,
        state=ReplicaState(row.state),
        created_at=row.created_at,
        verified_at=row.verified_at,
    )


def to_verification(row: VerificationRow, replica_uid: UUID, version_uid: UUID) -> Verification:
    """Return a row of the ledger."""
    return Verification(
        uid=row.uid,
        replica_uid=replica_uid,
        version_uid=version_uid,
        verified_at=row.verified_at,
        is_match=row.is_match,
        read_from=ReadFrom(row.read_from),
        checksum=to_checksum(row.algorithm, row.value) if row.algorithm and row.value else None,
        by=row.by,
        message=row.message,
    )
