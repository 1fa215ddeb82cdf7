"""The rows of files and versions that are registered, written in bulk: it is here that thousands come each second."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import repeat
from typing import NamedTuple

from sqlalchemy.orm import Session

from beamkeeper.db.base import EPOCH, MICROSECOND, new_hexes
from beamkeeper.db.bulk import insert_bound, take_ids
from beamkeeper.db.files.tables import ChecksumRow, FileRow, ReplicaRow, VerificationRow, VersionRow
from beamkeeper.domain.arriving import Arriving
from beamkeeper.domain.files import ReplicaState
from beamkeeper.domain.versions import Held

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
    """A file that is new: its uid, what says of which source it is, and the version that is the newest."""

    uid: str
    first: Held | Arriving
    new: Arriving


def write_files(session: Session, fresh: Sequence[Fresh]) -> Sequence[int]:
    """Write files that are new, and return their local keys in the same order."""
    if not fresh:
        return ()
    ids = take_ids(session, FileRow, len(fresh))
    rows = [
        (
            id_,
            uid,
            new.experiment,
            new.path,
            new.shown,
            new.path.rpartition(b"/")[0],
            new.kind,
            new.number,
            first.agent,
            first.source_path,
            new.metadata,
            "{}",
        )
        for id_, (uid, first, new) in zip(ids, fresh, strict=True)
    ]
    insert_bound(session, FileRow, _FILES, rows)
    return ids


def write_versions(session: Session, now: datetime, by: str, created: Sequence[tuple[Arriving, int]]) -> None:
    """Write new versions of files, by their local keys, with checksums, replicas, and the ledger's rows of them."""
    count = len(created)
    versions, replicas = take_ids(session, VersionRow, count), take_ids(session, ReplicaRow, count)
    at = (now - EPOCH) // MICROSECOND
    verified = [(at if new.verified_at is None else new.verified_at) if new.is_read else None for new, _ in created]
    insert_bound(session, VersionRow, _VERSIONS, list(map(_version, created, versions, verified, repeat(at))))
    checksums = [
        (id_, algorithm, value)
        for id_, (new, _) in zip(versions, created, strict=True)
        for algorithm, value in new.checksums.items()
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
        (uid, id_, seen, True, new.read_from, *next(iter(new.checksums.items())), by, "")
        for id_, uid, seen, (new, _) in zip(replicas, new_hexes(count), verified, created, strict=True)
        if new.checksums and seen is not None
    ]
    insert_bound(session, VerificationRow, _VERIFICATIONS, ledger)


def _version(created: tuple[Arriving, int], id_: int, verified_at: int | None, now: int) -> tuple[object, ...]:
    new, file_id = created
    return (
        id_,
        new.version,
        file_id,
        new.number,
        new.size,
        new.identity,
        new.link_target,
        new.chunks,
        new.is_snapshot,
        verified_at is not None,
        new.modified_at,
        new.finished_at,
        new.transferred_at,
        verified_at,
        now,
        False,
    )


_UNVERIFIED, _VERIFIED = ReplicaState.UNVERIFIED.value, ReplicaState.VERIFIED.value


def _replica(new: Arriving, ids: tuple[int, str, int], verified_at: int | None, now: int) -> tuple[object, ...]:
    if verified_at is None:
        return *ids, new.area, _UNVERIFIED, now, None, 0, new.is_to_read
    return *ids, new.area, _VERIFIED, now, verified_at, verified_at, False
