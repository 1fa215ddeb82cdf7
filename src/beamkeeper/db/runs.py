"""Runs: tables and queries; the rules by which files come to them are in run_rules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, delete, exists, func, select
from sqlalchemy.orm import Session

from beamkeeper.db.base import new_uid, upsert
from beamkeeper.db.changes import changed
from beamkeeper.db.files.members import IS_NEWEST, file_ids, newest_of, page_of
from beamkeeper.db.files.tables import FileRow, VersionRow
from beamkeeper.db.linked import RunFileRow, RunRow
from beamkeeper.db.metadata import Change, MetadataChanges
from beamkeeper.db.pages import to_cursor, uid_of
from beamkeeper.db.scope import experiment_uids
from beamkeeper.domain.datasets import MemberPage, MemberQuery
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.files import FileCount
from beamkeeper.domain.metadata import check_metadata, patched
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.replication import Kind
from beamkeeper.domain.runs import NewRun, Run, RunPage, RunQuery, RunState, RunStop
from beamkeeper.domain.users import Reach


class Runs:
    """Queries on runs and their files."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def get(self, uid: UUID) -> Run:
        """Return a run."""
        return to_run(self._row(uid))

    def find(self, experiment_uid: UUID, name: str) -> Run | None:
        """Return a run by its name, or None; also one that a rule made known and that has no files any more."""
        wanted = select(RunRow).where(RunRow.experiment_uid == experiment_uid, RunRow.name == name)
        row = self._session.scalars(wanted).one_or_none()
        return None if row is None else to_run(row)

    def page(self, query: RunQuery, reach: Reach) -> RunPage:
        """Return the runs that are wanted, newest first, out of the experiments within reach."""
        wanted = select(RunRow).where(RunRow.deleted_at.is_(None)).order_by(RunRow.uid.desc()).limit(query.limit + 1)
        if query.experiment_uid is not None:
            wanted = wanted.where(RunRow.experiment_uid == query.experiment_uid)
        if query.name is not None:
            wanted = wanted.where(RunRow.name == query.name)
        if query.state is not None:
            wanted = wanted.where(RunRow.state == query.state)
        if query.file_uid is not None:
            link = (RunFileRow.run_id == RunRow.id) & (RunFileRow.file_id == FileRow.id)
            wanted = wanted.where(exists().where(link, FileRow.uid == query.file_uid))
        if not reach.is_all:
            wanted = wanted.where(RunRow.experiment_uid.in_(experiment_uids(reach, self._now)))
        if query.after is not None:
            wanted = wanted.where(RunRow.uid < uid_of(query.after))
        items = [to_run(row) for row in self._session.scalars(wanted)]
        more = to_cursor(items[query.limit - 1].uid.hex) if len(items) > query.limit else None
        return RunPage(items=items[: query.limit], next=more)

    def add(self, new: NewRun, *, by: str) -> Run:
        """Make a run that has begun; the experiment is locked, and the name is free."""
        row = RunRow(
            uid=new_uid(),
            experiment_uid=new.experiment_uid,
            name=new.name,
            state=RunState.RUNNING,
            started_at=new.started_at or self._now,
            free={"start": new.start} if new.start else {},
            created_at=self._now,
            created_by=by,
        )
        self._session.add(row)
        self._session.flush()
        changed(self._session, Kind.RUNS, [row.id])
        return to_run(row)

    def start(self, uid: UUID, new: NewRun, *, by: str) -> Run:
        """Say of a run, which was known from its files only, that it has begun."""
        row = self._row(uid, is_for_update=True, is_even_hidden=True)
        row.state, row.started_at, row.deleted_at = RunState.RUNNING, new.started_at or self._now, None
        return self._set(row, {"start": new.start} if new.start else {}, by)

    def stop(self, uid: UUID, stop: RunStop, *, by: str) -> Run:
        """Say of a run that it has ended."""
        row = self._row(uid, is_for_update=True)
        row.state, row.stopped_at = RunState.STOPPED, stop.stopped_at or self._now
        return self._set(row, {"stop": stop.stop} if stop.stop else {}, by)

    def _set(self, row: RunRow, values: Metadata, by: str) -> Run:
        """Set keys at the top of a run's metadata, just as they are given."""
        MetadataChanges(self._session, self._now).add([Change(row.uid, row.experiment_uid, row.free, values)], by=by)
        row.free = check_metadata({**row.free, **values})
        changed(self._session, Kind.RUNS, [row.id])
        self._session.flush()
        return to_run(row)

    def set_metadata(self, uid: UUID, patch: Metadata, *, by: str) -> Run:
        """Change a run's metadata by a merge patch."""
        row = self._row(uid, is_for_update=True)
        change = Change(uid, row.experiment_uid, row.free, check_metadata(patch))
        MetadataChanges(self._session, self._now).add([change], by=by)
        row.free = check_metadata(patched(row.free, patch))
        changed(self._session, Kind.RUNS, [row.id])
        self._session.flush()
        return to_run(row)

    def lock(self, uid: UUID) -> Run:
        """Return a run that nobody else changes until this transaction ends."""
        return to_run(self._row(uid, is_for_update=True))

    def add_files(self, uid: UUID, file_uids: Sequence[UUID]) -> int:
        """Let files belong to a run by call, whatever the rules say; return how many did not before."""
        row = self._row(uid)
        ids = file_ids(self._session, row.experiment_uid, file_uids)
        by_call = (RunFileRow.run_id == row.id) & RunFileRow.file_id.in_(ids) & RunFileRow.rule_id.is_(None)
        held = set(self._session.scalars(select(RunFileRow.file_id).where(by_call)))
        rows = [{"run_id": row.id, "file_id": i, "rule_id": None} for i in ids if i not in held]
        upsert(self._session, RunFileRow, rows, key=("run_id", "file_id"))
        changed(self._session, Kind.FILES, [i for i in ids if i not in held])
        return len(rows)

    def remove_files(self, uid: UUID, file_uids: Sequence[UUID]) -> int:
        """Let files not belong to a run by call any more; return how many did. What rules say stays."""
        row = self._row(uid)
        ids = file_ids(self._session, row.experiment_uid, file_uids)
        by_call = (RunFileRow.run_id == row.id) & RunFileRow.file_id.in_(ids) & RunFileRow.rule_id.is_(None)
        held = set(self._session.scalars(select(RunFileRow.file_id).where(by_call)))
        self._session.execute(delete(RunFileRow).where(by_call), execution_options={"synchronize_session": False})
        changed(self._session, Kind.FILES, held)
        return len(held)

    def files(self, uid: UUID, query: MemberQuery) -> MemberPage:
        """Return some files of a run, in the order in which they were catalogued."""
        wanted = _linked(uid, FileRow, VersionRow)
        return page_of(self._session, wanted, RunFileRow.file_id, query)

    def of_files(self, experiment_uid: UUID, file_uids: Sequence[UUID]) -> dict[UUID, UUID]:
        """Return the run of each of these files that has one; of several the newest."""
        linked = select(FileRow.uid, RunRow.uid).join(RunFileRow, RunFileRow.file_id == FileRow.id)
        wanted = linked.join(RunRow, RunRow.id == RunFileRow.run_id).where(
            FileRow.uid.in_(file_uids), RunRow.experiment_uid == experiment_uid, RunRow.deleted_at.is_(None)
        )
        return newest_of(self._session, wanted)

    def count(self, uid: UUID) -> FileCount:
        """Return how many files a run has, and how large they are together."""
        wanted = _linked(uid, func.count(), func.coalesce(func.sum(VersionRow.size), 0))
        files, size = self._session.execute(wanted).one()
        return FileCount(files=files, bytes=int(size))

    def _row(self, uid: UUID, *, is_for_update: bool = False, is_even_hidden: bool = False) -> RunRow:
        wanted = select(RunRow).where(RunRow.uid == uid)
        wanted = wanted if is_even_hidden else wanted.where(RunRow.deleted_at.is_(None))
        row = self._session.scalars(wanted.with_for_update() if is_for_update else wanted).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no run {uid}", uid=str(uid))
        return row


def _linked(uid: UUID, *columns: Any) -> Select[Any]:
    """Select from the files of a run that are in sight, with their newest versions."""
    return (
        select(*columns)
        .select_from(RunFileRow)
        .join(RunRow, RunRow.id == RunFileRow.run_id)
        .join(FileRow, FileRow.id == RunFileRow.file_id)
        .join(VersionRow, IS_NEWEST)
        .where(RunRow.uid == uid, FileRow.deleted_at.is_(None))
    )


def to_run(row: RunRow) -> Run:
    """Return the run that a row holds."""
    plain = {key: getattr(row, key) for key in Run.model_fields if key != "metadata"}
    return Run.model_validate({**plain, "metadata": row.free})
