"""Jobs: submitting them, looking at them, stopping, deleting and running them again, and who may."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit
from uuid import UUID

from beamkeeper.config import Settings
from beamkeeper.core import rights
from beamkeeper.core.job_files import files_of
from beamkeeper.db import ProcessingTransaction
from beamkeeper.db.processing.queries import Submission
from beamkeeper.domain.errors import ConflictError, NotFoundError, NotPermittedError
from beamkeeper.domain.events import NewEvent
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.processing import (
    Cause,
    Count,
    InputFileName,
    Job,
    JobPage,
    JobQuery,
    JobRecord,
    JobSelection,
    JobStatus,
    NewJob,
    Rerun,
)
from beamkeeper.domain.users import Action, Caller, Target, may, reach, require
from beamkeeper.domain.workflows import Definition, checked_arguments, is_per_file
from beamkeeper.domain.workflows.stored import Workflow

NO_INPUT = "Invalid input file specification."


@dataclass(frozen=True, slots=True)
class JobRules:
    """What of the settings decides about jobs."""

    station: str
    most_queued: int
    accounts: tuple[str, ...]
    work: Path

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the rules of a station."""
        processing = settings.processing
        return cls(settings.station.name, processing.most_queued, processing.accounts, processing.work)


@dataclass(frozen=True, slots=True)
class _Version:
    """A workflow in the version that a job runs: as it is kept, or as a job before held it."""

    uid: UUID | None
    name: str
    owner: str
    number: int
    definition: Definition
    document: Metadata


def _version(kept: Workflow) -> _Version:
    document = kept.definition.model_dump(mode="json")
    return _Version(kept.uid, kept.name, kept.owner, kept.number, kept.definition, document)


class _Desk:
    """Where jobs are submitted; what many of one request have in common is looked up and decided once."""

    def __init__(self, tx: ProcessingTransaction, caller: Caller, rules: JobRules) -> None:
        self.tx, self.caller, self.rules = tx, caller, rules
        self._roots: dict[UUID | None, Path | None] = {}
        self._versions: dict[tuple[str | None, str, int | None], _Version] = {}

    @cached_property
    def is_anywhere(self) -> bool:
        """Whether the caller may have jobs work on any file."""
        return self.caller.is_service or may(self.caller, Action.JOB_ANYWHERE, _station(self.tx, self.rules))

    def root(self, uid: UUID | None) -> Path | None:
        """Return the directory of an experiment that the caller may run jobs of; only managers may run one of none."""
        if uid not in self._roots:
            self._roots[uid] = self._root(uid)
        return self._roots[uid]

    def _root(self, uid: UUID | None) -> Path | None:
        if uid is not None:
            return _root(self.tx, rights.experiment(self.tx, self.caller, Action.JOB_RUN, uid))
        station = self.rules.station
        where = _station(self.tx, self.rules)
        require(self.caller, Action.JOB_ANYWHERE, where, f'station "{station}" outside of experiments')
        return None

    def version(self, new: NewJob) -> _Version:
        """Return the workflow that a job is to run, in the version wanted."""
        key = (new.workflow_owner, new.workflow, new.version)
        if key not in self._versions:
            self._versions[key] = _version(self.tx.workflows.find(*key))
        return self._versions[key]


def submit(tx: ProcessingTransaction, caller: Caller, new: Sequence[NewJob], *, rules: JobRules) -> list[Job]:
    """Take jobs, all of them or none; one whose uid is known is the same job."""
    known = tx.jobs.find([one.uid for one in new if one.uid is not None])
    for same in known.values():
        (_require_read if caller.is_service else _require_change)(tx, caller, same, rules)
    fresh = [one for one in new if one.uid is None or one.uid not in known]
    _check_room(tx, len(fresh), rules)
    desk = _Desk(tx, caller, rules)
    made = [_submission(desk, one) for one in fresh]
    if made:
        tx.jobs.add(made)
        _tell(tx, made)
    found = known | tx.jobs.find([one.uid for one in made])
    uids = iter(one.uid for one in made)
    return [found[one.uid if one.uid in known else next(uids)] for one in new]


def _check_room(tx: ProcessingTransaction, count: int, rules: JobRules) -> None:
    there = sum(tx.jobs.counts().values())
    if there + count > rules.most_queued:
        raise ConflictError(
            f"{there} jobs wait or run, and no more than {rules.most_queued} may (setting processing.most_queued): "
            f"stop some, or wait",
            jobs=there,
        )


