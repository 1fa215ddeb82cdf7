"""Submitting the jobs that the files of DAQs and uploads ask for, and hearing when they have ended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from beamkeeper.client import Client
from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.db.job_requests import ENDED, REFUSED, SUBMITTED, WAITING, JobRequest
from beamkeeper.db.news import Topic
from beamkeeper.domain.errors import (
    ConflictError,
    DmError,
    InternalError,
    InvalidError,
    NotAuthenticatedError,
    NotFoundError,
    UnavailableError,
)
from beamkeeper.domain.processing import ENDED_JOBS, MOST_FILES, InputFileName, JobQuery, NewJob
from beamkeeper.domain.status import Service
from beamkeeper.engine.grouping import Grouping
from beamkeeper.engine.scene import Scene
from beamkeeper.engine.worker import Loop, Report

AT_ONCE, MOST_AT_READY = 100, 1000
IDLE_S = 1.0
GROUPS_S = 2.0
"""How often the catalogue is asked which runs have stopped and which datasets are frozen."""

LOOK_S = 3.0
"""How often it is asked whether jobs have ended, which matters to those who wipe only."""

GATHER_S = 0.5
"""So long at most files wait that jobs have still to be found for, while others have theirs and are submitted."""

ASKED_ONE_BY_ONE = 20
"""Where very many jobs are active each is asked for, few at a time."""

LATER = timedelta(seconds=5)
"""When what was refused for now is asked again."""


class SubmitLoop(Loop):
    """Submits jobs in the order in which their files came.

    The uid of a job is written down before it is submitted, and the same uid is the same job: a crash in between
    neither loses nor doubles one.
    """

    quiet_s = 4.0

    def __init__(
        self, database: Database[AcquisitionTransaction], client: Client, *, report: Report, look_s: float = GROUPS_S
    ) -> None:
        super().__init__("submit", report=report, idle_s=IDLE_S)
        self._database = database
        self._client = client
        self._grouping = Grouping(database, client, look_s)
        self._unlisten = database.listen(self.wake, Topic.WANTED_JOBS)
        self._waits = self._told = ""
        self._gather_at = 0.0

    def step(self) -> bool:
        """Submit what is due: jobs that are there go before files for which jobs have still to be found."""
        due, scenes = self._due() if time.monotonic() < self._gather_at else ((), {})
        is_more = bool(due)
        if not due:
            self._gather_at = time.monotonic() + GATHER_S
            is_more = self._take_ready()
            self._group()
            due, scenes = self._due()
        if due:
            reach(self._client)
            self._submit_all(due, scenes)
        if self._waits != self._told:
            self._told = self._waits
            self.warn(f"jobs wait: {self._waits}")
        return is_more or len(due) == AT_ONCE

    def _due(self) -> tuple[Sequence[JobRequest], Mapping[UUID, Scene]]:
        """Return jobs that are to be submitted now, and what they belong to."""
        with self._database.read() as tx:
            due = tx.job_requests.due(AT_ONCE)
            return due, {uid: Scene.of(tx, uid) for uid in {one.acquisition_uid for one in due}}

    def ended(self) -> None:
        """Hear of no more files."""
        self._unlisten()

    def _take_ready(self) -> bool:
        """Note the files that are finished at the source, where jobs are wanted on those; whether there may be more.

        What becomes available before this has seen it is noted by that step.
        """
        most = 0
        with self._database.read() as tx:
            early = [(one, one.workflow) for one in tx.acquisitions.active() if one.workflow]
            found = {
                one.uid: tx.job_requests.unasked(one.uid, MOST_AT_READY, again=plan.again)
                for one, plan in early
                if plan.at == "ready"
            }
        for uid, files in found.items():
            if files:
                most = max(most, len(files))
                with self._database.write() as tx:
                    tx.job_requests.add(uid, Scene.of(tx, uid).wanted(files))
        return most == MOST_AT_READY

    def _group(self) -> None:
        """Give files to jobs; where the catalogue cannot be asked about runs and datasets, those wait."""
        try:
            self._grouping.step()
        except UnavailableError as error:
            self._waits = error.message

    def _submit_all(self, due: Sequence[JobRequest], scenes: Mapping[UUID, Scene]) -> None:
        """Submit jobs by one request; where one is refused, each by its own, so that it keeps no other back."""
        while sum(len(request.paths) for request in due) > MOST_FILES and len(due) > 1:
            self._submit_all(due[: len(due) // 2], scenes)
            due = due[len(due) // 2 :]
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

    def _mark(self, uids: Sequence[UUID], state: str, message: str = "") -> None:
        if uids:
            with self._database.write() as tx:
                tx.job_requests.mark(uids, state, message=message)


class JobEndsLoop(Loop):
    """Asks which jobs have ended, beside those that are submitted meanwhile: where many are active it takes long."""

    def __init__(self, database: Database[AcquisitionTransaction], client: Client, *, report: Report) -> None:
        super().__init__("ends of jobs", report=report, idle_s=LOOK_S)
        self._database = database
        self._client = client

    def step(self) -> bool:
        """Look how jobs stand that were submitted."""
        with self._database.read() as tx:
            running = tx.job_requests.unended(AT_ONCE)
        if running:
            reach(self._client)
            self._look(running)
        return False

    def _look(self, running: Sequence[UUID]) -> None:
        page = self._client.jobs.page(JobQuery(active=True, limit=1000))
        if page.next is None:  # what is not among the active ones has ended, or is deleted, which only such may be
            active = {job.uid for job in page.items}
            ended = [uid for uid in running if uid not in active]
        else:
            running = running[:ASKED_ONE_BY_ONE]
            ended = [uid for uid in running if self._has_ended(uid)]
        still = [uid for uid in running if uid not in ended]
        with self._database.write() as tx:
            for uids, state in ((ended, ENDED), (still, SUBMITTED)):
                if uids:
                    tx.job_requests.mark(uids, state)

    def _has_ended(self, uid: UUID) -> bool:
        try:
            return self._client.jobs.get(uid).status in ENDED_JOBS
        except NotFoundError:
            return True


def reach(client: Client) -> None:
    """Raise UnavailableError where the station has no processing service yet."""
    try:
        client.http(Service.PROCESSING)
    except NotFoundError as error:
        raise UnavailableError(error.message) from error


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
        run_uid=request.run_uid,
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
