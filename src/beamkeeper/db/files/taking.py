"""Taking documents over: after it the catalogue holds of each file just what its document says. Idempotent."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Select, delete, insert, select, tuple_, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from beamkeeper.db.base import EPOCH, upsert
from beamkeeper.db.copied import Row, Span, Taken, taken
from beamkeeper.db.experiments import ExperimentRow
from beamkeeper.db.files.tables import ChecksumRow, FileRow, ReplicaRow, VerificationRow, VersionRow
from beamkeeper.db.linked import DatasetFileRow, DatasetRow, DerivationRow, RunFileRow, RunRow
from beamkeeper.db.metadata import take_histories
from beamkeeper.db.pages import parts
from beamkeeper.domain.names import show_path
from beamkeeper.domain.replication import FileDocument, Refusal, ReplicaDocument, VersionDocument


class Taking:
    """One batch of documents, each of another file, all of experiments that the caller has checked."""

    def __init__(self, session: Session, documents: Sequence[FileDocument]) -> None:
        self._session = session
        self._documents = {document.uid: document for document in documents}
        self.refused: list[Refusal] = []

    def run(self) -> Sequence[int]:
        """Take the documents over, and return the local keys of the files that they are of."""
        self._refuse_strangers()
        self._make_room()
        upsert(self._session, FileRow, [_file(each) for each in self._documents.values()], key=("uid",))
        files = self._ids(FileRow, self._documents)
        self._leave_all(files)
        self._remove_others(files)
        versions = [(files[d.uid], version) for d in self._documents.values() for version in d.versions]
        upsert(self._session, VersionRow, [_version(file_id, each) for file_id, each in versions], key=("uid",))
        version_ids = self._ids(VersionRow, [version.uid for _, version in versions])
        self._write_checksums([(version_ids[version.uid], version) for _, version in versions])
        replicas = [(version_ids[version.uid], replica) for _, version in versions for replica in version.replicas]
        upsert(self._session, ReplicaRow, [_replica(version_id, each) for version_id, each in replicas], key=("uid",))
        self._write_ledger([replica for _, replica in replicas])
        self._join_datasets(files, version_ids)
        self._join_runs(files)
        take_histories(self._session, self._documents.values())
        return list(files.values())

    def _refuse(self, uid: UUID, why: str) -> None:
        if document := self._documents.pop(uid, None):
            self.refused.append(_refusal(document, why))

    def _refuse_strangers(self) -> None:
        """Refuse documents with uids that belong to another file: nobody may write what is not their own."""
        files = {uid: (document.experiment_uid, bytes(document.relpath)) for uid, document in self._documents.items()}
        versions = {v.uid: d.uid for d in self._documents.values() for v in d.versions}
        replicas = {r.uid: d.uid for d in self._documents.values() for v in d.versions for r in v.replicas}
        ledger = {
            e.uid: d.uid for d in self._documents.values() for v in d.versions for r in v.replicas for e in r.ledger
        }
        first = {key: uid for uid, key in reversed(files.items())}
        for uid, key in files.items():
            if first[key] != uid:
                self._refuse(uid, "is there twice")
        for part in parts(files):
            wanted = select(FileRow.uid, FileRow.experiment_uid, FileRow.path).where(FileRow.uid.in_(part))
            for uid, experiment_uid, path in self._session.execute(wanted):
                if files[uid] != (experiment_uid, path):
                    self._refuse(uid, f"has the uid {uid} of another file")
        of_version = select(VersionRow.uid, FileRow.uid).join(FileRow, FileRow.id == VersionRow.file_id)
        of_replica = of_version.with_only_columns(ReplicaRow.uid, FileRow.uid).join(
            ReplicaRow, ReplicaRow.version_id == VersionRow.id
        )
        of_row = of_replica.with_only_columns(VerificationRow.uid, FileRow.uid).join(
            VerificationRow, VerificationRow.replica_id == ReplicaRow.id
        )
        self._refuse_foreign(versions, of_version, VersionRow.uid)
        self._refuse_foreign(replicas, of_replica, ReplicaRow.uid)
        self._refuse_foreign(ledger, of_row, VerificationRow.uid)

    def _refuse_foreign(
        self, held: Mapping[UUID, UUID], wanted: Select[UUID, UUID], key: InstrumentedAttribute[UUID]
    ) -> None:
        for part in parts(held):
            for uid, owner in self._session.execute(wanted.where(key.in_(part))):
                if held[uid] != owner:
                    self._refuse(held[uid], f"has the uid {uid}, which is of another file")

    def _make_room(self) -> None:
        """Give files that are at the documents' paths under other uids those of the documents.

        Their station's catalogue has them no more; what is of them and not in the documents goes with `_remove_others`.
        """
        keys = {(document.experiment_uid, bytes(document.relpath)): uid for uid, document in self._documents.items()}
        found: list[Row] = []
        for part in parts(keys):
            at = tuple_(FileRow.experiment_uid, FileRow.path).in_(part)
            rows = self._session.execute(
                select(FileRow.id, FileRow.uid, FileRow.experiment_uid, FileRow.path).where(at)
            )
            found += [
                {"id": id_, "uid": keys[experiment_uid, path]}
                for id_, uid, experiment_uid, path in rows
                if uid != keys[experiment_uid, path]
            ]
        if found:
            self._session.execute(update(FileRow), found)

    def _remove_others(self, files: Mapping[UUID, int]) -> None:
        """Remove versions and replicas of these files that their documents do not have."""
        kept = {version.uid for document in self._documents.values() for version in document.versions}
        copies = {r.uid for d in self._documents.values() for v in d.versions for r in v.replicas}
        for part in parts(files.values()):
            rows = self._session.execute(select(VersionRow.id, VersionRow.uid).where(VersionRow.file_id.in_(part)))
            gone = [id_ for id_, uid in rows if uid not in kept]
            if gone:
                self._remove_versions(VersionRow.id.in_(gone))
            of_files = select(VersionRow.id).where(VersionRow.file_id.in_(part))
            held = self._session.execute(
                select(ReplicaRow.id, ReplicaRow.uid).where(ReplicaRow.version_id.in_(of_files))
            )
            if lost := [id_ for id_, uid in held if uid not in copies]:
                self._session.execute(delete(VerificationRow).where(VerificationRow.replica_id.in_(lost)))
                self._session.execute(delete(ReplicaRow).where(ReplicaRow.id.in_(lost)))

    def _remove_versions(self, where: ColumnElement[bool]) -> None:
        versions = select(VersionRow.id).where(where)
        replicas = select(ReplicaRow.id).where(ReplicaRow.version_id.in_(versions))
        unsynchronized = {"synchronize_session": False}
        for statement in (
            delete(VerificationRow).where(VerificationRow.replica_id.in_(replicas)),
            delete(ReplicaRow).where(ReplicaRow.version_id.in_(versions)),
            delete(DerivationRow).where(DerivationRow.derived_id.in_(versions)),
            delete(DerivationRow).where(DerivationRow.source_id.in_(versions)),
            delete(ChecksumRow).where(ChecksumRow.version_id.in_(versions)),
            delete(VersionRow).where(where),
        ):
            self._session.execute(statement, execution_options=unsynchronized)

    def _write_checksums(self, versions: Sequence[tuple[int, VersionDocument]]) -> None:
        rows = [
            {"version_id": id_, "algorithm": checksum.algorithm, "value": checksum.value}
            for id_, version in versions
            for checksum in version.checksums
        ]
        upsert(self._session, ChecksumRow, rows, key=("version_id", "algorithm"))

    def _write_ledger(self, replicas: Sequence[ReplicaDocument]) -> None:
        """Add rows to the ledger; those that are there stay, as everywhere."""
        ids = self._ids(ReplicaRow, [replica.uid for replica in replicas])
        known: set[UUID] = set()
        for part in parts([row.uid for replica in replicas for row in replica.ledger]):
            known.update(self._session.scalars(select(VerificationRow.uid).where(VerificationRow.uid.in_(part))))
        rows = [
            {
                "uid": row.uid,
                "replica_id": ids[replica.uid],
                "verified_at": row.verified_at,
                "is_match": row.is_match,
                "read_from": row.read_from,
                "algorithm": row.checksum.algorithm if row.checksum else None,
                "value": row.checksum.value if row.checksum else None,
                "by": row.by,
                "message": row.message,
            }
            for replica in replicas
            for row in replica.ledger
            if row.uid not in known
        ]
        if rows:
            self._session.execute(insert(VerificationRow), rows)

    def _leave_all(self, files: Mapping[UUID, int]) -> None:
        """Let files belong to nothing, for what they belong to is in their documents."""
        for part in parts(files.values()):
            for table in (DatasetFileRow, RunFileRow):
                leaving = delete(table).where(table.file_id.in_(part))
                self._session.execute(leaving, execution_options={"synchronize_session": False})

    def _join_datasets(self, files: Mapping[UUID, int], versions: Mapping[UUID, int]) -> None:
        """Put files into the datasets that are known here, which have come before them."""
        held = self._known(DatasetRow, {m.dataset_uid for d in self._documents.values() for m in d.datasets})
        rows = []
        for document in self._documents.values():
            ids = {version.number: versions[version.uid] for version in document.versions}
            rows += [
                {
                    "dataset_id": held[member.dataset_uid, document.experiment_uid],
                    "file_id": files[document.uid],
                    "version_id": None if member.version is None else ids.get(member.version),
                    "added_at": member.added_at,
                    "added_by": member.added_by,
                }
                for member in document.datasets
                if (member.dataset_uid, document.experiment_uid) in held
            ]
        upsert(self._session, DatasetFileRow, rows, key=("dataset_id", "file_id"))

    def _join_runs(self, files: Mapping[UUID, int]) -> None:
        """Put files into the runs that are known here; by which rule, their station alone knows."""
        held = self._known(RunRow, {uid for document in self._documents.values() for uid in document.runs})
        rows = [
            {"run_id": held[uid, document.experiment_uid], "file_id": files[document.uid], "rule_id": None}
            for document in self._documents.values()
            for uid in document.runs
            if (uid, document.experiment_uid) in held
        ]
        upsert(self._session, RunFileRow, rows, key=("run_id", "file_id"))

    def _known(self, table: type[DatasetRow | RunRow], uids: Collection[UUID]) -> Mapping[tuple[UUID, UUID], int]:
        """Return the local keys of what is here, by its uid and that of its experiment."""
        found: dict[tuple[UUID, UUID], int] = {}
        for part in parts(uids):
            wanted = select(table.uid, table.experiment_uid, table.id).where(table.uid.in_(part))
            found |= {(uid, experiment_uid): id_ for uid, experiment_uid, id_ in self._session.execute(wanted)}
        return found

    def _ids(self, table: type[FileRow | VersionRow | ReplicaRow], uids: Iterable[UUID]) -> dict[UUID, int]:
        found: dict[UUID, int] = {}
        for part in parts(uids):
            found.update(self._session.execute(select(table.uid, table.id).where(table.uid.in_(part))).all())
        return found


def take(session: Session, documents: Sequence[FileDocument]) -> Taken:
    """Take documents over; return the local keys of their files, and the documents that cannot be taken."""

    def run(some: Sequence[FileDocument]) -> Taken:
        taking = Taking(session, some)
        return taking.run(), taking.refused

    return taken(session, documents, run, _refusal)


def absent(session: Session, documents: Sequence[FileDocument]) -> tuple[list[FileDocument], list[Refusal]]:
    """Return the documents at whose paths there is nothing yet, and refusals of the others."""
    held: set[tuple[UUID, bytes]] = set()
    keys = [(document.experiment_uid, bytes(document.relpath)) for document in documents]
    for part in parts(keys):
        at = tuple_(FileRow.experiment_uid, FileRow.path).in_(part)
        held.update(
            (uid, path) for uid, path in session.execute(select(FileRow.experiment_uid, FileRow.path).where(at))
        )
    free = [document for key, document in zip(keys, documents, strict=True) if key not in held]
    taken = [document for key, document in zip(keys, documents, strict=True) if key in held]
    return free, [_refusal(document, "is catalogued here under another uid") for document in taken]


def unlisted(
    session: Session, station_uid: UUID, span: Span, *, known: Collection[UUID], limit: int
) -> tuple[Sequence[int], int]:
    """Return files in sight of a station, within a span of uids, that a listing of it did not have.

    Their local keys, up to `limit` of them, and how many there are in all.
    """
    first, last = span
    experiments = select(ExperimentRow.uid).where(ExperimentRow.station_uid == station_uid)
    meant: list[ColumnElement[bool]] = [FileRow.experiment_uid.in_(experiments), FileRow.deleted_at.is_(None)]
    meant += [FileRow.uid > first] if first is not None else []
    meant += [FileRow.uid <= last] if last is not None else []
    found: list[int] = []
    count = 0
    wanted = select(FileRow.id, FileRow.uid).where(*meant)
    for id_, uid in session.execute(wanted, execution_options={"yield_per": 10_000}):
        if uid not in known:
            count += 1
            found += [id_] if count <= limit else []
    return found, count


def hide(session: Session, ids: Sequence[int], *, at: datetime, by: str) -> None:
    """Hide files by their local keys."""
    for part in parts(ids):
        session.execute(
            update(FileRow).where(FileRow.id.in_(part)).values(deleted_at=at, deleted_by=by),
            execution_options={"synchronize_session": False},
        )


def _refusal(document: FileDocument, why: str) -> Refusal:
    return Refusal(uid=document.uid, message=f'"{show_path(document.relpath)[:500]}" {why}'[:2000])


def _file(document: FileDocument) -> Row:
    path = document.relpath
    return {
        "uid": document.uid,
        "experiment_uid": document.experiment_uid,
        "path": bytes(path),
        "path_shown": show_path(path),
        "parent": path.parent,
        "kind": document.kind,
        "number": document.number,
        "source_agent": document.source.agent,
        "source_path": bytes(document.source.relpath),
        "metadata": document.metadata,
        "annotations": document.annotations,
        "deleted_at": document.deleted_at,
        "deleted_by": document.deleted_by,
    }


def _version(file_id: int, version: VersionDocument) -> Row:
    return {
        "uid": version.uid,
        "file_id": file_id,
        "number": version.number,
        "size": version.size,
        "identity": version.identity.model_dump(),
        "link_target": version.link_target_b64,
        "chunks": list(version.chunks) or None,
        "is_snapshot": version.is_snapshot,
        "is_verified": version.is_verified,
        "is_suspect": version.is_suspect,
        "modified_at": version.modified_at,
        "finished_at": version.finished_at,
        "transferred_at": version.transferred_at,
        "verified_at": version.verified_at,
        "catalogued_at": version.catalogued_at,
    }


def _replica(version_id: int, replica: ReplicaDocument) -> Row:
    return {
        "uid": replica.uid,
        "version_id": version_id,
        "storage_area_uid": replica.storage_area_uid,
        "state": replica.state,
        "created_at": replica.created_at,
        "verified_at": replica.verified_at,
        "checked_at": replica.checked_at or EPOCH,
        "is_to_read": replica.is_to_read,
    }
