"""Whole documents of files, for those who copy the catalogue: in the order of changes or of uids, a few at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeVar
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute

from beamkeeper.db.base import EPOCH
from beamkeeper.db.copied import Copied, Span, weight_of
from beamkeeper.db.experiments import ExperimentRow
from beamkeeper.db.files.checking import Rows, findings
from beamkeeper.db.files.registering import checksums_of
from beamkeeper.db.files.tables import Checksums, FileRow, ReplicaRow, VerificationRow, VersionRow, to_checksum
from beamkeeper.db.files.taking import absent, hide, take, unlisted
from beamkeeper.db.linked import DatasetFileRow, DatasetRow, RunFileRow, RunRow
from beamkeeper.db.metadata import histories
from beamkeeper.db.pages import parts
from beamkeeper.db.scope import experiment_uids
from beamkeeper.db.search import Search, note_changed
from beamkeeper.db.search.tables import SearchExperimentRow
from beamkeeper.domain.catalogues import CheckPage, CheckQuery
from beamkeeper.domain.files import FileKind, ReadFrom, ReplicaState, Source, SourceIdentity
from beamkeeper.domain.names import Checksum, to_b64
from beamkeeper.domain.replication import (
    FileDocument,
    LedgerDocument,
    MembershipDocument,
    MetadataChangeDocument,
    Refusal,
    ReplicaDocument,
    VersionDocument,
)
from beamkeeper.domain.users import Reach

_VERSION_BYTES = 1500
"""About what a version has with its checksums, a replica and a few rows of the ledger."""

RowT = TypeVar("RowT", VersionRow, ReplicaRow, VerificationRow)


class Documents(Copied[FileDocument]):
    """Queries that read files as whole documents."""

    _table = FileRow

    def _weight(self, row: FileRow) -> int:
        return weight_of(row.metadata_) + weight_of(row.annotations) + row.number * _VERSION_BYTES

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

    def of(self, files: Sequence[FileRow]) -> list[FileDocument]:
        """Return the documents of these rows, in their order."""
        rows = self._rows([file.id for file in files])

        def version(row: VersionRow) -> VersionDocument:
            copies = rows.replicas.get(row.id, ())
            replicas = tuple(_replica(replica, rows.ledger.get(replica.id, ())) for replica in copies)
            return _version(row, rows.checksums, replicas)

        history = histories(self._session, [file.uid for file in files])
        datasets, runs = self._datasets(files), self._runs(files)
        # A file without versions is a fault that a check reports; there is nothing of it to be carried.
        return [
            _file(file, tuple(map(version, rows.versions[file.id])), history.get(file.uid, ())).model_copy(
                update={"datasets": tuple(datasets.get(file.id, ())), "runs": tuple(runs.get(file.id, ()))}
            )
            for file in files
            if file.id in rows.versions
        ]

    def _datasets(self, files: Sequence[FileRow]) -> Mapping[int, Sequence[MembershipDocument]]:
        found: defaultdict[int, list[MembershipDocument]] = defaultdict(list)
        link = DatasetFileRow
        for part in parts([file.id for file in files]):
            wanted = (
                select(link.file_id, DatasetRow.uid, VersionRow.number, link.added_at, link.added_by)
                .join(DatasetRow, DatasetRow.id == link.dataset_id)
                .outerjoin(VersionRow, VersionRow.id == link.version_id)
                .where(link.file_id.in_(part))
                .order_by(DatasetRow.uid)
            )
            for file_id, uid, number, added_at, added_by in self._session.execute(wanted):
                member = MembershipDocument(dataset_uid=uid, version=number, added_at=added_at, added_by=added_by)
                found[file_id].append(member)
        return found

    def _runs(self, files: Sequence[FileRow]) -> Mapping[int, Sequence[UUID]]:
        found: defaultdict[int, list[UUID]] = defaultdict(list)
        for part in parts([file.id for file in files]):
            wanted = select(RunFileRow.file_id, RunRow.uid).join(RunRow, RunRow.id == RunFileRow.run_id)
            for file_id, uid in self._session.execute(wanted.where(RunFileRow.file_id.in_(part)).order_by(RunRow.uid)):
                found[file_id].append(uid)
        return found

    def named(self, uids: Sequence[UUID]) -> list[FileDocument]:
        """Return the documents of files by their uids, in that order; those that are not there are left out."""
        found = {row.uid: row for row in self._session.scalars(select(FileRow).where(FileRow.uid.in_(uids)))}
        return self.of([found[uid] for uid in uids if uid in found])

    def add(self, documents: Sequence[FileDocument]) -> tuple[Sequence[int], Sequence[Refusal]]:
        """Take over documents of files that are not here; whose path another file has is refused.

        To datasets and runs they come anew: what is frozen stays, and rules say what they say now.
        """
        taken, refused = absent(self._session, documents)
        ids, more = self.take([each.model_copy(update={"datasets": (), "runs": ()}) for each in taken])
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
        for part in parts(version_ids):
            checksums.update(checksums_of(self._session, part))
        numbered = {id_: sorted(each, key=lambda row: row.number) for id_, each in versions.items()}
        return Rows(numbered, replicas, ledger, checksums)

    def _all(self, table: type[RowT], key: InstrumentedAttribute[int], ids: Sequence[int]) -> Iterator[RowT]:
        for part in parts(ids):
            yield from self._session.scalars(select(table).where(key.in_(part)).order_by(table.id))


def _grouped(rows: Iterator[RowT], key: str) -> Mapping[int, Sequence[RowT]]:
    found: defaultdict[int, list[RowT]] = defaultdict(list)
    for row in rows:
        found[getattr(row, key)].append(row)
    return found


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
