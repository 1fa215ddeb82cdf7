"""Submitting the jobs that the files of DAQs and uploads ask for, and hearing when they have ended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from beamkeeper.client import Client
from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.db.job_requests import ENDED, REFUSED, SUBMITTED, WAITING, JobRequest
from beamkeeper.domain.acquisition import ACTIVE
from beamkeeper.domain.errors import (
    ConflictError,
    DmError,
    InternalError,
    InvalidError,
    NotAuthenticatedError,
    NotFoundError,
    UnavailableError,
)
from beamkeeper.domain.processing import ENDED_JOBS, InputFileName, JobQuery, NewJob
from beamkeeper.domain.status import Service
from beamkeeper.domain.workflows.plans import MOST_PER_JOB
from beamkeeper.engine.scene import Scene
from beamkeeper.engine.worker import Loop, Report

AT_ONCE = 100
IDLE_S = 1.0
LOOK_S = 3.0
"""How often it is asked whether jobs have ended, which matters to those who wipe only."""

ASKED_ONE_BY_ONE = 20
"""Where very many jobs are active each is asked for, few at a time: files that come meanwhile wait for this."""

LATER = timedelta(seconds=5)
"""When what was refused for now is asked again."""


class SubmitLoop(Loop):
    """Submits jobs in the order in which their files came.

    The uid of a job is written down before it is submitted, and the same uid is the same job: a crash in between
    neither loses nor doubles one.
    """

    def __init__(self, database: Database[AcquisitionTransaction], client: Client, *, report: Report) -> None:
        super().__init__("submit", report=report, idle_s=IDLE_S)
        self._database = database
        self._client = client
        self._unlisten = database.listen(self.wake)
        self._waits = self._told = ""
        self._look_at = 0.0

    def step(self) -> bool:
        """Submit what is due, and look how the submitted jobs stand."""
        is_more = self._take_ready()
        self._group()
        with self._database.read() as tx:
            due = tx.job_requests.due(AT_ONCE)
            scenes = {uid: Scene.of(tx, uid) for uid in {one.acquisition_uid for one in due}}
            running = tx.job_requests.unended(AT_ONCE)
        if due or running:
            self._reach()
        if due:
            self._submit_all(due, scenes)
        if self._waits != self._told:
            self._told = self._waits
            self.warn(f"jobs wait: {self._waits}")
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_S
            self._look(running)
        return is_more or len(due) == AT_ONCE

    def ended(self) -> None:
        """Hear of no more files."""
        self._unlisten()

    def _reach(self) -> None:
        """Raise UnavailableError where the station has no processing service yet."""
        try:
            self._client.http(Service.PROCESSING)
        except NotFoundError as error:
            raise UnavailableError(error.message) from error

    def _take_ready(self) -> bool:
        """Note the files that are finished at the source, where jobs are wanted on those; whether there may be more.

        What becomes available before this has seen it is noted by that step.
        """
        most = 0
        with self._database.read() as tx:
            early = [one.uid for one in tx.acquisitions.active() if one.workflow and one.workflow.at == "ready"]
            found = {uid: tx.job_requests.unasked(uid, MOST_PER_JOB) for uid in early}
        for uid, files in found.items():
            if files:
                most = max(most, len(files))
                with self._database.write() as tx:
                    tx.job_requests.add(uid, Scene.of(tx, uid).wanted(files))
        return most == MOST_PER_JOB

    def _group(self) -> None:
        with self._database.read() as tx:
            plans = [(tx.acquisitions.get(uid), files) for uid, files in tx.job_requests.ungrouped().items()]
        for acquisition, files in plans:
            count = acquisition.workflow.count if acquisition.workflow else 1
            is_over = acquisition.state not in ACTIVE
            if not is_over and (count is None or files < count):
                continue
            with self._database.write() as tx:
                tx.job_requests.group(acquisition.uid, count or MOST_PER_JOB, with_rest=is_over)

    def _submit_all(self, due: Sequence[JobRequest], scenes: Mapping[UUID, Scene]) -> None:
        """Submit jobs by one request; where one is refused, each by its own, so that it keeps no other back."""
        try:
            jobs = [_job(request, scenes[request.acquisition_uid]) for request in due]
            self._client.jobs.submit_many(jobs)
        except (UnavailableError, NotAuthenticatedError):
            raise  # the service is away, or has not heard of the station's key: all wait
        except DmError:
            for request in due:
                self._submit(request, scenes[request.acquisition_uid])
        else:
            self._mark([request.job_uid for request in due], SUBMITTED)

    def _submit(self, request: JobRequest, scene: Scene) -> None:
        try:
            self._client.jobs.submit(_job(request, scene))
            self._mark([request.job_uid], SUBMITTED)
        except (UnavailableError, NotAuthenticatedError):
            raise  # the service is away, or has not heard of the station's key: all wait
        except (ConflictError, NotFoundError) as error:  # the queue is full; or it has not heard of a thing yet
            with self._database.write() as tx:
                tx.job_requests.mark([request.job_uid], WAITING, next_at=tx.now + LATER, message=error.message)
            self._waits = error.message
        except DmError as error:
            self._mark([request.job_uid], REFUSED, error.message)
            self.warn(f"no job for {scene.acquisition.kind} {scene.acquisition.uid}: {error.message}")

    def _look(self, running: Sequence[UUID]) -> None:
        if not running:
            return
        page = self._client.jobs.page(JobQuery(active=True, limit=1000))
        if page.next is None:  # what is not among the active ones has ended, or is deleted, which only such may be
            active = {job.uid for job in page.items}
            ended = [uid for uid in running if uid not in active]
        else:
            running = running[:ASKED_ONE_BY_ONE]
            ended = [uid for uid in running if self._has_ended(uid)]
        still = [uid for uid in running if uid not in ended]
        self._mark(ended, ENDED)
        self._mark(still, SUBMITTED)

    def _has_ended(self, uid: UUID) -> bool:
        try:
            return self._client.jobs.get(uid).status in ENDED_JOBS
        except NotFoundError:
            return True

    def _mark(self, uids: Sequence[UUID], state: str, message: str = "") -> None:
        if uids:
            with self._database.write() as tx:
                tx.job_requests.mark(uids, state, message=message)


def _job(request: JobRequest, scene: Scene) -> NewJob:
    plan = scene.acquisition.workflow
    if plan is None:
        raise InternalError(f"acquisition {scene.acquisition.uid} wants jobs without a workflow")
    root, is_early = scene.local_root, plan.at == "ready"
    names = [(_text(source), _text(path)) for source, path in zip(request.sources, request.paths, strict=True)]
    return NewJob(
        uid=request.job_uid,
        workflow=plan.workflow,
        workflow_owner=plan.owner,
        experiment_uid=scene.experiment.uid,
        arguments=plan.arguments,
        on_behalf_of=scene.acquisition.started_by,
        files=tuple(
            InputFileName(path=f"/{source}" if is_early else f"{root}/{below}", experiment_path=below)
            for source, below in names
        ),
    )


def _text(path: bytes) -> str:
    try:
        return path.decode()
    except UnicodeDecodeError as error:
        raise InvalidError(f"the name of {path!r} is not UTF-8, and jobs take only such: rename it") from error
