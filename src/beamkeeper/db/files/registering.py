"""Registering many versions at once, in a handful of statements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Table, bindparam, insert, select, update
from sqlalchemy.orm import Session

from beamkeeper.db.base import EPOCH, new_uid
from beamkeeper.db.files.tables import (
    ChecksumRow,
    Checksums,
    FileRow,
    ReplicaRow,
    VerificationRow,
    VersionRow,
    to_checksum,
)
from beamkeeper.domain.files import FileKind, NewFile, Registered, RegisteredAs, ReplicaState, Source
from beamkeeper.domain.metadata import acceptable, patched
from beamkeeper.domain.names import Metadata, show_path, to_b64
from beamkeeper.domain.versions import Held, digests, judge

Key = tuple[UUID, bytes]
"""An experiment and a path in it."""


@dataclass(slots=True)
class _Entry:
    """A path of the catalogue as it is while a batch is worked through."""

    uid: UUID
    held: Held
    version_uid: UUID
    catalogued_at: datetime
    annotations: Metadata
    is_new: bool = False


class Registration:
    """One batch; what it decides is kept until `write`."""

    def __init__(self, session: Session, now: datetime, by: str) -> None:
        self._session = session
        self._now = now
        self._by = by
        self._entries: dict[Key, _Entry] = {}
        self._seen: dict[UUID, tuple[Key, int, UUID, datetime]] = {}
        self._files: dict[Key, dict[str, Any]] = {}
        self._created: list[tuple[NewFile, _Entry]] = []
        self._adopted: dict[UUID, dict[str, Any]] = {}

    def run(self, files: Sequence[NewFile]) -> list[Registered]:
        """Register versions, and answer for each in the order asked."""
        self._load_replayed([new.version_uid for new in files])
        self._load_entries(files)
        answers = [self._register(new) for new in files]
        self._write()
        return answers

    def _load_replayed(self, uids: Sequence[UUID]) -> None:
        wanted = (
            select(
                VersionRow.uid,
                VersionRow.number,
                VersionRow.catalogued_at,
                FileRow.uid,
                FileRow.experiment_uid,
                FileRow.path,
            )
            .join(FileRow, FileRow.id == VersionRow.file_id)
            .where(VersionRow.uid.in_(uids))
        )
        for uid, number, catalogued_at, file_uid, experiment_uid, path in self._session.execute(wanted):
            self._seen[uid] = ((experiment_uid, path), number, file_uid, catalogued_at)

    def _load_entries(self, files: Sequence[NewFile]) -> None:
        paths: defaultdict[UUID, set[bytes]] = defaultdict(set)
        for new in files:
            paths[new.experiment_uid].add(bytes(new.relpath))
        for experiment_uid, wanted in paths.items():
            rows = newest(self._session, experiment_uid, wanted)
            checksums = checksums_of(self._session, [version.id for _, version in rows])
            for file, version in rows:
                self._entries[experiment_uid, file.path] = _Entry(
                    file.uid, _held(file, version, checksums), version.uid, version.catalogued_at, file.annotations
                )

    def _register(self, new: NewFile) -> Registered:
        key = (new.experiment_uid, bytes(new.relpath))
        if (seen := self._seen.get(new.version_uid)) is not None:
            return _replayed(new, key, seen)
        entry = self._entries.get(key)
        judgement = judge(new, entry.held if entry else None)
        if judgement.result is RegisteredAs.CREATED:
            entry = self._create(key, new, entry)
        elif judgement.result is RegisteredAs.EXISTS and entry is not None:
            self._adopt(new, entry)
        return Registered(
            version_uid=new.version_uid,
            file_uid=entry.uid if entry else None,
            result=judgement.result,
            message=judgement.message[:2000],
            catalogued_at=None if entry is None or judgement.result is RegisteredAs.CONFLICT else entry.catalogued_at,
        )

    def _create(self, key: Key, new: NewFile, entry: _Entry | None) -> _Entry:
        held = Held(
            new.number,
            new.kind,
            new.size,
            digests(new.checksums),
            new.link_target_b64,
            entry.held.source if entry else new.source,
        )
        created = _Entry(
            entry.uid if entry else new_uid(),
            held,
            new.version_uid,
            self._now,
            entry.annotations if entry else {},
            is_new=entry is None or entry.is_new,
        )
        self._entries[key] = created
        self._seen[new.version_uid] = (key, new.number, created.uid, self._now)
        self._files[key] = self._file_values(key, new, created)
        self._created.append((new, created))
        return created

    def _adopt(self, new: NewFile, entry: _Entry) -> None:
        """Remember the state in which the same source was found, so that it counts as unchanged from now on."""
        held = entry.held.source
        if (new.source.agent, new.source.relpath) == (held.agent, held.relpath):
            self._adopted[entry.version_uid] = {
                "at_uid": entry.version_uid,
                "new_identity": new.identity.model_dump(),
                "new_modified_at": new.modified_at,
            }

    def _file_values(self, key: Key, new: NewFile, entry: _Entry) -> dict[str, Any]:
        return {
            "uid": entry.uid,
            "experiment_uid": key[0],
            "path": key[1],
            "path_shown": show_path(key[1]),
            "parent": new.relpath.parent,
            "kind": new.kind,
            "number": new.number,
            "source_agent": entry.held.source.agent,
            "source_path": bytes(entry.held.source.relpath),
            "metadata": patched(acceptable(dict(new.metadata)), entry.annotations),
            "annotations": entry.annotations,
            "deleted_at": None,
            "deleted_by": None,
        }

    def _write(self) -> None:
        self._write_files()
        if self._created:
            ids = self._ids(FileRow, [entry.uid for _, entry in self._created])
            self._insert(VersionRow, [self._version_values(new, ids[entry.uid]) for new, entry in self._created])
            versions = self._ids(VersionRow, [new.version_uid for new, _ in self._created])
            self._write_checksums(versions)
            self._write_replicas(versions)
        if self._adopted:
            versions_table = _table(VersionRow)
            self._session.connection().execute(
                update(versions_table)
                .where(versions_table.c.uid == bindparam("at_uid"))
                .values(identity=bindparam("new_identity"), modified_at=bindparam("new_modified_at")),
                list(self._adopted.values()),
            )

    def _write_files(self) -> None:
        changed = [values for key, values in self._files.items() if not self._entries[key].is_new]
        self._insert(FileRow, [values for key, values in self._files.items() if self._entries[key].is_new])
        if changed:
            files = _table(FileRow)
            columns = {"kind": "kind", "number": "number", "metadata": "metadata", "deleted_at": "deleted_at"}
            self._session.connection().execute(
                update(files)
                .where(files.c.uid == bindparam("at_uid"))
                .values({name: bindparam(f"new_{name}") for name in (*columns, "deleted_by")}),
                [
                    {"at_uid": v["uid"], "new_deleted_by": None, **{f"new_{n}": v[k] for n, k in columns.items()}}
                    for v in changed
                ],
            )

    def _version_values(self, new: NewFile, file_id: int) -> dict[str, Any]:
        return {
            "uid": new.version_uid,
            "file_id": file_id,
            "number": new.number,
            "size": new.size,
            "identity": new.identity.model_dump(),
            "link_target": new.link_target_b64,
            "chunks": list(new.chunks) or None,
            "is_snapshot": new.is_snapshot,
            "is_verified": _is_verified(new),
            "modified_at": new.modified_at,
            "finished_at": new.finished_at,
            "transferred_at": new.transferred_at,
            "verified_at": self._verified_at(new),
            "catalogued_at": self._now,
            "is_suspect": False,
        }

    def _verified_at(self, new: NewFile) -> datetime | None:
        return (new.verified_at or self._now) if _is_verified(new) else None

    def _write_checksums(self, versions: Mapping[UUID, int]) -> None:
        rows = [
            {"version_id": versions[new.version_uid], "algorithm": algorithm, "value": value}
            for new, _ in self._created
            for algorithm, value in digests(new.checksums).items()
        ]
        self._insert(ChecksumRow, rows)

    def _write_replicas(self, versions: Mapping[UUID, int]) -> None:
        uids = {new.version_uid: new_uid() for new, _ in self._created}
        rows = [
            {
                "uid": uids[new.version_uid],
                "version_id": versions[new.version_uid],
                "storage_area_uid": new.storage_area_uid,
                "state": ReplicaState.VERIFIED if _is_verified(new) else ReplicaState.UNVERIFIED,
                "created_at": self._now,
                "verified_at": self._verified_at(new),
                "checked_at": self._verified_at(new) or EPOCH,
                "is_to_read": new.is_to_read and not _is_verified(new),
            }
            for new, _ in self._created
        ]
        self._insert(ReplicaRow, rows)
        read = [new for new, _ in self._created if _is_verified(new) and new.checksums]
        replicas = self._ids(ReplicaRow, [uids[new.version_uid] for new in read])
        self._insert(VerificationRow, [self._verification(new, replicas[uids[new.version_uid]]) for new in read])

    def _verification(self, new: NewFile, replica_id: int) -> dict[str, Any]:
        return {
            "uid": new_uid(),
            "replica_id": replica_id,
            "verified_at": self._verified_at(new),
            "is_match": True,
            "read_from": new.read_from,
            "algorithm": new.checksums[0].algorithm,
            "value": new.checksums[0].value,
            "by": self._by,
            "message": "",
        }

    def _ids(self, table: type[FileRow | VersionRow | ReplicaRow], uids: Iterable[UUID]) -> Mapping[UUID, int]:
        # RETURNING would spare this, but SQLite has it from 3.35 and we keep to 3.34.
        wanted = set(uids)
        if not wanted:
            return {}
        found = self._session.execute(select(table.uid, table.id).where(table.uid.in_(wanted)))
        return dict(found.all())

    def _insert(self, table: type[Any], rows: Sequence[dict[str, Any]]) -> None:
        if rows:  # into the table: by way of its class the mapper would cost as much again
            self._session.connection().execute(insert(_table(table)), rows)


def newest(session: Session, experiment_uid: UUID, paths: Iterable[bytes]) -> Sequence[tuple[FileRow, VersionRow]]:
    """Return the files at these paths with their newest versions, hidden ones too, in the order of paths."""
    wanted = (
        select(FileRow, VersionRow)
        .join(VersionRow, (VersionRow.file_id == FileRow.id) & (VersionRow.number == FileRow.number))
        .where(FileRow.experiment_uid == experiment_uid, FileRow.path.in_(list(paths)))
        .order_by(FileRow.path)
    )
    return [(file, version) for file, version in session.execute(wanted)]


def checksums_of(session: Session, version_ids: Sequence[int]) -> Checksums:
    """Return the checksums of versions."""
    found: dict[int, list[Any]] = {}
    if version_ids:
        wanted = select(ChecksumRow).where(ChecksumRow.version_id.in_(version_ids)).order_by(ChecksumRow.algorithm)
        for row in session.scalars(wanted):
            found.setdefault(row.version_id, []).append(to_checksum(row.algorithm, row.value))
    return found


def _is_verified(new: NewFile) -> bool:
    """Whether its bytes were read back: of a link there are none, and its target is its content."""
    return new.read_from is not None and (bool(new.checksums) or new.kind is FileKind.LINK)


def _held(file: FileRow, version: VersionRow, checksums: Checksums) -> Held:
    return Held(
        version.number,
        FileKind(file.kind),
        version.size,
        digests(checksums.get(version.id, ())),
        version.link_target,
        Source(agent=file.source_agent, path_b64=to_b64(file.source_path)),
    )


def _replayed(new: NewFile, key: Key, seen: tuple[Key, int, UUID, datetime]) -> Registered:
    known_key, number, file_uid, catalogued_at = seen
    if (known_key, number) == (key, new.number):
        return Registered(
            version_uid=new.version_uid, file_uid=file_uid, result=RegisteredAs.EXISTS, catalogued_at=catalogued_at
        )
    return Registered(
        version_uid=new.version_uid,
        file_uid=None,
        result=RegisteredAs.CONFLICT,
        message=f"version {new.version_uid} is another file or version: give each version a uid of its own",
    )


def _table(row: type[Any]) -> Table:
    table: Table = row.__table__
    return table
