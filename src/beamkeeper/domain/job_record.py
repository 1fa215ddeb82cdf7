"""A job in the words of the original: what programs that beamlines run today read of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, tzinfo
from typing import Any

from pydantic import JsonValue

from beamkeeper.domain.processing import (
    ACTIVE_ATTEMPTS,
    AttemptState,
    ChildProcess,
    JobRecord,
    StageOfJob,
    StageStatus,
)

OriginalRecord = dict[str, JsonValue]

NO_EXIT_STATUS = -1
"""The exit status of a child process that has none, since readers want a number: it never began, or nobody knows."""


def original_record(job: JobRecord, zone: tzinfo) -> OriginalRecord:
    """Return a job with the original's names; arguments and variables stand beside them, and never for one of them."""
    facts: OriginalRecord = {
        "id": str(job.uid),
        "owner": job.owner,
        "status": str(job.status),
        "stage": job.stage,
        "workflow": _workflow(job),
        "countFiles": job.count_files,
        "nCompletedChildProcesses": job.completed,
        "nFailedChildProcesses": job.failed,
        "errorMessage": job.message,
        **_times("submission", job.submitted_at, zone),
        **_times("start", job.started_at, zone),
        **_times("end", job.ended_at, zone),
    }
    if job.started_at and job.ended_at:
        facts["runTime"] = (job.ended_at - job.started_at).total_seconds()
    changed = {name: value for name, value in job.variables.items() if value != str(job.arguments.get(name, ""))}
    return {**job.variables, **job.arguments, **changed, **facts}


def _times(name: str, at: datetime | None, zone: tzinfo) -> OriginalRecord:
    """Return a time twice, for programs and for people; nothing where it has not come."""
    if at is None:
        return {}
    return {f"{name}Time": at.timestamp(), f"{name}Timestamp": at.astimezone(zone).strftime("%Y/%m/%d %H:%M:%S %Z")}


def _workflow(job: JobRecord) -> OriginalRecord:
    """Return the workflow as the job ran it, each stage with what came of it."""
    top: dict[str, Any] = dict(job.definition)
    stages: Mapping[str, Mapping[str, JsonValue]] = top.get("stages", {})
    begun = {stage.name: stage for stage in job.stages}
    return {
        **top,
        "id": None if job.workflow.uid is None else str(job.workflow.uid),
        "name": job.workflow.name,
        "owner": job.workflow.owner,
        "version": top.get("version") or str(job.workflow.version),
        "stages": {name: _stage(job, name, definition, begun.get(name)) for name, definition in stages.items()},
    }


def _stage(job: JobRecord, name: str, definition: Mapping[str, JsonValue], begun: StageOfJob | None) -> OriginalRecord:
    """Return a stage; its child processes are those that have ended, and those that run are counted."""
    children = [child for child in job.child_processes if child.stage == name]
    ended = [child for child in children if child.state not in ACTIVE_ATTEMPTS]
    facts: OriginalRecord = {} if begun is None else {"status": str(begun.status)}
    return {
        **definition,
        **facts,
        "childProcesses": {str(child.number): _child(child) for child in ended},
        "nRunningChildProcesses": len(children) - len(ended),
        "nQueuedChildProcesses": _queued(job, children, begun),
        "nCompletedChildProcesses": len(ended),
    }


def _queued(job: JobRecord, children: Iterable[ChildProcess], begun: StageOfJob | None) -> int:
    """Return how many files still wait for their child process in a stage that runs one for each."""
    files = {child.file for child in children} - {None}
    is_going_on = begun is not None and begun.status is StageStatus.RUNNING
    return job.count_files - len(files) if files and is_going_on else 0


def _child(child: ChildProcess) -> OriginalRecord:
    status = AttemptState.FAILED if child.state is AttemptState.UNKNOWN else child.state
    found: OriginalRecord = {
        "stageId": child.stage,
        "childProcessNumber": child.number,
        "command": child.command,
        "workingDir": child.working_dir,
        "userAccount": child.account,
        "status": str(status),
        "submitTime": child.submitted_at.timestamp(),
        "exitStatus": _exit_status(child),
        "stdOut": child.stdout,
        "stdErr": child.stderr or child.message,
    }
    for name, at in (("startTime", child.started_at), ("endTime", child.ended_at)):
        if at is not None:
            found[name] = at.timestamp()
    if child.run_time_s is not None:
        found["runTime"] = child.run_time_s
    return found


def _exit_status(child: ChildProcess) -> int:
    """Return a number in any case; a signal is its negative, as Python has it."""
    if child.exit_status is not None:
        return child.exit_status
    return NO_EXIT_STATUS if child.signal is None else -child.signal
