"""Queries on jobs that the engine asks: claiming, what it has in hand, and what came of it.

A job in hand names its worker. Whoever writes to it asks `held` first, in the same transaction: one that was taken
away, since its worker was believed dead, is written to no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from beamkeeper.db.base import upsert
from beamkeeper.db.processing.queries import IN_CHUNK
from beamkeeper.db.processing.tables import AttemptRow, JobDefinitionRow, JobFileRow, JobRow, JobStageRow
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.processing import ACTIVE_ATTEMPTS, AttemptState, Cause, JobStatus, StageStatus

Values = Mapping[str, Any]

_IN_HAND = tuple(str(status) for status in (JobStatus.RUNNING, JobStatus.FINALIZING, JobStatus.ABORTING))


@dataclass(frozen=True, slots=True)
class HeldFile:
    """An input file, with what stages said of it."""

    path: str
    experiment_path: str
    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HeldStage:
    """A stage that was begun."""

    name: str
    status: StageStatus
    repeats: int
    message: str
    cause: Cause | None
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class HeldAttempt:
    """An attempt, as far as going on depends on it."""

    id: int
    uid: UUID
    number: int
    stage: str
    file: int | None
    repeat: int
    try_number: int
    state: AttemptState
    host: str
    boot_id: str


@dataclass(frozen=True, slots=True)
class HeldJob:
    """A job with all that is needed to go on with it."""

    id: int
    uid: UUID
    owner: str
    status: JobStatus
    workflow_name: str
    workflow_owner: str
    definition: Metadata
    experiment_uid: UUID | None
    arguments: Metadata
    variables: Mapping[str, str]
    warnings: Sequence[str]
    submitted_at: datetime
    started_at: datetime | None
    completed: int
    failed: int
    files: Sequence[HeldFile]
    stages: Sequence[HeldStage]
    attempts: Sequence[HeldAttempt]


class EngineJobs:
    """Queries on the jobs that workers have in hand."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def claim(self, worker: UUID, count: int, limits: Mapping[str, int]) -> list[int]:
        """Take jobs that wait, the most urgent and then the oldest first; `limits` are of workflows by name."""
        left = self._left(limits)
        wanted = (
            select(JobRow.id, JobRow.workflow_name)
            .where(JobRow.status == str(JobStatus.PENDING))
            .order_by(JobRow.priority.desc(), JobRow.id)
            .limit(count)
            .with_for_update(skip_locked=True)
        )
        if full := [name for name, number in left.items() if number <= 0]:
            wanted = wanted.where(JobRow.workflow_name.not_in(full))
        ids = []
        for row in self._session.execute(wanted):
            if row.workflow_name in left:
                left[row.workflow_name] -= 1
                if left[row.workflow_name] < 0:
                    continue
            ids.append(row.id)
        taken = {"status": str(JobStatus.RUNNING), "worker_uid": worker, "started_at": self._now}
        self._session.execute(update(JobRow).where(JobRow.id.in_(ids)).values(**taken))
        return ids

    def _left(self, limits: Mapping[str, int]) -> dict[str, int]:
        if not limits:
            return {}
        runs = select(JobRow.workflow_name, func.count()).where(JobRow.status.in_(_IN_HAND))
        counted = self._session.execute(runs.where(JobRow.workflow_name.in_(limits)).group_by(JobRow.workflow_name))
        running: dict[str, int] = {row[0]: row[1] for row in counted}
        return {name: limit - running.get(name, 0) for name, limit in limits.items()}

    def is_any_waiting(self, limits: Mapping[str, int]) -> bool:
        """Whether a job waits that may be claimed."""
        wanted = select(JobRow.id).where(JobRow.status == str(JobStatus.PENDING)).limit(1)
        if full := [name for name, number in self._left(limits).items() if number <= 0]:
            wanted = wanted.where(JobRow.workflow_name.not_in(full))
        return self._session.execute(wanted).first() is not None

    def aborting(self, worker: UUID) -> dict[int, str]:
        """Return the jobs of a worker whose end is asked for, each with who asked."""
        is_asked = JobRow.status == str(JobStatus.ABORTING)
        wanted = select(JobRow.id, JobRow.message).where(JobRow.worker_uid == worker, is_asked)
        return {row.id: row.message for row in self._session.execute(wanted)}

    def owners(self) -> list[UUID]:
        """Return every worker that has jobs in hand."""
        wanted = select(JobRow.worker_uid).where(JobRow.worker_uid.is_not(None), JobRow.status.in_(_IN_HAND)).distinct()
        return [uid for uid in self._session.scalars(wanted) if uid is not None]

    def adopt(self, before: UUID, worker: UUID) -> list[int]:
        """Take over what a dead worker had in hand."""
        moved = update(JobRow).where(JobRow.worker_uid == before, JobRow.status.in_(_IN_HAND))
        return list(self._session.scalars(moved.values(worker_uid=worker).returning(JobRow.id)))

    def held(self, worker: UUID, ids: Sequence[int]) -> set[int]:
        """Return which of these jobs the worker still has; nobody else takes them before this transaction ends."""
        found: set[int] = set()
        for start in range(0, len(ids), IN_CHUNK):
            wanted = select(JobRow.id).where(JobRow.id.in_(ids[start : start + IN_CHUNK]), JobRow.worker_uid == worker)
            found.update(self._session.scalars(wanted.with_for_update()))
        return found

    def load(self, ids: Sequence[int]) -> list[HeldJob]:
        """Return jobs with all that belongs to them."""
        loaded: list[HeldJob] = []
        for start in range(0, len(ids), IN_CHUNK):
            loaded += self._load(ids[start : start + IN_CHUNK])
        return loaded

    def _load(self, ids: Sequence[int]) -> list[HeldJob]:
        files, stages, attempts = (self._by_job(table, ids) for table in (JobFileRow, JobStageRow, AttemptRow))
        rows = self._session.execute(
            select(JobRow, JobDefinitionRow.document)
            .join(JobDefinitionRow, JobDefinitionRow.id == JobRow.definition_id)
            .where(JobRow.id.in_(ids))
            .order_by(JobRow.priority.desc(), JobRow.id)
        )
        return [_held(row, document, files, stages, attempts) for row, document in rows]

    def _by_job(self, table: Any, ids: Sequence[int]) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = {}
        for row in self._session.scalars(select(table).where(table.job_id.in_(ids)).order_by(table.id)):
            found.setdefault(row.job_id, []).append(row)
        return found

    def save_jobs(self, rows: Sequence[Values]) -> None:
        """Write what changed of jobs; each row has the job's id."""
        if rows:
            self._session.execute(update(JobRow), list(rows))

    def save_files(self, rows: Sequence[Values]) -> None:
        """Write what stages said of files."""
        for row in rows:
            met = update(JobFileRow).where(JobFileRow.job_id == row["job_id"], JobFileRow.number == row["number"])
            self._session.execute(met.values(variables=row["variables"]))

    def save_stages(self, rows: Sequence[Values]) -> None:
        """Write stages, new ones and those that changed."""
        upsert(self._session, JobStageRow, rows, key=("job_id", "name"))

    def add_attempts(self, rows: Sequence[Values]) -> None:
        """Write attempts that are about to begin."""
        if rows:
            plain = {"started_at": None, "ended_at": None, "run_time_s": None, "exit_status": None, "signal": None}
            state = {"state": str(AttemptState.STARTING), "submitted_at": self._now, "cause": None, "message": ""}
            self._session.execute(insert(AttemptRow), [{**plain, **state, "left_behind": 0, **row} for row in rows])

    def save_attempts(self, rows: Sequence[Values]) -> None:
        """Write what came of attempts; each row has the attempt's uid."""
        if rows:
            names = [name for name in rows[0] if name != "uid"]
            met = update(AttemptRow).where(AttemptRow.uid == bindparam("of_uid"))
            statement = met.values({name: bindparam(name) for name in names})
            given = [{"of_uid" if name == "uid" else name: value for name, value in row.items()} for row in rows]
            self._session.connection().execute(statement, given)

    def running_attempts(self) -> int:
        """Return how many attempts have begun and not ended."""
        active = [str(state) for state in ACTIVE_ATTEMPTS]
        counted = select(func.count()).select_from(AttemptRow).join(JobRow, JobRow.id == AttemptRow.job_id)
        wanted = counted.where(JobRow.status.in_(_IN_HAND), AttemptRow.state.in_(active))
        return int(self._session.execute(wanted).scalar_one())


