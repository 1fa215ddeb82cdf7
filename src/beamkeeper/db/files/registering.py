"""Registering many versions at once, in a handful of statements."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Table, bindparam, select, update
from sqlalchemy.orm import Session

from beamkeeper.db.base import EPOCH, new_hexes
from beamkeeper.db.bulk import present
from beamkeeper.db.files.tables import ChecksumRow, Checksums, FileRow, VersionRow, to_checksum
from beamkeeper.db.files.writing import Fresh, write_files, write_versions
from beamkeeper.db.metadata import MetadataChanges, replaced
from beamkeeper.db.scope import lock_experiments
from beamkeeper.db.search import note_changed
from beamkeeper.domain.arriving import Arriving
from beamkeeper.domain.errors import CollisionError
from beamkeeper.domain.file_text import Answer
from beamkeeper.domain.files import RegisteredAs
from beamkeeper.domain.metadata import patched
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.versions import Held, digests, judge

Key = tuple[str, bytes]
"""An experiment, as the digits of its uid, and a path in it: a uid in a key costs a call each time."""


@dataclass(slots=True)
class _Entry:
    """A path of the catalogue as it is while a batch is worked through."""

    uid: str
    held: Held
    version_uid: str
    catalogued_at: datetime
    annotations: Metadata
    metadata: Metadata
    """What stands there until the batch is written."""
    id: int = 0
    """Its local key; 0 of a file that is new, until it is written."""
    is_new: bool = False
    new: Arriving | None = None
    """The newest version that this batch brings."""


class _KnownError(Exception):
    """Something of a batch is in the catalogue already, or in the batch twice."""


def take_in(session: Session, now: datetime, files: Sequence[Arriving], by: str) -> list[Answer]:
    """Register versions, and answer for each in the order asked; `by` is for the ledger.

    Files of which nothing is known come in beside others of their experiments: that two calls bring one path or
    version, the unique keys of the database tell. Whatever else there is to decide, is decided alone.
    """
    experiments = list(map(UUID, {new.experiment for new in files}))
    if files and all(new.number == 1 and not new.also for new in files):
        # A shared lock goes with what was begun under it, so that two that give up do not wait for each other.
        with suppress(_KnownError, CollisionError), session.begin_nested():
            lock_experiments(session, experiments, is_shared=True)
            return _bring_in(session, now, files, by)
    lock_experiments(session, experiments)
    return _Registration(session, now, by).run(files)


def _bring_in(session: Session, now: datetime, files: Sequence[Arriving], by: str) -> list[Answer]:
    """Write files of which nothing is known."""
    paths: defaultdict[str, set[bytes]] = defaultdict(set)
    for new in files:
        paths[new.experiment].add(new.path)
    versions = {new.version for new in files}
    if min(len(versions), sum(map(len, paths.values()))) < len(files) or present(session, VersionRow.uid, versions):
        raise _KnownError
    for experiment, wanted in paths.items():
        if present(session, FileRow.path, wanted, within=(FileRow.experiment_uid, experiment)):
            raise _KnownError
    uids = list(new_hexes(len(files)))
    ids = write_files(session, [Fresh(uid, new, new) for uid, new in zip(uids, files, strict=True)])
    write_versions(session, now, by, list(zip(files, ids, strict=True)))
    note_changed(session, now, ids)  # last: of what a collision undoes, nothing is noted
    return [
        Answer(new.version, uid, RegisteredAs.CREATED, catalogued_at=now) for uid, new in zip(uids, files, strict=True)
    ]


class _Registration:
    """One batch; what it decides is kept until `write`."""

    def __init__(self, session: Session, now: datetime, by: str) -> None:
        self._session = session
        self._now = now
        self._by = by
        self._entries: dict[Key, _Entry] = {}
        self._seen: dict[str, tuple[Key, int, str, datetime]] = {}
        self._created: list[tuple[Arriving, _Entry]] = []
        self._adopted: dict[str, dict[str, Any]] = {}
        self._uids: Iterator[str] = iter(())

    def run(self, files: Sequence[Arriving]) -> list[Answer]:
        """Register versions, and answer for each in the order asked."""
        self._load_replayed(files)
        self._load_entries(files)
        self._uids = new_hexes(len(files))
        answers = [self._register(new) for new in files]
        self._write()
        self._want_copies(zip(files, answers, strict=True))
        return answers

    def _load_replayed(self, files: Sequence[Arriving]) -> None:
        known = present(self._session, VersionRow.uid, [new.version for new in files])
        if not known:
            return
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
            .where(VersionRow.uid.in_(list(map(UUID, known))))
        )
        for uid, number, catalogued_at, file_uid, experiment_uid, path in self._session.execute(wanted):
            self._seen[uid.hex] = ((experiment_uid.hex, path), number, file_uid.hex, catalogued_at)

    def _load_entries(self, files: Sequence[Arriving]) -> None:
        paths: defaultdict[str, set[bytes]] = defaultdict(set)
        for new in files:
            paths[new.experiment].add(new.path)
        for experiment, wanted in paths.items():
            known = present(self._session, FileRow.path, wanted, within=(FileRow.experiment_uid, experiment))
            rows = newest(self._session, UUID(experiment), known) if known else ()
            checksums = checksums_of(self._session, [version.id for _, version in rows])
            for file, version in rows:
                self._entries[experiment, file.path] = _Entry(
                    file.uid.hex,
                    _held(file, version, checksums),
                    version.uid.hex,
                    version.catalogued_at,
                    file.annotations,
                    file.metadata_,
                    file.id,
                )

    def _register(self, new: Arriving) -> Answer:
        """Decide about one version."""
        key = new.key
        if (seen := self._seen.get(new.version)) is not None:
            return _replayed(new, key, seen)
        entry = self._entries.get(key)
        judgement = judge(new, entry.held if entry else None)
        if judgement.result is RegisteredAs.CREATED:
            entry = self._create(key, new, entry)
        elif judgement.result is RegisteredAs.EXISTS and entry is not None:
            self._adopt(new, entry)
        is_there = entry is not None and judgement.result is not RegisteredAs.CONFLICT
        return Answer(
            new.version,
            entry.uid if entry else None,
            judgement.result,
            judgement.message[:2000],
            entry.catalogued_at if entry and is_there else None,
        )

    def _create(self, key: Key, new: Arriving, entry: _Entry | None) -> _Entry:
        first = entry.held if entry else new
        held = Held(new.number, new.kind, new.size, new.checksums, new.link_target, first.agent, first.source_path)
        if entry is None:
            entry = _Entry(next(self._uids), held, new.version, self._now, {}, {}, is_new=True)
            self._entries[key] = entry
        else:
            entry.held, entry.version_uid, entry.catalogued_at = held, new.version, self._now
        entry.new = new
        self._seen[new.version] = (key, new.number, entry.uid, self._now)
        self._created.append((new, entry))
        return entry

    def _adopt(self, new: Arriving, entry: _Entry) -> None:
        """Remember the state in which the same source was found, so that it counts as unchanged from now on."""
        held = entry.held
        if (new.agent, new.source_path) == (held.agent, held.source_path):
            self._adopted[entry.version_uid] = {
                "at_uid": UUID(entry.version_uid),
                "new_identity": json.loads(new.identity),
                "new_modified_at": EPOCH + timedelta(microseconds=new.modified_at),
            }

    def _write(self) -> None:
        fresh = [entry for entry in self._entries.values() if entry.is_new]
        rows = [Fresh(entry.uid, entry.held, entry.new) for entry in fresh if entry.new is not None]
        for id_, entry in zip(write_files(self._session, rows), fresh, strict=True):
            entry.id = id_
        self._write_changed()
        if self._created:
            note_changed(self._session, self._now, (entry.id for _, entry in self._created))
            write_versions(self._session, self._now, self._by, [(new, entry.id) for new, entry in self._created])
        self._write_adopted()

    def _want_copies(self, pairs: Iterable[tuple[Arriving, Answer]]) -> None:
        """Order copies of versions that are to be in further storage areas, also of bytes that were here before."""
        wanted: defaultdict[tuple[str, ...], set[UUID]] = defaultdict(set)
        for new, answer in pairs:
            if new.also and answer.result is not RegisteredAs.CONFLICT:
                entry = self._entries.get(new.key)
                is_known = new.version in self._seen or entry is None
                wanted[new.also].add(UUID(new.version if is_known or entry is None else entry.version_uid))
        if not wanted:
            return
        from beamkeeper.db.replicas.placing import want  # which needs the tables of files

        for also, uids in wanted.items():
            versions = select(VersionRow.id, FileRow.experiment_uid).join(FileRow, FileRow.id == VersionRow.file_id)
            found = self._session.execute(versions.where(VersionRow.uid.in_(uids)).order_by(VersionRow.id)).all()
            want(self._session, self._now, dict(found), tuple(map(UUID, also)), asked_by=self._by)

    def _write_changed(self) -> None:
        changed = [
            (entry, entry.new, patched(json.loads(entry.new.metadata), entry.annotations))
            for entry in self._entries.values()
            if entry.new is not None and not entry.is_new
        ]
        rows = [
            {
                "at_uid": UUID(entry.uid),
                "new_kind": new.kind,
                "new_number": new.number,
                "new_metadata": metadata,
                "new_deleted_at": None,
                "new_deleted_by": None,
            }
            for entry, new, metadata in changed
        ]
        changes = [
            replaced(UUID(entry.uid), UUID(new.experiment), entry.metadata, metadata, version=new.number)
            for entry, new, metadata in changed
        ]
        MetadataChanges(self._session, self._now).add(changes, by=self._by)
        if rows:
            files = _table(FileRow)
            names = ("kind", "number", "metadata", "deleted_at", "deleted_by")
            statement = update(files).where(files.c.uid == bindparam("at_uid"))
            values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in names}
            self._session.connection().execute(statement.values(values), rows)

    def _write_adopted(self) -> None:
        if self._adopted:
            versions = _table(VersionRow)
            self._session.connection().execute(
                update(versions)
                .where(versions.c.uid == bindparam("at_uid"))
                .values(identity=bindparam("new_identity"), modified_at=bindparam("new_modified_at")),
                list(self._adopted.values()),
            )
            adopted = select(VersionRow.file_id).where(VersionRow.uid.in_(list(map(UUID, self._adopted))))
            note_changed(self._session, self._now, self._session.scalars(adopted))


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


def _held(file: FileRow, version: VersionRow, checksums: Checksums) -> Held:
    return Held(
        version.number,
        file.kind,
        version.size,
        digests(checksums.get(version.id, ())),
        version.link_target,
        file.source_agent,
        file.source_path,
    )


def _replayed(new: Arriving, key: Key, seen: tuple[Key, int, str, datetime]) -> Answer:
    known_key, number, file_uid, catalogued_at = seen
    if (known_key, number) == (key, new.number):
        return Answer(new.version, file_uid, RegisteredAs.EXISTS, catalogued_at=catalogued_at)
    message = f"version {UUID(new.version)} is another file or version: give each version a uid of its own"
    return Answer(new.version, None, RegisteredAs.CONFLICT, message)


def _table(row: type[Any]) -> Table:
    table: Table = row.__table__
    return table
