"""Queries on jobs that callers ask: submitting, finding, stopping, counting."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, delete, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session

from beamkeeper.db.base import new_uid
from beamkeeper.db.pages import from_cursor, to_cursor
from beamkeeper.db.processing.records import to_attempt, to_file, to_job, to_stage
from beamkeeper.db.processing.tables import AttemptRow, JobDefinitionRow, JobFileRow, JobRow, JobStageRow
from beamkeeper.db.scope import experiment_uids
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.processing import (
    ENDED_JOBS,
    Cause,
    ChildProcess,
    InputFileName,
    Job,
    JobPage,
    JobQuery,
    JobRecord,
    JobSelection,
    JobStatus,
)
from beamkeeper.domain.users import Reach

IN_CHUNK = 500
"""Values in one IN list: under every database's limit of bound parameters."""


class Submission:
    """A job as the verbs have decided it, ready to be written."""

    def __init__(self, values: Mapping[str, Any], definition: Metadata, files: Sequence[InputFileName]) -> None:
        self.uid: UUID = values.get("uid") or new_uid()
        self.values = {**values, "uid": self.uid}
        self.definition = definition
        self.files = files


class Jobs:
    """Queries on jobs."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(self, new: Sequence[Submission]) -> None:
        """Write jobs, pending."""
        keys = self._definitions([one.definition for one in new])
        rows = [
            {**self._fresh(len(one.files)), **one.values, "definition_id": key}
            for one, key in zip(new, keys, strict=True)
        ]
        self._session.execute(insert(JobRow), rows)
        with_files = [one for one in new if one.files]
        ids = self._ids([one.uid for one in with_files])
        files = [
            {"job_id": ids[one.uid], "number": place, "variables": None, **file.model_dump()}
            for one in with_files
            for place, file in enumerate(one.files)
        ]
        if files:
            self._session.execute(insert(JobFileRow), files)

    def _fresh(self, count_files: int) -> dict[str, Any]:
        return {
            "status": str(JobStatus.PENDING),
            "variables": {},
            "count_files": count_files,
            "stage": "",
            "completed": 0,
            "failed": 0,
            "message": "",
            "cause": None,
            "submitted_at": self._now,
            "started_at": None,
            "ended_at": None,
            "worker_uid": None,
        }

    def _definitions(self, documents: Sequence[Metadata]) -> list[int]:
        """Return the keys of definitions, writing those that are new."""
        digests = [_digest(document) for document in documents]
        wanted = dict(zip(digests, documents, strict=True))
        known = self._definition_ids(wanted)
        missing = [{"sha256": key, "document": wanted[key]} for key in wanted if key not in known]
        if missing:
            self._session.execute(insert(JobDefinitionRow), missing)
            known = self._definition_ids(wanted)
        return [known[digest] for digest in digests]

    def _definition_ids(self, digests: Collection[str]) -> dict[str, int]:
        found = select(JobDefinitionRow.sha256, JobDefinitionRow.id).where(JobDefinitionRow.sha256.in_(list(digests)))
        return {row.sha256: row.id for row in self._session.execute(found)}

    def _ids(self, uids: Sequence[UUID]) -> dict[UUID, int]:
        ids: dict[UUID, int] = {}
        for start in range(0, len(uids), IN_CHUNK):
            found = select(JobRow.uid, JobRow.id).where(JobRow.uid.in_(uids[start : start + IN_CHUNK]))
            ids |= {row.uid: row.id for row in self._session.execute(found)}
        return ids

    def find(self, uids: Sequence[UUID]) -> dict[UUID, Job]:
        """Return those of some jobs that there are."""
        found: dict[UUID, Job] = {}
        for start in range(0, len(uids), IN_CHUNK):
            wanted = select(JobRow).where(JobRow.uid.in_(uids[start : start + IN_CHUNK]))
            found |= {row.uid: to_job(row) for row in self._session.scalars(wanted)}
        return found

    def get(self, uid: UUID) -> Job:
        """Return a job."""
        return to_job(self._row(uid))

    def record(self, uid: UUID) -> JobRecord:
        """Return a job with its files, stages and child processes."""
        row = self._row(uid)
        files = select(JobFileRow).where(JobFileRow.job_id == row.id).order_by(JobFileRow.number)
        stages = select(JobStageRow).where(JobStageRow.job_id == row.id).order_by(JobStageRow.id)
        attempts = select(AttemptRow).where(AttemptRow.job_id == row.id).order_by(AttemptRow.number)
        return JobRecord(
            **to_job(row).model_dump(),
            files=tuple(to_file(each) for each in self._session.scalars(files)),
            stages=tuple(to_stage(each) for each in self._session.scalars(stages)),
            child_processes=tuple(to_attempt(each) for each in self._session.scalars(attempts)),
            definition=self._session.scalars(
                select(JobDefinitionRow.document).where(JobDefinitionRow.id == row.definition_id)
            ).one(),
        )

    def attempt(self, uid: UUID, number: int) -> ChildProcess:
        """Return one child process of a job."""
        wanted = select(AttemptRow).join(JobRow).where(JobRow.uid == uid, AttemptRow.number == number)
        row = self._session.scalars(wanted).one_or_none()
        if row is None:
            raise NotFoundError(f"job {uid} has no child process {number}: `dm job show` lists them")
        return to_attempt(row)

    def page(self, query: JobQuery, reach: Reach, *, username: str) -> JobPage:
        """Return the jobs that are wanted and may be seen, newest last; the cursor leads to older ones."""
        wanted = _wanted(query).where(self.seen(reach, username)).order_by(JobRow.id.desc()).limit(query.limit + 1)
        if query.after is not None:
            wanted = wanted.where(JobRow.id < int(from_cursor(query.after, int)[0]))
        rows = list(self._session.scalars(wanted))
        more = to_cursor(rows[query.limit - 1].id) if len(rows) > query.limit else None
        return JobPage(items=tuple(to_job(row) for row in reversed(rows[: query.limit])), next=more)

    def seen(self, reach: Reach, username: str) -> ColumnElement[bool]:
        """Return which jobs a caller may see: those of experiments within reach, and one's own."""
        if reach.is_all or reach.stations:  # every job here is of this service's station
            return JobRow.id.is_not(None)
        return or_(
            JobRow.experiment_uid.in_(experiment_uids(reach, self._now)),
            (JobRow.owner == username) & JobRow.experiment_uid.is_(None),
        )

    def selected(self, selection: JobSelection, reach: Reach, *, username: str) -> list[Job]:
        """Return the jobs of a selection that a caller may see."""
        wanted = select(JobRow).where(self.seen(reach, username)).order_by(JobRow.id)
        for column, value in (
            (JobRow.status, selection.status),
            (JobRow.cause, selection.cause),
            (JobRow.workflow_name, selection.workflow),
            (JobRow.experiment_uid, selection.experiment_uid),
        ):
            if value is not None:
                wanted = wanted.where(column == (str(value) if not isinstance(value, UUID) else value))
        if selection.uids:
            wanted = wanted.where(JobRow.uid.in_(selection.uids))
        return [to_job(row) for row in self._session.scalars(wanted)]

    def repeated(self) -> set[UUID]:
        """Return the jobs that were run again by others."""
        others = select(JobRow.rerun_of).where(JobRow.rerun_of.is_not(None))
        return {uid for uid in self._session.scalars(others) if uid is not None}

    def stop(self, uids: Sequence[UUID], message: str) -> int:
        """End jobs that wait, at once, and ask for the end of those that run; returns how many that were."""
        met = 0
        for start in range(0, len(uids), IN_CHUNK):
            some = JobRow.uid.in_(uids[start : start + IN_CHUNK])
            waits = update(JobRow).where(some, JobRow.status == str(JobStatus.PENDING))
            ended = {"status": str(JobStatus.ABORTED), "ended_at": self._now, "cause": str(Cause.STOPPED)}
            met += self._session.execute(waits.values(**ended, message=message)).rowcount  # type: ignore[attr-defined]
            runs = update(JobRow).where(some, JobRow.status.in_([str(JobStatus.RUNNING), str(JobStatus.FINALIZING)]))
            asked = {"status": str(JobStatus.ABORTING), "message": message}
            met += self._session.execute(runs.values(**asked)).rowcount  # type: ignore[attr-defined]
        return met

    def remove(self, uids: Sequence[UUID]) -> list[UUID]:
        """Forget jobs that have ended; returns which."""
        ended = [str(status) for status in ENDED_JOBS]
        removed: list[UUID] = []
        for start in range(0, len(uids), IN_CHUNK):
            some = select(JobRow.id, JobRow.uid).where(JobRow.uid.in_(uids[start : start + IN_CHUNK]))
            rows = self._session.execute(some.where(JobRow.status.in_(ended))).all()
            ids = [row.id for row in rows]
            for table in (JobFileRow, JobStageRow, AttemptRow):
                self._session.execute(delete(table).where(table.job_id.in_(ids)))
            self._session.execute(delete(JobRow).where(JobRow.id.in_(ids)))
            removed += [row.uid for row in rows]
        return removed

    def counts(self) -> dict[JobStatus, int]:
        """Return how many jobs that have not ended are in each status."""
        active = [str(status) for status in JobStatus if status not in ENDED_JOBS]
        counted = select(JobRow.status, func.count()).where(JobRow.status.in_(active)).group_by(JobRow.status)
        return {JobStatus(status): count for status, count in self._session.execute(counted)}

    def oldest(self) -> datetime | None:
        """Return when the oldest job was submitted that has not ended."""
        active = [str(status) for status in JobStatus if status not in ENDED_JOBS]
        return self._session.execute(
            select(func.min(JobRow.submitted_at)).where(JobRow.status.in_(active))
        ).scalar_one()

    def _row(self, uid: UUID) -> JobRow:
        row = self._session.scalars(select(JobRow).where(JobRow.uid == uid)).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no job {uid}: `dm job list` shows them", uid=str(uid))
        return row


def _wanted(query: JobQuery) -> Select[JobRow]:
    wanted = select(JobRow)
    equal: list[tuple[Any, Any]] = [
        (JobRow.workflow_name, query.workflow),
        (JobRow.owner, query.owner),
        (JobRow.experiment_uid, query.experiment_uid),
        (JobRow.run_uid, query.run_uid),
        (JobRow.status, None if query.status is None else str(query.status)),
        (JobRow.cause, None if query.cause is None else str(query.cause)),
    ]
    for column, value in equal:
        if value is not None:
            wanted = wanted.where(column == value)
    if query.active is not None:
        ended = [str(status) for status in ENDED_JOBS]
        wanted = wanted.where(JobRow.status.not_in(ended) if query.active else JobRow.status.in_(ended))
    if query.since is not None:
        wanted = wanted.where(JobRow.submitted_at >= query.since)
    if query.until is not None:
        wanted = wanted.where(JobRow.submitted_at < query.until)
    if query.file is not None:
        is_named = or_(JobFileRow.path == query.file, JobFileRow.experiment_path == query.file)
        wanted = wanted.where(exists().where(JobFileRow.job_id == JobRow.id, is_named))
    return wanted


def _digest(document: Metadata) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
