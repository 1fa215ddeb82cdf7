"""Every query on the catalogue: registering, finding, metadata, hiding and bringing back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, case, func, select
from sqlalchemy.orm import Session

from beamkeeper.db.files.frames import note_frames
from beamkeeper.db.files.listing import read_files
from beamkeeper.db.files.registering import checksums_of, newest, take_in
from beamkeeper.db.files.tables import (
    FileRow,
    ReplicaRow,
    VerificationRow,
    VersionRow,
    to_file,
    to_replica,
    to_verification,
    to_version,
)
from beamkeeper.db.finding import Exactly, FileSearch
from beamkeeper.db.metadata import Change, MetadataChanges
from beamkeeper.db.scope import lock_experiments
from beamkeeper.db.search import note_changed
from beamkeeper.domain.arriving import Arriving, arriving
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.file_text import Answer, answers_text, page_text
from beamkeeper.domain.files import (
    ExperimentSummary,
    File,
    FileCount,
    FileHistory,
    FilePage,
    FileQuery,
    NewFile,
    Registered,
    RegisteredFiles,
    Replica,
    Verification,
)
from beamkeeper.domain.frames import NewFrame
from beamkeeper.domain.metadata import check_metadata, joined, patched
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.users import Reach

UNDO = timedelta(days=30)
"""How long a hidden file can be brought back."""

_IS_NEWEST = (VersionRow.file_id == FileRow.id) & (VersionRow.number == FileRow.number)


class Files:
    """Queries on files, versions, replicas and the ledger."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    @property
    def _dialect(self) -> str:
        return self._session.get_bind().dialect.name

    def lock(self, experiments: Iterable[UUID]) -> None:
        """Let no other transaction register or hide files of these experiments until this one ends."""
        lock_experiments(self._session, experiments)

    def register(self, files: Sequence[NewFile], *, by: str) -> Sequence[Registered]:
        """Register stored versions, and answer for each in the order asked; `by` is for the ledger."""
        return RegisteredFiles.model_validate_json(answers_text(self.take_in(arriving(files), by=by))).files

    def take_in(self, files: Sequence[Arriving], *, by: str) -> Sequence[Answer]:
        """Do the same with plain values, and answer with such."""
        return take_in(self._session, self._now, files, by)

    def lookup(self, experiment_uid: UUID, paths: Iterable[bytes]) -> Sequence[File]:
        """Return what is known at these paths, hidden files too, in the order of paths."""
        return self._files(newest(self._session, experiment_uid, set(map(bytes, paths))))

    def find(self, query: FileQuery, reach: Reach) -> FilePage:
        """Return one page of a query, out of the experiments within reach."""
        return FilePage.model_validate_json(self.find_text(query, reach))

    def find_text(self, query: FileQuery, reach: Reach) -> bytes:
        """Return the same as JSON, which is what nearly all want of it."""
        hits = FileSearch(self._session, self._now, query, reach).page()
        return page_text(
            read_files(self._session, hits.ids),
            next_=hits.next,
            is_partial=hits.is_partial,
            searched=hits.searched,
            is_behind=hits.is_behind,
        )

    def get(self, uid: UUID) -> File:
        """Return a file with its newest version, also if it is hidden."""
        return self._files([self._row(uid)])[0]

    def history(self, uid: UUID) -> FileHistory:
        """Return everything that is known of a file, oldest first."""
        file, newest_version = self._row(uid)
        versions = self._session.scalars(
            select(VersionRow).where(VersionRow.file_id == file.id).order_by(VersionRow.number)
        ).all()
        checksums = checksums_of(self._session, [version.id for version in versions])
        return FileHistory(
            file=to_file(file, newest_version, checksums),
            versions=[to_version(version, file.uid, checksums) for version in versions],
            replicas=self._replicas(file.id),
            ledger=self._ledger(file.id),
        )

    def set_metadata(self, uid: UUID, patch: Metadata, *, by: str) -> File:
        """Change a file's metadata by a merge patch, which later versions of the file keep; its history has it."""
        check_metadata(patch)
        file, version = self._row(uid, is_for_update=True)
        change = Change(file.uid, file.experiment_uid, file.metadata_, patch)
        MetadataChanges(self._session, self._now).add([change], by=by)
        file.metadata_ = check_metadata(patched(file.metadata_, patch))
        file.annotations = check_metadata(joined(file.annotations, patch))
        note_changed(self._session, self._now, [file.id])
        self._session.flush()  # so that a query of the same transaction finds it
        return self._files([(file, version)])[0]

    def note_frames(self, experiment_uid: UUID, frames: Sequence[NewFrame]) -> Sequence[tuple[UUID, int]]:
        """Add what was found in first frames; return the uids and sizes of the files that have changed by it."""
        return note_frames(self._session, self._now, experiment_uid, {one.version_uid: one for one in frames})

    def count(self, query: FileQuery, *, is_deleted: bool) -> FileCount:
        """Return how many files a query means: of those in sight, or of the hidden that can come back."""
        return self._meant(query, is_deleted).count()

    def hide(self, query: FileQuery, *, by: str) -> None:
        """Hide the files that a query means."""
        self._mark(query, is_deleted=False, values={"deleted_at": self._now, "deleted_by": by})

    def bring_back(self, query: FileQuery) -> None:
        """Bring back the hidden files that a query means."""
        self._mark(query, is_deleted=True, values={"deleted_at": None, "deleted_by": None})

    def summary(self, experiment_uid: UUID) -> ExperimentSummary:
        """Return the files of an experiment in numbers."""
        is_there = FileRow.deleted_at.is_(None)
        row = self._session.execute(
            _joined(
                _count_if(is_there),
                func.coalesce(func.sum(case((is_there, VersionRow.size), else_=0)), 0),
                func.coalesce(func.sum(case((is_there, FileRow.number), else_=0)), 0),
                _count_if(is_there & VersionRow.is_verified),
                func.count(),
            ).where(FileRow.experiment_uid == experiment_uid)
        ).one()
        files, size, versions, verified, every = (int(value) for value in row)
        return ExperimentSummary(
            experiment_uid=experiment_uid,
            files=files,
            bytes=size,
            versions=versions,
            verified=verified,
            unverified=files - verified,
            deleted=every - files,
        )

    def _row(self, uid: UUID, *, is_for_update: bool = False) -> tuple[FileRow, VersionRow]:
        wanted = _joined().where(FileRow.uid == uid)
        if is_for_update:
            wanted = wanted.with_for_update(of=FileRow)
        found = self._session.execute(wanted).one_or_none()
        if found is None:
            raise NotFoundError(f"there is no file {uid}", uid=str(uid))
        return found[0], found[1]

    def _files(self, rows: Sequence[tuple[FileRow, VersionRow]]) -> list[File]:
        checksums = checksums_of(self._session, [version.id for _, version in rows])
        return [to_file(file, version, checksums) for file, version in rows]

    def _replicas(self, file_id: int) -> list[Replica]:
        wanted = (
            select(ReplicaRow, VersionRow.uid)
            .join(VersionRow, VersionRow.id == ReplicaRow.version_id)
            .where(VersionRow.file_id == file_id)
            .order_by(ReplicaRow.id)
        )
        return [to_replica(row, version_uid) for row, version_uid in self._session.execute(wanted)]

    def _ledger(self, file_id: int) -> list[Verification]:
        wanted = (
            select(VerificationRow, ReplicaRow.uid, VersionRow.uid)
            .join(ReplicaRow, ReplicaRow.id == VerificationRow.replica_id)
            .join(VersionRow, VersionRow.id == ReplicaRow.version_id)
            .where(VersionRow.file_id == file_id)
            .order_by(VerificationRow.id)
        )
        return [to_verification(row, replica, version) for row, replica, version in self._session.execute(wanted)]

    def _meant(self, query: FileQuery, is_deleted: bool) -> Exactly:
        state = FileRow.deleted_at >= self._now - UNDO if is_deleted else FileRow.deleted_at.is_(None)
        return Exactly(self._session, self._now, query, state)

    def _mark(self, query: FileQuery, *, is_deleted: bool, values: dict[str, Any]) -> None:
        note_changed(self._session, self._now, self._meant(query, is_deleted).change(values))


def _joined(*columns: ColumnElement[Any] | Any) -> Select[Any]:
    """Select from files joined with their newest versions: both rows, or the columns named."""
    return select(*(columns or (FileRow, VersionRow))).select_from(FileRow).join(VersionRow, _IS_NEWEST)


def _count_if(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)
