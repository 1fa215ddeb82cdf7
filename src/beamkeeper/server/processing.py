"""Jobs over HTTP."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Annotated
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Path, Query, Request

from beamkeeper.core import job_logs
from beamkeeper.core import processing as core
from beamkeeper.core.processing import JobRules
from beamkeeper.db import ProcessingTransaction
from beamkeeper.domain.job_record import OriginalRecord, original_record
from beamkeeper.domain.processing import (
    Count,
    Job,
    JobPage,
    JobQuery,
    JobRecord,
    JobSelection,
    LogPiece,
    LogQuery,
    NewJobs,
    ProcessingInfo,
    Rerun,
)
from beamkeeper.domain.users import Caller
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import Ctx, ProcessingTx, ProcessingWriteTx, Who, writing
from beamkeeper.server.waiting import wait_for

router = APIRouter(route_class=StrictRoute, tags=["jobs"])

JOB_WAIT_S = 60.0


async def _rules(ctx: Ctx) -> JobRules:
    return JobRules.of(ctx.settings)


RulesHere = Annotated[JobRules, Depends(_rules)]
Wait = Annotated[float, Query(ge=0, le=JOB_WAIT_S, description="Seconds to wait for the end.")]


@router.post("/jobs", status_code=201, summary="Submit jobs, all of them or none")
def submit(new: NewJobs, request: Request, who: Who, rules: RulesHere) -> Sequence[Job]:
    """For people of an experiment on its files, for managers of the station on any. The same uid is the same job."""
    with writing(request) as tx:
        return core.submit(tx, who, new.jobs, rules=rules)


@router.get("/jobs", summary="Jobs, newest last")
def list_jobs(query: Annotated[JobQuery, Query()], tx: ProcessingTx, who: Who) -> JobPage:
    """Those of experiments that the caller may see; `after` leads to older ones."""
    return core.list_(tx, who, query)


@router.get("/jobs/{uid}", summary="How a job stands")
async def show(*, uid: UUID, request: Request, who: Who, rules: RulesHere, wait: Wait = 0.0) -> Job:
    """Small, so that it may be asked often; with `wait` it is answered when the job has ended, however."""

    def look(tx: ProcessingTransaction, who: Caller) -> Job:
        return core.show(tx, who, uid, rules=rules)

    return await wait_for(request, look, lambda job: job.has_ended, wait_s=wait)


@router.get("/jobs/{uid}/record", summary="A job with its stages and child processes")
def record(uid: UUID, tx: ProcessingTx, who: Who, rules: RulesHere) -> JobRecord:
    """With the beginning and end of what each child process wrote."""
    return job_logs.with_output(core.record(tx, who, uid, rules=rules), rules.work)


@router.get("/jobs/{uid}/original", summary="A job in the words of the original")
def original(uid: UUID, tx: ProcessingTx, who: Who, rules: RulesHere, ctx: Ctx) -> OriginalRecord:
    """What programs written for it read: names in camel case, arguments and variables beside them, times twice."""
    found = job_logs.with_output(core.record(tx, who, uid, rules=rules), rules.work)
    return original_record(found, ZoneInfo(ctx.settings.station.timezone))


@router.get("/jobs/{uid}/log/{number}", summary="What a child process wrote")
async def log(
    uid: UUID,
    number: Annotated[int, Path(ge=1, le=2**31)],
    query: Annotated[LogQuery, Query()],
    *,
    request: Request,
    who: Who,
    rules: RulesHere,
) -> LogPiece:
    """A piece from an offset on, also while it runs; with `wait` it is answered when there is more."""

    def look(tx: ProcessingTransaction, who: Caller) -> LogPiece:
        return job_logs.piece(tx, who, uid, number, query=query, rules=rules)

    return await wait_for(request, look, lambda piece: bool(piece.text) or piece.is_end, wait_s=query.wait, step_s=0.2)


@router.post("/jobs:stop", summary="Stop jobs")
def stop(selection: JobSelection, tx: ProcessingWriteTx, who: Who, rules: RulesHere) -> Count:
    """Those that wait end at once; those that run are ended with all that they have started."""
    return core.stop(tx, who, selection, rules=rules)


@router.post("/jobs:retry", summary="Run failed jobs again", status_code=201)
def retry(selection: JobSelection, tx: ProcessingWriteTx, who: Who, rules: RulesHere) -> Sequence[Job]:
    """Those of a selection that failed or were stopped: by their cause, for example."""
    return core.retry(tx, who, selection, rules=rules)


@router.post("/jobs:delete", summary="Forget jobs that have ended")
def delete(selection: JobSelection, ctx: Ctx, who: Who, rules: RulesHere) -> Count:
    """With what they wrote; files that they stored elsewhere stay."""
    with ctx.database.write() as tx:
        removed = core.delete(tx, who, selection, rules=rules)
    for uid in removed:
        shutil.rmtree(rules.work / str(uid), ignore_errors=True)
    return Count(jobs=len(removed))


@router.post("/jobs/{uid}:rerun", status_code=201, summary="Run a job again")
def rerun(uid: UUID, new: Rerun, tx: ProcessingWriteTx, who: Who, rules: RulesHere) -> Job:
    """As it was, or with other arguments, or with the newest version of its workflow."""
    return core.rerun(tx, who, uid, new, rules=rules)


@router.get("/processing", summary="How commands run here")
def info(ctx: Ctx, tx: ProcessingTx, who: Who) -> ProcessingInfo:
    """Under which account, how many at once, and which accounts workflows may name."""
    return job_logs.info(tx, ctx.settings)
