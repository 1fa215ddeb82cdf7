"""Whole documents of files, for those who copy the catalogue: in the order of changes or of uids, a few at a time."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from beamkeeper.db.base import EPOCH
from beamkeeper.db.changes import Change
from beamkeeper.db.experiments import ExperimentRow
from beamkeeper.db.files.checking import Rows, findings
from beamkeeper.db.files.registering import checksums_of
from beamkeeper.db.files.tables import Checksums, FileRow, ReplicaRow, VerificationRow, VersionRow, to_checksum
from beamkeeper.db.files.taking import Span, absent, hide, take, unlisted
from beamkeeper.db.metadata import MetadataChangeRow
from beamkeeper.db.scope import experiment_uids
from beamkeeper.db.search import Search, note_changed
from beamkeeper.db.search.tables import SearchExperimentRow
from beamkeeper.domain.catalogues import CheckPage, CheckQuery
from beamkeeper.domain.files import FileKind, ReadFrom, ReplicaState, Source, SourceIdentity
from beamkeeper.domain.names import Checksum, to_b64
from beamkeeper.domain.replication import (
    FileDocument,
    LedgerDocument,
    MetadataChangeDocument,
    Refusal,
    ReplicaDocument,
    VersionDocument,
)
from beamkeeper.domain.users import Reach

BATCH_BYTES = 8 * 1024 * 1024
"""About the most that one batch of documents has: what is in memory at a time."""

_STREAMED = 20
"""So many rows are fetched at a time: each may have two megabytes of metadata."""

_VERSION_BYTES = 1500
"""About what a version has with its checksums, a replica and a few rows of the ledger."""

_ASKED = 1000
"""So many keys are named in one query."""

KeyT = TypeVar("KeyT")
RowT = TypeVar("RowT", VersionRow, ReplicaRow, VerificationRow)


@dataclass(frozen=True, slots=True)
class Read:
    """Some documents, the number and uid of the last row that was read for them, and whether all were read."""

    documents: list[FileDocument]
    last: tuple[int, UUID] | None
    is_all: bool


class Documents:
    """Queries that read files as whole documents."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def listed(self, station_uid: UUID, *, after: UUID | None, limit: int) -> Read:
        """Return documents of a station in the order of uids."""
        own = select(ExperimentRow.uid).where(ExperimentRow.station_uid == station_uid)
        wanted = select(FileRow).where(FileRow.experiment_uid.in_(own)).order_by(FileRow.uid)
        rows, is_all = self._streamed(wanted if after is None else wanted.where(FileRow.uid > after), limit)
        return Read(self.of(rows), (0, rows[-1].uid) if rows else None, is_all)

    def changed(self, changes: Sequence[Change], *, limit: int) -> Read:
        """Return the documents of files that changed, each once."""
        found: dict[int, FileRow] = {}
        last: tuple[int, UUID] | None = None
        is_all, weight = True, 0
        for change in changes:
            wanted = select(FileRow).where(FileRow.id.between(change.first_id, change.last_id)).order_by(FileRow.id)
            rows, is_all = self._streamed(wanted, limit - len(found))
            found.update((row.id, row) for row in rows)
            weight += sum(map(_weight, rows))
            last = (change.number, rows[-1].uid) if rows else last
            if not is_all or len(found) >= limit or weight > BATCH_BYTES:
                is_all = is_all and change is changes[-1]
                break
        return Read(self.of(list(found.values())), last, is_all)

    def id_of(self, uid: UUID) -> int | None:
        """Return the local key of a file."""
        return self._session.execute(select(FileRow.id).where(FileRow.uid == uid)).scalar_one_or_none()

    def take(self, documents: Sequence[FileDocument]) -> tuple[Sequence[int], Sequence[Refusal]]:
        """Take documents over, each of another file; return the local keys of the files, and what is refused."""
        ids, refused = take(self._session, documents)
        note_changed(self._session, self._now, ids)
        return ids, refused

    def hide_unlisted(self, station_uid: UUID, span: Span, *, known: Collection[UUID], limit: int, by: str) -> int:
        """Hide files of a station within a span of uids that a listing of it did not have, at most `limit` of them.

        Returns how many there are in all.
        """
        ids, count = unlisted(self._session, station_uid, span, known=known, limit=limit)
        hide(self._session, ids, at=self._now, by=by)
        note_changed(self._session, self._now, ids)
        return count

    def _streamed(self, wanted: Select[FileRow], limit: int) -> tuple[list[FileRow], bool]:
        rows: list[FileRow] = []
        weight = 0
        with self._session.scalars(wanted.limit(limit + 1), execution_options={"yield_per": _STREAMED}) as streamed:
            for row in streamed:
                if len(rows) == limit or weight > BATCH_BYTES:
                    return rows, False
                rows.append(row)
                weight += _weight(row)
        return rows, True

    def of(self, files: Sequence[FileRow]) -> list[FileDocument]:
        """Return the documents of these rows, in their order."""
        rows = self._rows([file.id for file in files])

        def version(row: VersionRow) -> VersionDocument:
            copies = rows.replicas.get(row.id, ())
            replicas = tuple(_replica(replica, rows.ledger.get(replica.id, ())) for replica in copies)
            return _version(row, rows.checksums, replicas)

        history = self._history([file.uid for file in files])
        # A file without versions is a fault that a check reports; there is nothing of it to be carried.
        return [
            _file(file, tuple(map(version, rows.versions[file.id])), history.get(file.uid, ()))
            for file in files
            if file.id in rows.versions
        ]

    def _history(self, uids: Sequence[UUID]) -> Mapping[UUID, Sequence[MetadataChangeDocument]]:
        """Return the changes of the metadata of files, oldest first."""
        found: defaultdict[UUID, list[MetadataChangeDocument]] = defaultdict(list)
        for part in _parts(uids):
            wanted = select(MetadataChangeRow).where(MetadataChangeRow.subject_uid.in_(part))
            for row in self._session.scalars(wanted.order_by(MetadataChangeRow.id)):
                plain = {name: getattr(row, name) for name in MetadataChangeDocument.model_fields}
                found[row.subject_uid].append(MetadataChangeDocument.model_validate(plain))
        return found

    def named(self, uids: Sequence[UUID]) -> list[FileDocument]:
        """Return the documents of files by their uids, in that order; those that are not there are left out."""
        found = {row.uid: row for row in self._session.scalars(select(FileRow).where(FileRow.uid.in_(uids)))}
        return self.of([found[uid] for uid in uids if uid in found])

    def add(self, documents: Sequence[FileDocument]) -> tuple[Sequence[int], Sequence[Refusal]]:
        """Take over documents of files that are not here; whose path another file has is refused."""
        taken, refused = absent(self._session, documents)
        ids, more = self.take(taken)
        return ids, [*refused, *more]

    def check(self, query: CheckQuery, reach: Reach) -> CheckPage:
        """Return what does not fit together in a page of files, in the order of uids, hidden ones too."""
        wanted = select(FileRow).order_by(FileRow.uid)
        if query.experiment_uid is not None:
            wanted = wanted.where(FileRow.experiment_uid == query.experiment_uid)
        elif not reach.is_all:
            wanted = wanted.where(FileRow.experiment_uid.in_(experiment_uids(reach, self._now)))
        if query.after is not None:
            wanted = wanted.where(FileRow.uid > query.after)
        files, is_all = self._streamed(wanted, query.limit)
        rows = self._rows([file.id for file in files])
        wanted_uids = {file.experiment_uid for file in files}
        known = set(self._session.scalars(select(ExperimentRow.uid).where(ExperimentRow.uid.in_(wanted_uids))))
        found = [
            finding
            for file in files
            for finding in findings(file, rows, is_experiment_known=file.experiment_uid in known)
        ]
        index = self._index(query.experiment_uid) if query.experiment_uid and query.after is None else ""
        return CheckPage(checked=len(files), findings=tuple(found), index=index, next=None if is_all else files[-1].uid)

    def _index(self, experiment_uid: UUID) -> str:
        """Return where the search index, once it has followed, counts an experiment's files otherwise than they are."""
        if Search(self._session, self._now).lag()[0]:
            return ""
        row = SearchExperimentRow
        counted = self._session.execute(select(row.files, row.bytes).where(row.uid == experiment_uid)).one_or_none()
        wanted = (
            select(func.count(), func.coalesce(func.sum(VersionRow.size), 0))
            .join(FileRow, (VersionRow.file_id == FileRow.id) & (VersionRow.number == FileRow.number))
            .where(FileRow.experiment_uid == experiment_uid, FileRow.deleted_at.is_(None))
        )
        files, size = self._session.execute(wanted).one()
        told, told_size = (0, 0) if counted is None else (counted.files, counted.bytes)
        if (told, told_size) == (files, int(size)):
            return ""
        return f"the search index counts {told} files of {told_size} bytes, and there are {files} of {int(size)}"

    def _rows(self, file_ids: Sequence[int]) -> Rows:
        """Return everything that belongs to files; their versions by number."""
        versions = _grouped(self._all(VersionRow, VersionRow.file_id, file_ids), "file_id")
        version_ids = [version.id for each in versions.values() for version in each]
        replicas = _grouped(self._all(ReplicaRow, ReplicaRow.version_id, version_ids), "version_id")
        replica_ids = [replica.id for each in replicas.values() for replica in each]
        ledger = _grouped(self._all(VerificationRow, VerificationRow.replica_id, replica_ids), "replica_id")
        checksums: dict[int, Sequence[Checksum]] = {}
        for part in _parts(version_ids):
            checksums.update(checksums_of(self._session, part))
        numbered = {id_: sorted(each, key=lambda row: row.number) for id_, each in versions.items()}
        return Rows(numbered, replicas, ledger, checksums)

    def _all(self, table: type[RowT], key: InstrumentedAttribute[int], ids: Sequence[int]) -> Iterator[RowT]:
        for part in _parts(ids):
            yield from self._session.scalars(select(table).where(key.in_(part)).order_by(table.id))