def _held(
    row: JobRow,
    document: Metadata,
    files: Mapping[int, list[JobFileRow]],
    stages: Mapping[int, list[JobStageRow]],
    attempts: Mapping[int, list[AttemptRow]],
) -> HeldJob:
    return HeldJob(
        id=row.id,
        uid=row.uid,
        owner=row.owner,
        status=JobStatus(row.status),
        workflow_name=row.workflow_name,
        workflow_owner=row.workflow_owner,
        definition=document,
        experiment_uid=row.experiment_uid,
        arguments=row.arguments,
        variables={key: str(value) for key, value in row.variables.items()},
        warnings=row.warnings,
        submitted_at=row.submitted_at,
        started_at=row.started_at,
        completed=row.completed,
        failed=row.failed,
        files=[_file(each) for each in files.get(row.id, ())],
        stages=[_stage(each) for each in stages.get(row.id, ())],
        attempts=[_attempt(each) for each in attempts.get(row.id, ())],
    )


def _file(row: JobFileRow) -> HeldFile:
    variables = {key: str(value) for key, value in (row.variables or {}).items()}
    return HeldFile(row.path, row.experiment_path, variables)


def _stage(row: JobStageRow) -> HeldStage:
    cause = None if row.cause is None else Cause(row.cause)
    return HeldStage(row.name, StageStatus(row.status), row.repeats, row.message, cause, row.started_at, row.ended_at)


def _attempt(row: AttemptRow) -> HeldAttempt:
    return HeldAttempt(
        row.id,
        row.uid,
        row.number,
        row.stage,
        row.file,
        row.repeat,
        row.try_number,
        AttemptState(row.state),
        row.host,
        row.boot_id,
    )
