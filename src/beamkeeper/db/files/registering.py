"""Registering many versions at once, in a handful of statements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Table, bindparam, select, update
from sqlalchemy.orm import Session

from beamkeeper.db.base import new_uids
from beamkeeper.db.files.tables import ChecksumRow, Checksums, FileRow, VersionRow, to_checksum
from beamkeeper.db.files.writing import Fresh, write_files, write_versions
from beamkeeper.db.metadata import MetadataChanges, replaced
from beamkeeper.db.search import note_changed
from beamkeeper.domain.files import FileKind, NewFile, Registered, RegisteredAs, Source
from beamkeeper.domain.metadata import acceptable, patched
from beamkeeper.domain.names import Metadata, to_b64
from beamkeeper.domain.versions import Held, digests, judge

Key = tuple[int, bytes]
"""An experiment, as the number that its uid is, and a path in it: a uid in a key costs a call each time."""


@dataclass(slots=True)
class _Entry:
    """A path of the catalogue as it is while a batch is worked through."""

    uid: UUID
    held: Held
    version_uid: UUID
    catalogued_at: datetime
    annotations: Metadata
    metadata: Metadata
    """What stands there until the batch is written."""
    id: int = 0
    """Its local key; 0 of a file that is new, until it is written."""
    is_new: bool = False
    new: NewFile | None = None
    """The newest version that this batch brings."""


class Registration:
    """One batch; what it decides is kept until `write`."""

    def __init__(self, session: Session, now: datetime, by: str) -> None:
        self._session = session
        self._now = now
        self._by = by
        self._entries: dict[Key, _Entry] = {}
        self._seen: dict[UUID, tuple[Key, int, UUID, datetime]] = {}
        self._created: list[tuple[NewFile, _Entry]] = []
        self._adopted: dict[UUID, dict[str, Any]] = {}
        self._uids: Iterator[UUID] = iter(())

    def run(self, files: Sequence[NewFile]) -> list[Registered]:
        """Register versions, and answer for each in the order asked."""
        self._load_replayed([new.version_uid for new in files])
        self._load_entries(files)
        self._uids = new_uids(len(files))
        answers = [self._register(new) for new in files]
        self._write()
        self._want_copies(zip(files, answers, strict=True))
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
            self._seen[uid] = ((experiment_uid.int, path), number, file_uid, catalogued_at)

    def _load_entries(self, files: Sequence[NewFile]) -> None:
        paths: defaultdict[UUID, set[bytes]] = defaultdict(set)
        for new in files:
            paths[new.experiment_uid].add(bytes(new.relpath))
        for experiment_uid, wanted in paths.items():
            rows = newest(self._session, experiment_uid, wanted)
            checksums = checksums_of(self._session, [version.id for _, version in rows])
            for file, version in rows:
                self._entries[experiment_uid.int, file.path] = _Entry(
                    file.uid,
                    _held(file, version, checksums),
                    version.uid,
                    version.catalogued_at,
                    file.annotations,
                    file.metadata_,
                    file.id,
                )

    def _register(self, new: NewFile) -> Registered:
        key = _key(new)
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
        if entry is None:
            entry = _Entry(next(self._uids), held, new.version_uid, self._now, {}, {}, is_new=True)
            self._entries[key] = entry
        else:
            entry.held, entry.version_uid, entry.catalogued_at = held, new.version_uid, self._now
        entry.new = new
        self._seen[new.version_uid] = (key, new.number, entry.uid, self._now)
        self._created.append((new, entry))
        return entry

    def _adopt(self, new: NewFile, entry: _Entry) -> None:
        """Remember the state in which the same source was found, so that it counts as unchanged from now on."""
        held = entry.held.source
        if (new.source.agent, new.source.relpath) == (held.agent, held.relpath):
            self._adopted[entry.version_uid] = {
                "at_uid": entry.version_uid,
                "new_identity": new.identity.model_dump(),
                "new_modified_at": new.modified_at,
            }

    def _write(self) -> None:
        fresh = [(path, entry) for (_, path), entry in self._entries.items() if entry.is_new]
        rows = [Fresh(entry.uid, path, entry.held, entry.new) for path, entry in fresh if entry.new is not None]
        for id_, (_, entry) in zip(write_files(self._session, rows), fresh, strict=True):
            entry.id = id_
        self._write_changed()
        if self._created:
            note_changed(self._session, self._now, (entry.id for _, entry in self._created))
            write_versions(self._session, self._now, self._by, [(new, entry.id) for new, entry in self._created])
        self._write_adopted()

    def _want_copies(self, pairs: Iterable[tuple[NewFile, Registered]]) -> None:
        """Order copies of versions that are to be in further storage areas, also of bytes that were here before."""
        wanted: defaultdict[tuple[UUID, ...], set[UUID]] = defaultdict(set)
        for new, answer in pairs:
            if new.also and answer.result is not RegisteredAs.CONFLICT:
                entry = self._entries.get(_key(new))
                is_known = new.version_uid in self._seen or entry is None
                wanted[new.also].add(new.version_uid if is_known or entry is None else entry.version_uid)
        if not wanted:
            return
        from beamkeeper.db.replicas.placing import want  # which needs the tables of files

        for also, uids in wanted.items():
            versions = select(VersionRow.id, FileRow.experiment_uid).join(FileRow, FileRow.id == VersionRow.file_id)
            found = self._session.execute(versions.where(VersionRow.uid.in_(uids)).order_by(VersionRow.id)).all()
            want(self._session, self._now, dict(found), also, asked_by=self._by)

    def _write_changed(self) -> None:
        changed = [
            (entry, entry.new, patched(acceptable(dict(entry.new.metadata)), entry.annotations))
            for entry in self._entries.values()
            if entry.new is not None and not entry.is_new
        ]
        rows = [
            {
                "at_uid": entry.uid,
                "new_kind": new.kind,
                "new_number": new.number,
                "new_metadata": metadata,
                "new_deleted_at": None,
                "new_deleted_by": None,
            }
            for entry, new, metadata in changed
        ]
        changes = [
            replaced(entry.uid, new.experiment_uid, entry.metadata, metadata, version=new.number)
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
            adopted = select(VersionRow.file_id).where(VersionRow.uid.in_(self._adopted))
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
        FileKind(file.kind),
        version.size,
        digests(checksums.get(version.id, ())),
        version.link_target,
        Source(agent=file.source_agent, path_b64=to_b64(file.source_path)),
    )


def _key(new: NewFile) -> Key:
    return new.experiment_uid.int, bytes(new.relpath)


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