def _parts(ids: Sequence[KeyT]) -> Iterator[Sequence[KeyT]]:
    return (ids[start : start + _ASKED] for start in range(0, len(ids), _ASKED))


def _grouped(rows: Iterator[RowT], key: str) -> Mapping[int, Sequence[RowT]]:
    found: defaultdict[int, list[RowT]] = defaultdict(list)
    for row in rows:
        found[getattr(row, key)].append(row)
    return found


def _weight(row: FileRow) -> int:
    """Return about how many bytes a document has."""
    return len(json.dumps(row.metadata_)) + len(json.dumps(row.annotations)) + row.number * _VERSION_BYTES


def _file(
    row: FileRow, versions: tuple[VersionDocument, ...], history: Sequence[MetadataChangeDocument]
) -> FileDocument:
    return FileDocument(
        path_b64=to_b64(row.path),
        uid=row.uid,
        experiment_uid=row.experiment_uid,
        kind=FileKind(row.kind),
        number=row.number,
        source=Source(agent=row.source_agent, path_b64=to_b64(row.source_path)),
        metadata=row.metadata_,
        annotations=row.annotations,
        deleted_at=row.deleted_at,
        deleted_by=row.deleted_by,
        versions=versions,
        history=tuple(history),
    )


def _version(row: VersionRow, checksums: Checksums, replicas: tuple[ReplicaDocument, ...]) -> VersionDocument:
    return VersionDocument(
        uid=row.uid,
        number=row.number,
        size=row.size,
        checksums=tuple(checksums.get(row.id, ())),
        identity=SourceIdentity.model_validate(row.identity),
        link_target_b64=row.link_target,
        chunks=tuple(row.chunks or ()),
        is_snapshot=row.is_snapshot,
        is_verified=row.is_verified,
        is_suspect=row.is_suspect,
        modified_at=row.modified_at,
        finished_at=row.finished_at,
        transferred_at=row.transferred_at,
        verified_at=row.verified_at,
        catalogued_at=row.catalogued_at,
        replicas=replicas,
    )


def _replica(row: ReplicaRow, ledger: Sequence[VerificationRow]) -> ReplicaDocument:
    return ReplicaDocument(
        uid=row.uid,
        storage_area_uid=row.storage_area_uid,
        state=ReplicaState(row.state),
        created_at=row.created_at,
        verified_at=row.verified_at,
        checked_at=row.checked_at if row.checked_at > EPOCH else None,
        is_to_read=row.is_to_read,
        ledger=tuple(
            LedgerDocument(
                uid=each.uid,
                verified_at=each.verified_at,
                is_match=each.is_match,
                read_from=ReadFrom(each.read_from),
                checksum=to_checksum(each.algorithm, each.value) if each.algorithm and each.value else None,
                by=each.by,
                message=each.message,
            )
            for each in ledger
        ),
    )
