"""The rows of files and versions that are registered, written in bulk: it is here that thousands come each second."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import repeat
from typing import NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

from beamkeeper.db.base import EPOCH, MICROSECOND, new_hexes
from beamkeeper.db.bulk import insert_bound, take_ids
from beamkeeper.db.files.tables import ChecksumRow, FileRow, ReplicaRow, VerificationRow, VersionRow
from beamkeeper.domain.files import FileKind, NewFile, ReplicaState, SourceIdentity
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


class Fresh(NamedTuple):
    """A file that is new: its path, what is held of it, and the version that is the newest."""

    uid: UUID
    path: bytes
    held: Held
    new: NewFile


def write_files(session: Session, fresh: Sequence[Fresh]) -> Sequence[int]:
    """Write files that are new, and return their local keys in the same order."""
    if not fresh:
        return ()
    ids = take_ids(session, FileRow, len(fresh))
    rows = [
        (
            id_,
            uid.hex,
            new.experiment_uid.hex,
            path,
            show_path(path),
            path.rpartition(b"/")[0],
            new.kind.value,
            new.number,
            held.source.agent,
            bytes(held.source.relpath),
            new.metadata_text,
            "{}",
        )
        for id_, (uid, path, held, new) in zip(ids, fresh, strict=True)
    ]
    insert_bound(session, FileRow, _FILES, rows)
    return ids


def write_versions(session: Session, now: datetime, by: str, created: Sequence[tuple[NewFile, int]]) -> None:
    """Write new versions of files, by their local keys, with checksums, replicas, and the ledger's rows of them."""
    count = len(created)
    versions, replicas = take_ids(session, VersionRow, count), take_ids(session, ReplicaRow, count)
    at = _microseconds(now)
    verified = [_verified_at(new, at) for new, _ in created]
    insert_bound(session, VersionRow, _VERSIONS, list(map(_version, created, versions, verified, repeat(at))))
    checksums = [
        (id_, algorithm.value, value)
        for id_, (new, _) in zip(versions, created, strict=True)
        for algorithm, value in digests(new.checksums).items()
    ]
    insert_bound(session, ChecksumRow, _CHECKSUMS, checksums)
    copies = [
        _replica(new, (id_, uid, version_id), seen, at)
        for id_, uid, version_id, seen, (new, _) in zip(
            replicas, new_hexes(count), versions, verified, created, strict=True
        )
    ]
    insert_bound(session, ReplicaRow, _REPLICAS, copies)
    ledger = [
        _verification(new, seen, by, uid, id_)
        for id_, uid, seen, (new, _) in zip(replicas, new_hexes(count), verified, created, strict=True)
        if new.checksums and seen is not None
    ]
    insert_bound(session, VerificationRow, _VERIFICATIONS, ledger)


def _microseconds(at: datetime) -> int:
    return (at - EPOCH) // MICROSECOND


def _verified_at(new: NewFile, now: int) -> int | None:
    """When its bytes were read back, if they were: of a link there are none, and its target is its content."""
    if new.read_from is None or not (new.checksums or new.kind is FileKind.LINK):
        return None
    return now if new.verified_at is None else _microseconds(new.verified_at)


def _identity(identity: SourceIdentity) -> str:
    return (
        f'{{"dev":{identity.dev},"ino":{identity.ino},"size":{identity.size},'
        f'"mtime_ns":{identity.mtime_ns},"ctime_ns":{identity.ctime_ns}}}'
    )


def _version(created: tuple[NewFile, int], id_: int, verified_at: int | None, now: int) -> tuple[object, ...]:
    new, file_id = created
    return (
        id_,
        new.version_uid.hex,
        file_id,
        new.number,
        new.size,
        _identity(new.identity),
        new.link_target_b64,
        json.dumps(list(new.chunks)) if new.chunks else None,
        new.is_snapshot,
        verified_at is not None,
        _microseconds(new.modified_at),
        _microseconds(new.finished_at),
        _microseconds(new.transferred_at),
        verified_at,
        now,
        False,
    )


def _replica(new: NewFile, ids: tuple[int, str, int], verified_at: int | None, now: int) -> tuple[object, ...]:
    state = ReplicaState.UNVERIFIED if verified_at is None else ReplicaState.VERIFIED
    is_to_read = new.is_to_read and verified_at is None
    return *ids, new.storage_area_uid.hex, state.value, now, verified_at, verified_at or 0, is_to_read


def _verification(new: NewFile, at: int, by: str, uid: str, replica_id: int) -> tuple[object, ...]:
    first = new.checksums[0]
    read_from = new.read_from.value if new.read_from else ""
    return uid, replica_id, at, True, read_from, first.algorithm.value, first.value, by, ""
