"""Jobs: what ran and runs, the timeline of one, what its commands wrote; stopping, trying again and rerunning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.processing import ACTIVE_JOBS, ChildProcess, Job, JobQuery, JobStatus, LogQuery
from beamkeeper.domain.users import Action, Target
from beamkeeper.portal import drawing
from beamkeeper.portal.routes import listing, post
from beamkeeper.portal.tables import Column, Rows, Table
from beamkeeper.portal.visits import Visit, whole

PAGE = 50
MOST = 1000
LOG_BYTES = 100_000


def took(one: Any) -> float | None:
    """Return how long a job, stage or command ran, in seconds."""
    if one.started_at is None or one.ended_at is None:
        return None
    seconds: float = (one.ended_at - one.started_at).total_seconds()
    return seconds


COLUMNS: Sequence[Column[Job]] = (
    Column("number", "Job", lambda one: one.number, "count", lambda one: f"/jobs/{one.uid}"),
    Column("workflow", "Workflow", lambda one: one.workflow.name),
    Column("status", "Status", lambda one: one.status, "state"),
    Column("stage", "Stage", lambda one: one.stage),
    Column("owner", "Of", lambda one: one.owner),
    Column("files", "Files", lambda one: one.count_files, "count"),
    Column("submitted_at", "Submitted", lambda one: one.submitted_at, "time"),
    Column("run_time", "Took", took, "duration"),
    Column("message", "Message", lambda one: one.message),
    Column("uid", "Uid", lambda one: one.uid, "uid"),
)


def list_(visit: Visit) -> Response:
    """List jobs, newest first."""
    status = visit.query.get("status", "")
    if status not in ("", "active", *JobStatus):
        raise InvalidError(f'"{status[:40]}" is no status of a job: use {", ".join(JobStatus)}')
    query = JobQuery(
        status=JobStatus(status) if status in tuple(JobStatus) else None,
        active=True if status == "active" else None,
        workflow=visit.query.get("workflow") or None,
        owner=visit.query.get("owner") or None,
        limit=visit.number("limit", PAGE, MOST) if visit.path == "/jobs" else MOST,
    )

    def read(after: str | None) -> Rows[Job]:
        page = visit.client.jobs.page(query.model_copy(update={"after": after}))
        return Rows(page.items[::-1], page.next)

    empty = "No job matches." if status or query.workflow or query.owner else "No job has run yet: run a workflow."
    return Table("jobs", COLUMNS, read, empty).answer(visit, "jobs/list.html", statuses=list(JobStatus))


def retry(visit: Visit) -> Response:
    """Run again what failed: of a workflow, or all that one may."""
    workflow = visit.form.get("workflow")
    visit.client.jobs.retry(status=JobStatus.FAILED, workflow=workflow, everything=workflow is None)
    return visit.go("/jobs", status="active")


CHILDREN: Sequence[Column[ChildProcess]] = (
    Column("number", "Process", lambda one: one.number, "count"),
    Column("stage", "Stage", lambda one: one.stage),
    Column("state", "State", lambda one: one.state, "state"),
    Column("command", "Command", lambda one: one.command, "code"),
    Column("exit_status", "Exit", lambda one: one.exit_status, "count"),
    Column("host", "Host", lambda one: one.host),
    Column("run_time", "Took", lambda one: one.run_time_s, "duration"),
    Column("message", "Message", lambda one: one.message),
)


def show(visit: Visit) -> Response:
    """Show a job with its timeline and what its commands wrote."""
    job = visit.client.jobs.record(visit.uid())
    is_active = job.status in ACTIVE_JOBS
    number = _which(visit, [child.number for child in job.child_processes])
    values: dict[str, Any] = {
        "job": job,
        "is_active": is_active,
        "timeline": drawing.timeline(job),
        "may_run": _may_run(visit, job),
        "number": number,
        "stream": _stream(visit),
        "took": took(job),
    }
    if "hx-request" in visit.request.headers:
        if not is_active:  # what is offered changes with the end
            return Response(headers={"HX-Refresh": "true"})
        return visit.page("jobs/part.html", log=_log(visit, job, number), **values)
    table = Table(f"job-{job.number}", CHILDREN, lambda after: Rows(job.child_processes), "No command has begun yet.")
    return table.answer(visit, "jobs/show.html", log=_log(visit, job, number), **values)


def _may_run(visit: Visit, job: Job) -> bool:
    if job.owner == visit.caller.username:
        return True
    station = next(
        (one for one in visit.client.stations.list() if one.name == visit.portal.settings.station.name), None
    )
    return station is not None and visit.may(Action.JOB_ANYWHERE, Target(station_uid=station.uid))


def _which(visit: Visit, numbers: Sequence[int]) -> int | None:
    wanted = whole(visit.query.get("process", ""))
    return wanted if wanted in numbers else max(numbers, default=None)


def _stream(visit: Visit) -> str:
    return "stderr" if visit.query.get("stream") == "stderr" else "stdout"


def _log(visit: Visit, job: Job, number: int | None) -> str:
    if number is None:
        return ""
    query = LogQuery.model_validate({"stream": _stream(visit), "offset": -LOG_BYTES, "limit": LOG_BYTES})
    return visit.client.jobs.log(job.uid, number, query).text


def stop(visit: Visit) -> Response:
    """Stop a job."""
    visit.client.jobs.stop(visit.uid())
    return visit.go(f"/jobs/{visit.uid()}")


def rerun(visit: Visit) -> Response:
    """Run a job again, as it was or with the newest version of its workflow."""
    made = visit.client.jobs.rerun(visit.uid(), newest=visit.form.get("newest") == "yes")
    return visit.go(f"/jobs/{made.uid}")


ROUTES = (
    *listing("/jobs", list_),
    post("/jobs/retry", retry),
    *listing("/jobs/{uid}", show),
    post("/jobs/{uid}/stop", stop),
    post("/jobs/{uid}/rerun", rerun),
)
