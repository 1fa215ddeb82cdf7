"""Waiting for jobs of a batch system: whoever waits on this host shares the answer to one question."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

from beamkeeper.domain.errors import ConflictError, NotFoundError, UnavailableError
from beamkeeper.plugins.batch.jobs import BatchJob, BatchState, Handle, Scheduler

LOST_S = 600.0
"""A job that its scheduler has not shown for so long, neither in hand nor in its accounts, is given up."""

_TELLS = ("SLURM_CONF", "SGE_ROOT", "SGE_CELL", "SGE_QMASTER_PORT")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a scheduler said of all jobs of a user at one time."""

    at: float
    rows: Sequence[BatchJob] = ()
    fault: str = ""


class Board:
    """The last answer of a scheduler, which processes of this user on this host share."""

    def __init__(self, scheduler: Scheduler, directory: Path, every_s: float) -> None:
        told = "\0".join(os.environ.get(name, "") for name in _TELLS)
        which = blake2b(told.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
        self.scheduler = scheduler
        self._every_s = every_s
        self._directory = directory
        self._path = directory / f"{scheduler.name}-{which}@{socket.gethostname()}"

    def look(self) -> Snapshot:
        """Return an answer that is not older than the interval: somebody's, or a new one."""
        with self._lock():
            found = self._read()
            age = time.time() - found.at
            if not 0 <= age < self._every_s:
                found = self._ask()
                self._write(found)
        return found

    def _ask(self) -> Snapshot:
        at = time.time()  # before the question: what is submitted meanwhile may be missing in the answer
        try:
            return Snapshot(at, self.scheduler.queue())
        except UnavailableError as error:
            return Snapshot(at, fault=error.message)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> Snapshot:
        try:
            found = json.loads(self._path.read_bytes())
            rows = [BatchJob(**{**row, "state": BatchState(row["state"])}) for row in found["rows"]]
            return Snapshot(found["at"], rows, found["fault"])
        except (OSError, ValueError, KeyError, TypeError):
            return Snapshot(0.0)

    def _write(self, found: Snapshot) -> None:
        content = {"at": found.at, "rows": [asdict(row) for row in found.rows], "fault": found.fault}
        new = self._path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(content))
        new.rename(self._path)


def wait(
    board: Board,
    jobs: Sequence[Handle],
    *,
    every_s: float,
    timeout_s: float | None,
    tell: Callable[[str], None],
    lost_s: float = LOST_S,
) -> Mapping[Handle, BatchJob]:
    """Return what became of jobs when all have ended. A scheduler that does not answer is waited for.

    TimeoutError after `timeout_s`; NotFoundError for a job that its scheduler has not known for `lost_s`.
    """
    ended: dict[Handle, BatchJob] = {}
    begun = time.monotonic()
    missing_since: dict[Handle, float] = {}
    is_told = False
    while True:
        found = board.look()
        if found.fault and not is_told:
            tell(f"waiting for {board.scheduler.name}: {found.fault}")
        is_told = bool(found.fault)
        if not found.fault:
            open_ = [job for job in jobs if job not in ended]
            ended |= _ended(board.scheduler, open_, found.rows, missing_since)
            _give_up(missing_since, ended, lost_s)
        if len(ended) == len(set(jobs)):
            return ended
        if timeout_s is not None and time.monotonic() - begun > timeout_s:
            raise TimeoutError
        time.sleep(every_s)


def _ended(
    scheduler: Scheduler, jobs: Sequence[Handle], rows: Sequence[BatchJob], missing_since: dict[Handle, float]
) -> dict[Handle, BatchJob]:
    """Return those that have ended: as the scheduler has them in hand, and the others by its accounts."""
    told = {job: job.of(rows) for job in jobs}
    gone = [job for job, own in told.items() if not own]
    if gone:
        try:
            accounts = scheduler.accounts(gone)
        except UnavailableError:
            accounts = []
        else:
            for job in gone:
                missing_since.setdefault(job, time.monotonic())
        told |= {job: job.of(accounts) for job in gone}
    for job, own in told.items():
        if own:
            missing_since.pop(job, None)
    return {job: _worst(own) for job, own in told.items() if own and all(row.state.has_ended for row in own)}


def _worst(rows: Sequence[BatchJob]) -> BatchJob:
    """Return the row that tells of a whole array: one that did not end well, if there is one."""
    return next((row for row in rows if row.state is not BatchState.DONE), rows[0])


def _give_up(missing_since: Mapping[Handle, float], ended: Mapping[Handle, BatchJob], lost_s: float) -> None:
    for job, since in missing_since.items():
        if job not in ended and time.monotonic() - since > lost_s:
            raise NotFoundError(
                f"{job.scheduler} has not known {job} for {lost_s:g} s, neither in its queue nor in its accounts: "
                "what became of it is unknown"
            )


def cancel(scheduler: Scheduler, job: Handle) -> BatchJob:
    """End a job; ConflictError where its number is another job's by now."""
    rows = scheduler.queue()
    own = job.of(rows)
    if own:
        scheduler.cancel(job, own[0].name)
        return own[0]
    own = job.of(scheduler.accounts([job]))
    if own:
        return _worst(own)
    if any(row.id == job.id for row in rows):
        raise ConflictError(f"{job.scheduler}:{job.id} is another job by now: {job} ended long ago")
    raise NotFoundError(f"{job.scheduler} knows no {job}")
