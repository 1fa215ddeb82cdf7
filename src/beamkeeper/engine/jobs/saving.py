"""What is written down of jobs: rows for the database, and events for who follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from beamkeeper.db.processing.engine import HeldJob
from beamkeeper.domain.events import NewEvent
from beamkeeper.domain.processing import JobStatus
from beamkeeper.engine.jobs.plan import JobRun
from beamkeeper.engine.jobs.stages import Ended

if TYPE_CHECKING:
    from beamkeeper.engine.jobs.loop import Under

IN_EVENT = 200
"""Jobs that one event tells of at most."""

SHOWN = 20_000
"""Characters of a command that are kept for people."""


def attempt_row(under: Under, here: Mapping[str, str]) -> dict[str, Any]:
    """Return the row of an attempt that is about to begin."""
    return {
        "uid": under.uid,
        "job_id": under.run.id,
        "number": under.number,
        "stage": under.launch.stage,
        "file": under.launch.command.file,
        "repeat": under.launch.repeat,
        "try_number": under.launch.try_number,
        "command": under.launch.command.shown[:SHOWN],
        "working_dir": under.order["cwd"],
        "account": under.order["account"],
        "environment": under.order["told_environment"],
        **here,
    }


def ended_row(uid: UUID, found: Ended, result: Mapping[str, Any] | None, now: datetime) -> dict[str, Any]:
    """Return what is written of an attempt that is over."""
    result = result or {}
    started, run_time_s = result.get("started_at"), result.get("run_time_s")
    started_at = None if started is None else datetime.fromtimestamp(started, tz=UTC)
    return {
        "uid": uid,
        "state": str(found.state),
        "started_at": started_at,
        "ended_at": now if started_at is None else started_at + timedelta(seconds=run_time_s or 0),
        "run_time_s": run_time_s,
        "exit_status": found.exit_status,
        "signal": result.get("signal"),
        "cause": None if found.cause is None else str(found.cause),
        "message": found.message,
        "left_behind": result.get("left_behind", 0),
    }


def stage_row(run: JobRun, name: str) -> dict[str, Any]:
    """Return the row of a stage."""
    stage = run.stages[name]
    return {
        "job_id": run.id,
        "name": name,
        "status": str(stage.status),
        "repeats": stage.repeats,
        "message": stage.message,
        "cause": None if stage.cause is None else str(stage.cause),
        "started_at": stage.started_at,
        "ended_at": stage.ended_at,
    }


def job_row(run: JobRun, now: datetime) -> dict[str, Any]:
    """Return what is written of a job."""
    return {
        "id": run.id,
        "status": str(run.status),
        "variables": dict(run.variables),
        "stage": run.stage,
        "completed": run.completed,
        "failed": run.failed,
        "message": run.message,
        "cause": None if run.cause is None or run.status is JobStatus.DONE else str(run.cause),
        "ended_at": now if run.has_ended else None,
    }


def events_of(changed: Sequence[tuple[HeldJob, JobStatus]]) -> list[NewEvent]:
    """Return the events that tell of jobs, few for many of them."""
    by_experiment: dict[UUID | None, list[dict[str, Any]]] = {}
    for held, status in changed:
        facts = {"uid": str(held.uid), "status": str(status), "workflow": held.workflow_name, "owner": held.owner}
        by_experiment.setdefault(held.experiment_uid, []).append(facts)
    return [
        NewEvent(kind="job.changed", experiment_uid=experiment, data={"jobs": jobs[start : start + IN_EVENT]})
        for experiment, jobs in by_experiment.items()
        for start in range(0, len(jobs), IN_EVENT)
    ]