def _submission(desk: _Desk, new: NewJob, workflow: _Version | None = None) -> Submission:
    caller = desk.caller
    if new.on_behalf_of and not caller.is_service:
        raise NotPermittedError(f"{caller.username} submits jobs as {caller.username}: only services do for others")
    root = desk.root(new.experiment_uid)
    workflow = workflow or desk.version(new)
    _check_account(workflow.definition, desk.rules)
    checked = checked_arguments(workflow.definition, new.arguments)
    files = files_of(new, root, is_anywhere=desk.is_anywhere)
    values: dict[str, Any] = {
        "uid": new.uid,
        "owner": (caller.is_service and new.on_behalf_of) or caller.username,
        "workflow_uid": workflow.uid,
        "workflow_name": workflow.name,
        "workflow_owner": workflow.owner,
        "workflow_version": workflow.number,
        "experiment_uid": new.experiment_uid,
        "run_uid": new.run_uid,
        "arguments": dict(new.arguments),
        "variables": dict(checked.values),
        "warnings": list(checked.warnings),
        "priority": new.priority,
        "rerun_of": None,
    }
    return Submission({**values, **_fate(desk.tx, workflow.definition, files)}, workflow.document, files)


def _fate(tx: ProcessingTransaction, definition: Definition, files: Sequence[InputFileName]) -> dict[str, Any]:
    """Return what a job begins as: failed at once where a stage wants files and there are none, as in the original."""
    if not files and any(is_per_file(stage) for stage in definition.stages.values()):
        return {"status": str(JobStatus.FAILED), "message": NO_INPUT, "cause": str(Cause.INPUT), "ended_at": tx.now}
    waits = {"status": str(JobStatus.PENDING), "message": "", "cause": None, "ended_at": None}
    return waits


def _check_account(definition: Definition, rules: JobRules) -> None:
    account = definition.user_account
    if account and account not in rules.accounts:
        raise ConflictError(
            f'workflow "{definition.name}" runs as "{account}", and nothing may run under that account here: '
            f"see the setting processing.accounts",
            account=account,
        )


def _root(tx: ProcessingTransaction, experiment: Experiment) -> Path | None:
    url = urlsplit(tx.storage.get(experiment.storage_area_uid).station_url)
    return Path(unquote(url.path)) / experiment.directory if url.scheme == "file" else None


def show(tx: ProcessingTransaction, caller: Caller, uid: UUID, *, rules: JobRules) -> Job:
    """Return a job."""
    found = tx.jobs.get(uid)
    _require_read(tx, caller, found, rules)
    return found


def record(tx: ProcessingTransaction, caller: Caller, uid: UUID, *, rules: JobRules) -> JobRecord:
    """Return a job with its files, stages and child processes."""
    found = tx.jobs.record(uid)
    _require_read(tx, caller, found, rules)
    return found


def list_(tx: ProcessingTransaction, caller: Caller, query: JobQuery) -> JobPage:
    """Return jobs that the caller may see, newest last."""
    return tx.jobs.page(query, reach(caller, Action.JOB_READ), username=caller.username)


def stop(tx: ProcessingTransaction, caller: Caller, selection: JobSelection, *, rules: JobRules) -> Count:
    """End jobs that wait, and ask for the end of those that run, with all that they have started."""
    jobs = _selected(tx, caller, selection, rules)
    met = tx.jobs.stop([job.uid for job in jobs if not job.has_ended], f"stopped by {caller.username}")
    if met:
        tx.events.add(NewEvent(kind="job.stopping", data={"jobs": met}))
    return Count(jobs=met)


def delete(tx: ProcessingTransaction, caller: Caller, selection: JobSelection, *, rules: JobRules) -> list[UUID]:
    """Forget jobs that have ended; returns which, so that what they wrote is removed."""
    jobs = _selected(tx, caller, selection, rules)
    running = [job for job in jobs if not job.has_ended]
    if selection.uids and running:
        raise ConflictError(f"job {running[0].uid} is {running[0].status}: stop it first", uid=str(running[0].uid))
    return tx.jobs.remove([job.uid for job in jobs if job.has_ended])


def rerun(tx: ProcessingTransaction, caller: Caller, uid: UUID, new: Rerun, *, rules: JobRules) -> Job:
    """Run a job again, in the version that it ran or in the newest, with its arguments or with others."""
    if new.uid is not None and (same := tx.jobs.find([new.uid])):
        _require_change(tx, caller, same[new.uid], rules)
        return same[new.uid]
    before = record(tx, caller, uid, rules=rules)
    _require_change(tx, caller, before, rules)
    _check_room(tx, 1, rules)
    made = _again(_Desk(tx, caller, rules), before, new)
    tx.jobs.add([made])
    _tell(tx, [made])
    return tx.jobs.get(made.uid)


