"""Jobs: submitting them, following them, and reading what they wrote."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from uuid6 import uuid7

from beamkeeper.client.http import Http
from beamkeeper.domain.errors import UnavailableError
from beamkeeper.domain.job_record import OriginalRecord
from beamkeeper.domain.names import Uid
from beamkeeper.domain.processing import (
    Count,
    Job,
    JobPage,
    JobQuery,
    JobRecord,
    JobSelection,
    LogPiece,
    LogQuery,
    NewJob,
    NewJobs,
    ProcessingInfo,
    Rerun,
)

PAGE = 500
WAIT_S = 20.0
PATIENCE_S = 60.0
"""So long a wait goes on while the service does not answer: it may be starting again."""


class Jobs:
    """Executions of workflows."""

    path = "/api/v1/jobs"

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def submit(self, new: NewJob) -> Job:
        """Submit a job; it is taken when this returns, whatever dies after that."""
        return self.submit_many([new])[0]

    def submit_many(self, new: Sequence[NewJob]) -> Sequence[Job]:
        """Submit jobs, all of them or none."""
        named = [one if one.uid is not None else one.model_copy(update={"uid": _new_uid()}) for one in new]
        body = NewJobs.model_construct(jobs=tuple(named))
        taken: Sequence[Job] = self._http().call("POST", self.path, tuple[Job, ...], body=body)
        return taken

    def get(self, uid: Uid, wait_s: float = 0.0) -> Job:
        """Return how a job stands, waiting so long for its end."""
        query = {"wait": wait_s}
        found: Job = self._http().get(f"{self.path}/{uid}", Job, query=query, timeout_s=wait_s + 30)
        return found

    def record(self, uid: Uid) -> JobRecord:
        """Return a job with its stages and child processes."""
        found: JobRecord = self._http().get(f"{self.path}/{uid}/record", JobRecord)
        return found

    def original(self, uid: Uid) -> OriginalRecord:
        """Return a job in the words of the original, for programs that were written for it."""
        found: OriginalRecord = self._http().get(f"{self.path}/{uid}/original", OriginalRecord)
        return found

    def wait(self, uid: Uid, timeout_s: float | None = None) -> Job:
        """Return a job when it has ended, done or failed or stopped; after `timeout_s`, as it stands.

        Goes on while the service is started again.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        patience_ends = time.monotonic() + PATIENCE_S
        while True:
            left = WAIT_S if deadline is None else max(0.0, min(WAIT_S, deadline - time.monotonic()))
            try:
                job = self.get(uid, left)
            except UnavailableError:
                if time.monotonic() > patience_ends:
                    raise
                time.sleep(0.5)
                continue
            patience_ends = time.monotonic() + PATIENCE_S
            if job.has_ended or (deadline is not None and time.monotonic() >= deadline):
                return job

    def list(self, **wanted: Any) -> Iterator[Job]:
        """Yield jobs, newest first: by status, active, workflow, owner, experiment_uid, run_uid, file, since, until."""
        after: str | None = None
        while True:
            page = self.page(JobQuery(**wanted, after=after, limit=PAGE))
            yield from reversed(page.items)
            if (after := page.next) is None:
                return

    def page(self, query: JobQuery) -> JobPage:
        """Return some jobs, newest last; the cursor leads to older ones."""
        found: JobPage = self._http().get(self.path, JobPage, query=query)
        return found

    def log(self, uid: Uid, number: int, query: LogQuery | None = None) -> LogPiece:
        """Return a piece of what a child process wrote."""
        asked = query or LogQuery()
        path = f"{self.path}/{uid}/log/{number}"
        found: LogPiece = self._http().get(path, LogPiece, query=asked, timeout_s=asked.wait + 30)
        return found

    def stop(self, *uids: Uid, **wanted: Any) -> int:
        """Stop jobs, by uid or all that fit; returns how many."""
        selection = JobSelection(uids=uids, **wanted)
        done: Count = self._http().call("POST", f"{self.path}:stop", Count, body=selection)
        return done.jobs

    def delete(self, *uids: Uid, **wanted: Any) -> int:
        """Forget jobs that have ended; returns how many."""
        selection = JobSelection(uids=uids, **wanted)
        done: Count = self._http().call("POST", f"{self.path}:delete", Count, body=selection)
        return done.jobs

    def retry(self, *uids: Uid, **wanted: Any) -> Sequence[Job]:
        """Run failed jobs again, by uid or all that fit; returns the new ones."""
        selection = JobSelection(uids=uids, **wanted)
        made: Sequence[Job] = self._http().call("POST", f"{self.path}:retry", tuple[Job, ...], body=selection)
        return made

    def rerun(self, uid: Uid, arguments: Mapping[str, Any] | None = None, *, newest: bool = False) -> Job:
        """Run a job again, as it was or with other arguments."""
        body = Rerun(uid=_new_uid(), arguments=dict(arguments or {}), newest=newest)
        made: Job = self._http().call("POST", f"{self.path}/{uid}:rerun", Job, body=body)
        return made

    def info(self) -> ProcessingInfo:
        """Return how commands run at the station."""
        found: ProcessingInfo = self._http().get("/api/v1/processing", ProcessingInfo)
        return found


def _new_uid() -> UUID:
    return UUID(bytes=uuid7().bytes)
