"""Queries on jobs that the engine asks: claiming, what it has in hand, and what came of it.

A job in hand names its worker. Whoever writes to it asks `held` first, in the same transaction: one that was taken
away, since its worker was believed dead, is written to no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, cast
from uuid import UUID

from sqlalchemy import (
    BindParameter,
    CursorResult,
    Executable,
    Select,
    Table,
    Update,
    bindparam,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.orm import Session

from beamkeeper.db.base import Base, upsert
from beamkeeper.db.processing.queries import IN_CHUNK
from beamkeeper.db.processing.tables import AttemptRow, JobDefinitionRow, JobFileRow, JobRow, JobStageRow
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.processing import ACTIVE_ATTEMPTS, AttemptState, Cause, JobStatus, StageStatus

Values = Mapping[str, Any]
_ByJob = Mapping[int, list[Any]]

_IN_HAND = tuple(str(status) for status in (JobStatus.RUNNING, JobStatus.FINALIZING, JobStatus.ABORTING))


def _table(row: type[Base]) -> Table:
    return cast("Table", row.__table__)


# What every step of the engine asks is built once, of tables and not of mapped classes: building a statement and
# taking it through the session was half of what the engine did.
_JOBS, _FILES, _STAGES, _ATTEMPTS = (_table(row) for row in (JobRow, JobFileRow, JobStageRow, AttemptRow))
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_WAITING = select(_JOBS.c.id, _JOBS.c.workflow_name).where(_JOBS.c.status == str(JobStatus.PENDING))
_NEXT = (
    _WAITING.order_by(_JOBS.c.priority.desc(), _JOBS.c.id).limit(bindparam("count")).with_for_update(skip_locked=True)
)
_AHEAD = (
    select(_JOBS.c.workflow_owner, _JOBS.c.workflow_name)
    .where(_JOBS.c.status == str(JobStatus.PENDING))
    .order_by(_JOBS.c.priority.desc(), _JOBS.c.id)
    .limit(bindparam("count"))
)
_OF_PEOPLE = (
    select(_JOBS.c.uid, _JOBS.c.owner, _JOBS.c.experiment_uid)
    .where(_JOBS.c.status == str(JobStatus.PENDING))
    .order_by(_JOBS.c.priority.desc(), _JOBS.c.id)
    .limit(bindparam("count"))
)
_NOT_ENDED = select(_JOBS.c.uid).where(_JOBS.c.uid.in_(_IDS), _JOBS.c.status.in_((str(JobStatus.PENDING), *_IN_HAND)))
_ABORTING = select(_JOBS.c.id, _JOBS.c.message).where(
    _JOBS.c.worker_uid == bindparam("worker"), _JOBS.c.status == str(JobStatus.ABORTING)
)
_HELD = select(_JOBS.c.id).where(_JOBS.c.id.in_(_IDS), _JOBS.c.worker_uid == bindparam("worker")).with_for_update()
_LOADED = (
    select(_JOBS, JobDefinitionRow.document)
    .join(JobDefinitionRow, JobDefinitionRow.id == _JOBS.c.definition_id)
    .where(_JOBS.c.id.in_(_IDS))
    .order_by(_JOBS.c.priority.desc(), _JOBS.c.id)
)
_OF_JOBS = {
    table: select(table).where(table.c.job_id.in_(_IDS)).order_by(table.c.id) for table in (_FILES, _STAGES, _ATTEMPTS)
}
_ANY = _WAITING.limit(1)
_TAKEN = (
    update(_JOBS)
    .where(_JOBS.c.id.in_(_IDS))
    .values(status=str(JobStatus.RUNNING), worker_uid=bindparam("worker"), started_at=bindparam("now"))
)
_BEGUN = insert(_ATTEMPTS)
_FILE_SAID = (
    update(_FILES)
    .where(_FILES.c.job_id == bindparam("of_job"), _FILES.c.number == bindparam("of_number"))
    .values(variables=bindparam("said"))
)


@lru_cache(maxsize=64)
def _changing(table: Table, key: str, names: tuple[str, ...]) -> Update:
    met = update(table).where(table.c[key] == bindparam(f"of_{key}"))
    return met.values({name: bindparam(name) for name in names})


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


@dataclass(frozen=True, slots=True)
class NextJob:
    """A job of an experiment that waits, and whose it is."""

    uid: UUID
    owner: str
    experiment_uid: UUID


class EngineJobs:
    """Queries on the jobs that workers have in hand."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def claim(self, worker: UUID, count: int, limits: Mapping[str, int]) -> list[int]:
        """Take jobs that wait, the most urgent and then the oldest first; `limits` are of workflows by name."""
        left = self._left(limits)
        ids = []
        for row in self._run(_without(_NEXT, left), count=count):
            if row.workflow_name in left:
                left[row.workflow_name] -= 1
                if left[row.workflow_name] < 0:
                    continue
            ids.append(row.id)
        if ids:
            self._run(_TAKEN, ids=ids, worker=worker, now=self._now)
        return ids

    def next_workflows(self, count: int, limits: Mapping[str, int]) -> list[str]:
        """Return the workflows, by owner and name, of the jobs that `claim` would take."""
        found = self._run(_without(_AHEAD, self._left(limits)), count=count)
        return [f"{row.workflow_owner}/{row.workflow_name}" for row in found]

    def next_of_experiments(self, count: int) -> list[NextJob]:
        """Return those of experiments among so many jobs that wait, the first to be claimed first."""
        found = self._run(
            _OF_PEOPLE, count=count
        )  # it says nothing of experiments: to look for one reads all that wait
        return [NextJob(row.uid, row.owner, row.experiment_uid) for row in found if row.experiment_uid is not None]

    def not_ended(self, uids: Sequence[UUID]) -> set[UUID]:
        """Return those of some jobs that wait or run."""
        return set(self._run(_NOT_ENDED, ids=list(uids)).scalars())

    def _run(self, statement: Executable, **values: Any) -> CursorResult[Any]:
        return self._session.connection().execute(statement, values)

    def _left(self, limits: Mapping[str, int]) -> dict[str, int]:
        if not limits:
            return {}
        runs = select(JobRow.workflow_name, func.count()).where(JobRow.status.in_(_IN_HAND))
        counted = self._session.execute(runs.where(JobRow.workflow_name.in_(limits)).group_by(JobRow.workflow_name))
        running: dict[str, int] = {row[0]: row[1] for row in counted}
        return {name: limit - running.get(name, 0) for name, limit in limits.items()}

    def is_any_waiting(self, limits: Mapping[str, int]) -> bool:
        """Whether a job waits that may be claimed."""
        return self._run(_without(_ANY, self._left(limits))).first() is not None

    def aborting(self, worker: UUID) -> dict[int, str]:
        """Return the jobs of a worker whose end is asked for, each with who asked."""
        return {row.id: row.message for row in self._run(_ABORTING, worker=worker)}

    def owners(self) -> list[UUID]:
        """Return every worker that has jobs in hand."""
        wanted = select(JobRow.worker_uid).where(JobRow.worker_uid.is_not(None), JobRow.status.in_(_IN_HAND)).distinct()
        return [uid for uid in self._session.scalars(wanted) if uid is not None]

    def adopt(self, before: UUID, worker: UUID) -> list[int]:
        """Take over what a dead worker had in hand."""
        moved = update(JobRow).where(JobRow.worker_uid == before, JobRow.status.in_(_IN_HAND))
        return list(self._session.scalars(moved.values(worker_uid=worker).returning(JobRow.id)))

    def worker_of(self, id_: int) -> UUID | None:
        """Return which worker has a job in hand."""
        return self._session.execute(select(JobRow.worker_uid).where(JobRow.id == id_)).scalar_one_or_none()

    def ended_since(self, when: datetime) -> list[UUID]:
        """Return the jobs of experiments that have run and ended since a time, newest first."""
        wanted = select(JobRow.uid).where(JobRow.ended_at >= when, JobRow.started_at.is_not(None))
        return list(self._session.scalars(wanted.where(JobRow.experiment_uid.is_not(None)).order_by(JobRow.id.desc())))

    def ended_before(self, uids: Sequence[UUID], when: datetime) -> list[UUID]:
        """Return those of some jobs that ended before a time."""
        return list(self._session.scalars(select(JobRow.uid).where(JobRow.uid.in_(uids), JobRow.ended_at < when)))

    def held(self, worker: UUID, ids: Sequence[int]) -> set[int]:
        """Return which of these jobs the worker still has; nobody else takes them before this transaction ends."""
        found: set[int] = set()
        for start in range(0, len(ids), IN_CHUNK):
            found.update(self._run(_HELD, ids=ids[start : start + IN_CHUNK], worker=worker).scalars())
        return found

    def load(self, ids: Sequence[int], *, are_new: bool = False) -> list[HeldJob]:
        """Return jobs with all that belongs to them; new ones have no stages and no attempts."""
        loaded: list[HeldJob] = []
        for start in range(0, len(ids), IN_CHUNK):
            loaded += self._load(ids[start : start + IN_CHUNK], are_new=are_new)
        return loaded

    def _load(self, ids: Sequence[int], *, are_new: bool) -> list[HeldJob]:
        rows = self._run(_LOADED, ids=ids).all()
        files = self._by_job(_FILES, [row.id for row in rows if row.count_files])
        stages, attempts = ({}, {}) if are_new else (self._by_job(_STAGES, ids), self._by_job(_ATTEMPTS, ids))
        return [_held(row, files, stages, attempts) for row in rows]

    def _by_job(self, table: Table, ids: Sequence[int]) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = {}
        for row in self._run(_OF_JOBS[table], ids=ids) if ids else ():
            found.setdefault(row.job_id, []).append(row)
        return found

    def save_jobs(self, rows: Sequence[Values]) -> None:
        """Write what changed of jobs; each row has the job's id."""
        if rows:
            self._change(_JOBS, "id", rows)

    def save_files(self, rows: Sequence[Values]) -> None:
        """Write what stages said of files."""
        if rows:
            given = [{"of_job": row["job_id"], "of_number": row["number"], "said": row["variables"]} for row in rows]
            self._session.connection().execute(_FILE_SAID, given)

    def save_stages(self, rows: Sequence[Values]) -> None:
        """Write stages, new ones and those that changed."""
        upsert(self._session, JobStageRow, rows, key=("job_id", "name"))

    def add_attempts(self, rows: Sequence[Values]) -> None:
        """Write attempts that are about to begin."""
        if rows:
            plain = {"started_at": None, "ended_at": None, "run_time_s": None, "exit_status": None, "signal": None}
            state = {"state": str(AttemptState.STARTING), "submitted_at": self._now, "cause": None, "message": ""}
            given = [{**plain, **state, "left_behind": 0, **row} for row in rows]
            self._session.connection().execute(_BEGUN, given)

    def save_attempts(self, rows: Sequence[Values]) -> None:
        """Write what came of attempts; each row has the attempt's uid."""
        if rows:
            self._change(_ATTEMPTS, "uid", rows)

    def _change(self, table: Table, key: str, rows: Sequence[Values]) -> None:
        """Write the other columns of rows that are known by this one."""
        statement = _changing(table, key, tuple(name for name in rows[0] if name != key))
        given = [{f"of_{name}" if name == key else name: value for name, value in row.items()} for row in rows]
        self._session.connection().execute(statement, given)

    def running_attempts(self) -> int:
        """Return how many attempts have begun and not ended."""
        active = [str(state) for state in ACTIVE_ATTEMPTS]
        counted = select(func.count()).select_from(AttemptRow).join(JobRow, JobRow.id == AttemptRow.job_id)
        wanted = counted.where(JobRow.status.in_(_IN_HAND), AttemptRow.state.in_(active))
        return int(self._session.execute(wanted).scalar_one())


def _without(wanted: Select[Any], left: Mapping[str, int]) -> Select[Any]:
    """Leave out workflows of which no more jobs may run."""
    full = [name for name, number in left.items() if number <= 0]
    return wanted.where(_JOBS.c.workflow_name.not_in(full)) if full else wanted


def _held(row: Any, files: _ByJob, stages: _ByJob, attempts: _ByJob) -> HeldJob:
    return HeldJob(
        id=row.id,
        uid=row.uid,
        owner=row.owner,
        status=JobStatus(row.status),
        workflow_name=row.workflow_name,
        workflow_owner=row.workflow_owner,
        definition=row.document,
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


def _file(row: Any) -> HeldFile:
    variables = {key: str(value) for key, value in (row.variables or {}).items()}
    return HeldFile(row.path, row.experiment_path, variables)


def _stage(row: Any) -> HeldStage:
    cause = None if row.cause is None else Cause(row.cause)
    return HeldStage(row.name, StageStatus(row.status), row.repeats, row.message, cause, row.started_at, row.ended_at)


def _attempt(row: Any) -> HeldAttempt:
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