def retry(tx: ProcessingTransaction, caller: Caller, selection: JobSelection, *, rules: JobRules) -> list[Job]:
    """Run failed jobs again, all of a selection: by their cause, for example, without those that were repeated."""
    failed = (JobStatus.FAILED, JobStatus.ABORTED)
    jobs = [job for job in _selected(tx, caller, selection, rules) if job.status in failed]
    if not selection.uids:  # each once, however often it is asked
        repeated = tx.jobs.repeated()
        jobs = [job for job in jobs if job.uid not in repeated]
    _check_room(tx, len(jobs), rules)
    desk = _Desk(tx, caller, rules)
    made = [_again(desk, tx.jobs.record(job.uid), Rerun()) for job in jobs]
    if made:
        tx.jobs.add(made)
        _tell(tx, made)
    found = tx.jobs.find([one.uid for one in made])
    return [found[one.uid] for one in made]


def _again(desk: _Desk, before: JobRecord, new: Rerun) -> Submission:
    workflow = None
    if not new.newest:
        ran = before.workflow
        definition = Definition.model_validate(before.definition)
        document = definition.model_dump(mode="json")
        workflow = _Version(ran.uid, ran.name, ran.owner, ran.version, definition, document)
    names_files = {"filePath", "filePathList", "filePathPattern"}
    is_other = bool(names_files & set(new.arguments))
    arguments = {k: v for k, v in before.arguments.items() if k not in names_files} | new.arguments
    given = NewJob.model_construct(
        uid=new.uid,
        workflow=before.workflow.name,
        workflow_owner=before.workflow.owner,
        version=None,
        experiment_uid=before.experiment_uid,
        arguments=arguments,
        files=() if is_other else before.files,
        paths=(),
        priority=before.priority,
        run_uid=before.run_uid,
        on_behalf_of=None,
    )
    made = _submission(desk, given, workflow)
    made.values = {**made.values, "rerun_of": before.uid}
    return made


def _selected(tx: ProcessingTransaction, caller: Caller, selection: JobSelection, rules: JobRules) -> list[Job]:
    """Return the jobs of a selection that the caller may change; one that is named and may not be is refused."""
    jobs = tx.jobs.selected(selection, reach(caller, Action.JOB_READ), username=caller.username)
    if missing := set(selection.uids) - {job.uid for job in jobs}:
        raise NotFoundError(f"there is no job {next(iter(missing))}: `dm job list` shows them")
    if selection.uids:
        for job in jobs:
            _require_change(tx, caller, job, rules)
        return jobs
    return [job for job in jobs if _may_change(tx, caller, job, rules)]


def _tell(tx: ProcessingTransaction, made: Sequence[Submission]) -> None:
    by_experiment: dict[UUID | None, int] = {}
    for one in made:
        uid = one.values["experiment_uid"]
        by_experiment[uid] = by_experiment.get(uid, 0) + 1
    for uid, count in by_experiment.items():
        tx.events.add(NewEvent(kind="job.submitted", experiment_uid=uid, data={"jobs": count}))


def _station(tx: ProcessingTransaction, rules: JobRules) -> Target:
    return Target(station_uid=tx.experiments.station_named(rules.station).uid)


def _require_read(tx: ProcessingTransaction, caller: Caller, job: Job, rules: JobRules) -> None:
    if job.experiment_uid is None and job.owner == caller.username:
        return
    try:
        if job.experiment_uid is not None:
            rights.experiment(tx, caller, Action.JOB_READ, job.experiment_uid)
        else:
            require(caller, Action.JOB_READ, _station(tx, rules), f"job {job.uid}")
    except (NotFoundError, NotPermittedError) as error:
        raise NotFoundError(f"there is no job {job.uid}: `dm job list` shows them", uid=str(job.uid)) from error


def _may_change(tx: ProcessingTransaction, caller: Caller, job: Job, rules: JobRules) -> bool:
    """Whether a caller may stop, delete and repeat a job: its own, or as who leads there anybody's."""
    if may(caller, Action.JOB_ANYWHERE, _station(tx, rules)):
        return True
    if job.experiment_uid is None:
        return False
    target = tx.experiments.get(job.experiment_uid).target(tx.now)
    is_own = job.owner == caller.username and may(caller, Action.JOB_RUN, target)
    return is_own or may(caller, Action.EXPERIMENT_UPDATE, target)


def _require_change(tx: ProcessingTransaction, caller: Caller, job: Job, rules: JobRules) -> None:
    _require_read(tx, caller, job, rules)
    if not _may_change(tx, caller, job, rules):
        raise NotPermittedError(f"job {job.uid} is {job.owner}'s: only {job.owner} and who leads there may change it")
