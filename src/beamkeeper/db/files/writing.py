"""The rows of files and versions that are registered, written in bulk: it is here that thousands come each second."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from beamkeeper.db.base import EPOCH, new_uids
from beamkeeper.db.bulk import insert_rows, take_ids
from beamkeeper.db.files.tables import ChecksumRow, FileRow, ReplicaRow, VerificationRow, VersionRow
from beamkeeper.domain.files import FileKind, NewFile, ReplicaState, SourceIdentity
from beamkeeper.domain.metadata import acceptable_text
from beamkeeper.domain.names import show_path
from beamkeeper.domain.versions import Held, digests

_FILES = (
    "id",
    "uid",
    "experiment_uid",
    "path",
    "path_shown",
    "parent",
    "kind",
    "number",
    "source_agent",
    "source_path",
    "metadata",
    "annotations",
)
_VERSIONS = (
    "id",
    "uid",
    "file_id",
    "number",
    "size",
    "identity",
    "link_target",
    "chunks",
    "is_snapshot",
    "is_verified",
    "modified_at",
    "finished_at",
    "transferred_at",
    "verified_at",
    "catalogued_at",
    "is_suspect",
)
_CHECKSUMS = ("version_id", "algorithm", "value")
_REPLICAS = (
    "id",
    "uid",
    "version_id",
    "storage_area_uid",
    "state",
    "created_at",
    "verified_at",
    "checked_at",
    "is_to_read",
)
_VERIFICATIONS = (
    "uid",
    "replica_id",
    "verified_at",
    "is_match",
    "read_from",
    "algorithm",
    "value",
    "by",
    "message",
)

Fresh = Mapping[UUID, tuple[tuple[UUID, bytes], Held, NewFile]]
"""By the uids of new files: their experiments and paths, what is held of them, and the versions that are the newest."""


def write_files(session: Session, fresh: Fresh) -> Mapping[UUID, int]:
    """Write files that are new, and return their local keys."""
    if not fresh:
        return {}
    ids = dict(zip(fresh, take_ids(session, FileRow, len(fresh)), strict=True))
    rows = [
        (
            ids[uid],
            uid,
            key[0],
            key[1],
            show_path(key[1]),
            key[1].rpartition(b"/")[0],
            new.kind.value,
            new.number,
            held.source.agent,
            bytes(held.source.relpath),
            acceptable_text(new.metadata),
            "{}",
        )
        for uid, (key, held, new) in fresh.items()
    ]
    insert_rows(session, FileRow, _FILES, rows, as_text=("metadata", "annotations"))
    return ids


def write_versions(session: Session, now: datetime, by: str, created: Sequence[tuple[NewFile, int]]) -> None:
    """Write new versions of files, by their local keys, with checksums, replicas, and the ledger's rows of them."""
    count = len(created)
    versions, replicas = take_ids(session, VersionRow, count), take_ids(session, ReplicaRow, count)
    rows = [_version(new, now, id_, file_id) for id_, (new, file_id) in zip(versions, created, strict=True)]
    insert_rows(session, VersionRow, _VERSIONS, rows, as_text=("identity", "chunks"))
    checksums = [
        (id_, algorithm.value, value)
        for id_, (new, _) in zip(versions, created, strict=True)
        for algorithm, value in digests(new.checksums).items()
    ]
    insert_rows(session, ChecksumRow, _CHECKSUMS, checksums)
    insert_rows(
        session,
        ReplicaRow,
        _REPLICAS,
        [
            _replica(new, now, id_, uid, version_id)
            for id_, uid, version_id, (new, _) in zip(replicas, new_uids(count), versions, created, strict=True)
        ],
    )
    ledger = [
        _verification(new, now, by, uid, id_)
        for id_, uid, (new, _) in zip(replicas, new_uids(count), created, strict=True)
        if new.checksums and _is_verified(new)
    ]
    insert_rows(session, VerificationRow, _VERIFICATIONS, ledger)


def _is_verified(new: NewFile) -> bool:
    """Whether its bytes were read back: of a link there are none, and its target is its content."""
    return new.read_from is not None and (bool(new.checksums) or new.kind is FileKind.LINK)


def _verified_at(new: NewFile, now: datetime) -> datetime | None:
    return (new.verified_at or now) if _is_verified(new) else None


def _identity(identity: SourceIdentity) -> str:
    return (
        f'{{"dev":{identity.dev},"ino":{identity.ino},"size":{identity.size},'
        f'"mtime_ns":{identity.mtime_ns},"ctime_ns":{identity.ctime_ns}}}'
    )


def _version(new: NewFile, now: datetime, id_: int, file_id: int) -> tuple[object, ...]:
    return (
        id_,
        new.version_uid,
        file_id,
        new.number,
        new.size,
        _identity(new.identity),
        new.link_target_b64,
        json.dumps(list(new.chunks)) if new.chunks else None,
        new.is_snapshot,
        _is_verified(new),
        new.modified_at,
        new.finished_at,
        new.transferred_at,
        _verified_at(new, now),
        now,
        False,
    )


def _replica(new: NewFile, now: datetime, id_: int, uid: UUID, version_id: int) -> tuple[object, ...]:
    at = _verified_at(new, now)
    state = ReplicaState.UNVERIFIED if at is None else ReplicaState.VERIFIED
    return id_, uid, version_id, new.storage_area_uid, state.value, now, at, at or EPOCH, new.is_to_read and at is None


def _verification(new: NewFile, now: datetime, by: str, uid: UUID, replica_id: int) -> tuple[object, ...]:
    first = new.checksums[0]
    read_from = new.read_from.value if new.read_from else ""
    return uid, replica_id, _verified_at(new, now), True, read_from, first.algorithm.value, first.value, by, ""
