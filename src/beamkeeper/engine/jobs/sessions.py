"""Under what the commands of jobs act: a session of each job's own, from the storage, that ends with the job."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol
from uuid import UUID

from beamkeeper.client import Client
from beamkeeper.domain.errors import DmError, NotFoundError, NotPermittedError
from beamkeeper.domain.users import NewJobSession
from beamkeeper.domain.users.jobs import MOST_AT_ONCE
from beamkeeper.engine.jobs.plan import JobRun
from beamkeeper.engine.worker import Report

RENEW_S = 12 * 3600.0
"""A token older than this is not given to a command that begins: half of what it lives at most."""

PAUSE_S = 10.0
"""How long the storage service is not asked again where it did not answer: commands begin without a token then."""

END_EVERY_S = 0.5


class OwnedJob(Protocol):
    """A job as far as its token depends on it."""

    @property
    def uid(self) -> UUID:
        """Which it is."""
        ...

    @property
    def owner(self) -> str:
        """Whose it is."""
        ...

    @property
    def experiment_uid(self) -> UUID | None:
        """What its token is limited to; without it, there is none."""
        ...


class JobSessions:
    """The sessions of the jobs in hand. Tokens are in memory only, and in the environment of what runs."""

    def __init__(self, client: Client, environment: Mapping[str, str], *, report: Report) -> None:
        self._client = client
        self._environment = dict(environment)
        self._report = report
        self._tokens: dict[UUID, tuple[str, float]] = {}
        self._ended: dict[UUID, None] = {}
        self._not_before = self._ended_at = 0.0

    def begin(self, jobs: Sequence[OwnedJob]) -> None:
        """Get a token for each job of an experiment that has none; without an answer they go without."""
        now = time.monotonic()
        wanted = {
            job.uid: NewJobSession(job_uid=job.uid, username=job.owner, experiment_uid=job.experiment_uid)
            for job in jobs
            if job.experiment_uid is not None and self.is_wanted(job)
        }
        if not wanted or now < self._not_before:
            return
        try:
            self._ask(list(wanted.values())[:MOST_AT_ONCE], list(self._ended)[:MOST_AT_ONCE])
        except (NotFoundError, NotPermittedError) as error:
            self._report(f"a job begins without a token: {error.message}")
        except DmError as error:
            self._not_before = now + PAUSE_S
            self._report(f"jobs begin without a token while the storage service does not answer: {error.message}")

    def is_wanted(self, job: OwnedJob) -> bool:
        """Whether a job is to have a token, and has none that is fresh."""
        return job.experiment_uid is not None and not job.owner.startswith("station ") and not self._is_fresh(job.uid)

    def _ask(self, jobs: Sequence[NewJobSession], ended: Sequence[UUID] = ()) -> None:
        """Ask for tokens, and let others end; where one is refused, which refuses all, for each token alone."""
        try:
            made = self._client.sessions.begin_for_jobs(jobs, ended=ended)
        except (NotFoundError, NotPermittedError):
            if len(jobs) == 1 and not ended:
                raise
            for job in jobs:
                with suppress(NotFoundError, NotPermittedError):
                    self._ask([job])
            return
        for one in made:
            self._tokens[one.job_uid] = (one.token, time.monotonic())
        self._ended_at = time.monotonic()
        for uid in ended:
            del self._ended[uid]

    def into(self, order: Mapping[str, Any], run: JobRun) -> Mapping[str, Any]:
        """Return what a runner is told, with the token of its job, which behind a door goes by input as well."""
        found = self._tokens.get(run.uid)
        if found is None:
            return order
        own = {**self._environment, "BEAMKEEPER_TOKEN": found[0], "BEAMKEEPER_MIRROR": self._client.credentials.mirror}
        own["BEAMKEEPER_EXPERIMENT"] = run.experiment
        return {
            **order,
            "environment": {**order["environment"], **own},
            "secrets": [*order["secrets"], found[0]],
        }

    def end(self, jobs: Sequence[OwnedJob]) -> None:
        """Let the sessions of jobs end, also those that a process before this one began."""
        for job in jobs:
            self._tokens.pop(job.uid, None)
            if job.experiment_uid is not None:
                self._ended[job.uid] = None

    def end_unused(self, job_uids: Iterable[UUID]) -> None:
        """Let the sessions end of jobs that ended before they began."""
        for uid in job_uids:
            if self._tokens.pop(uid, None) is not None:
                self._ended[uid] = None

    def end_before(self, job_uids: Sequence[UUID]) -> None:
        """Let the sessions end of jobs that had ended as a service before this one died, which may not have said so."""
        self._ended.update(dict.fromkeys(job_uids))

    def flush(self, *, is_last: bool = False) -> None:
        """Tell the storage service which sessions end, many at once; where it is away, later."""
        now = time.monotonic()
        if not self._ended or (now < max(self._ended_at + END_EVERY_S, self._not_before) and not is_last):
            return
        some = list(self._ended)[:MOST_AT_ONCE]
        self._ended_at = now
        try:
            self._client.sessions.end_of_jobs(some)
        except DmError as error:
            self._not_before = now + PAUSE_S
            self._report(f"the sessions of {len(some)} jobs that ended are not ended yet: {error.message}")
            return
        for uid in some:
            del self._ended[uid]

    def _is_fresh(self, uid: UUID) -> bool:
        found = self._tokens.get(uid)
        return found is not None and time.monotonic() - found[1] < RENEW_S
