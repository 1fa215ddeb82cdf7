"""Jobs: submitting them, looking at them, stopping, deleting and running them again, and who may."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit
from uuid import UUID

from pydantic import JsonValue, ValidationError

from beamkeeper.config import Settings
from beamkeeper.core import rights
from beamkeeper.db import ProcessingTransaction
from beamkeeper.db.processing.queries import Submission
from beamkeeper.domain.errors import ConflictError, InvalidError, NotFoundError, NotPermittedError, TooLargeError
from beamkeeper.domain.events import NewEvent
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.processing import (
    MOST_FILES,
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


def _version(kept: Workflow) -> _Version:
    return _Version(kept.uid, kept.name, kept.owner, kept.number, kept.definition)


def submit(tx: ProcessingTransaction, caller: Caller, new: Sequence[NewJob], *, rules: JobRules) -> list[Job]:
    """Take jobs, all of them or none; one whose uid is known is the same job."""
    known = tx.jobs.find([one.uid for one in new if one.uid is not None])
    for same in known.values():
        (_require_read if caller.is_service else _require_change)(tx, caller, same, rules)
    fresh = [one for one in new if one.uid is None or one.uid not in known]
    _check_room(tx, len(fresh), rules)
    made = [_submission(tx, caller, one, rules) for one in fresh]
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


def _submission(
    tx: ProcessingTransaction, caller: Caller, new: NewJob, rules: JobRules, workflow: _Version | None = None
) -> Submission:
    if new.on_behalf_of and not caller.is_service:
        raise NotPermittedError(f"{caller.username} submits jobs as {caller.username}: only services do for others")
    experiment = _where(tx, caller, new.experiment_uid, rules)
    workflow = workflow or _version(tx.workflows.find(new.workflow_owner, new.workflow, new.version))
    _check_account(workflow.definition, rules)
    checked = checked_arguments(workflow.definition, new.arguments)
    files = _files(tx, caller, new, experiment, rules)
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
    definition = workflow.definition.model_dump(mode="json")
    return Submission({**values, **_fate(tx, workflow.definition, files)}, definition, files)


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


def _where(tx: ProcessingTransaction, caller: Caller, uid: UUID | None, rules: JobRules) -> Experiment | None:
    """Return the experiment of a job; only managers of the station may run one without."""
    if uid is not None:
        return rights.experiment(tx, caller, Action.JOB_RUN, uid)
    require(caller, Action.JOB_ANYWHERE, _station(tx, rules), f'station "{rules.station}" outside of experiments')
    return None


def _files(
    tx: ProcessingTransaction, caller: Caller, new: NewJob, experiment: Experiment | None, rules: JobRules
) -> list[InputFileName]:
    """Return the input files: given one by one, or by the arguments that name them."""
    root = None if experiment is None else _root(tx, experiment)
    is_anywhere = caller.is_service or may(caller, Action.JOB_ANYWHERE, _station(tx, rules))
    named = [*new.files, *(_named(word, root) for word in (*new.paths, *_paths(new.arguments)))]
    if not is_anywhere:
        _require_inside([file.path for file in named], root)
    if pattern := new.arguments.get("filePathPattern"):
        found = _matching(str(pattern), root, is_anywhere=is_anywhere)
        if len(named) + len(found) > MOST_FILES:
            raise TooLargeError(f"there are more than {MOST_FILES} files, which are too many for one job: name fewer")
        named += found
    return named


def _require_inside(paths: Sequence[str], root: Path | None) -> None:
    for path in paths:
        if root is None or not _is_below(path, root):
            raise NotPermittedError(
                f'"{path}" is not in the experiment: jobs of its people work on its own files', path=path
            )


def _paths(arguments: Mapping[str, JsonValue]) -> list[str]:
    """Return the paths that arguments name, as they are given."""
    words: list[str] = []
    for key in ("filePath", "filePathList"):
        value = arguments.get(key)
        if isinstance(value, list):
            words += [str(word) for word in value]
        elif value not in (None, ""):
            words += str(value).split(",") if key == "filePathList" else [str(value)]
    return words


def _named(word: str, root: Path | None) -> InputFileName:
    path = Path(word) if root is None else root / word
    if not path.is_absolute():
        raise InvalidError(f'"{word}" is no absolute path, and no experiment is named: give one of both', path=word)
    plain = os.path.normpath(path)
    below = os.path.relpath(plain, root) if root is not None and _is_below(plain, root) else ""
    try:
        return InputFileName(path=plain, experiment_path=below)
    except (ValidationError, UnicodeError) as error:
        raise InvalidError(f"{word[:200]!r} cannot be the name of an input file") from error


def _matching(pattern: str, root: Path | None, *, is_anywhere: bool) -> list[InputFileName]:
    """Return the files that match; who may not work anywhere learns nothing of what there is elsewhere."""
    where = pattern if root is None else str(root / pattern)
    matches = (path for path in glob.iglob(where, recursive=True) if os.path.isfile(path))
    if not is_anywhere:
        if root is None or not Path(os.path.normpath(where)).is_relative_to(root):
            raise NotPermittedError(
                f'"{pattern}" leads out of the experiment: jobs of its people work on its own files', path=pattern
            )
        real = os.path.realpath(root)
        matches = (path for path in matches if Path(os.path.realpath(path)).is_relative_to(real))
    found = sorted(islice(matches, MOST_FILES + 1))
    if not found:
        raise InvalidError(f'no file matches "{pattern}"', pattern=pattern)
    return [_named(path, root) for path in found]


def _root(tx: ProcessingTransaction, experiment: Experiment) -> Path | None:
    url = urlsplit(tx.storage.get(experiment.storage_area_uid).station_url)
    return Path(unquote(url.path)) / experiment.directory if url.scheme == "file" else None


def _is_below(path: str, root: Path) -> bool:
    real = os.path.realpath(path)  # a link in the experiment must not lead out of it
    return Path(real).is_relative_to(os.path.realpath(root))


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
    made = _again(tx, caller, before, new, rules)
    tx.jobs.add([made])
    _tell(tx, [made])
    return tx.jobs.get(made.uid)


def retry(tx: ProcessingTransaction, caller: Caller, selection: JobSelection, *, rules: JobRules) -> list[Job]:
    """Run failed jobs again, all of a selection: by their cause, for example."""
    failed = (JobStatus.FAILED, JobStatus.ABORTED)
    jobs = [job for job in _selected(tx, caller, selection, rules) if job.status in failed]
    _check_room(tx, len(jobs), rules)
    made = [_again(tx, caller, tx.jobs.record(job.uid), Rerun(), rules) for job in jobs]
    if made:
        tx.jobs.add(made)
        _tell(tx, made)
    found = tx.jobs.find([one.uid for one in made])
    return [found[one.uid] for one in made]


def _again(tx: ProcessingTransaction, caller: Caller, before: JobRecord, new: Rerun, rules: JobRules) -> Submission:
    workflow = None
    if not new.newest:
        ran = before.workflow
        workflow = _Version(ran.uid, ran.name, ran.owner, ran.version, Definition.model_validate(before.definition))
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
    made = _submission(tx, caller, given, rules, workflow)
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
