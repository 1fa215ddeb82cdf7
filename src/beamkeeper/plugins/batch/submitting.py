"""Submitting to a batch system so that a job with one key is there once, whatever its scheduler says."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from beamkeeper.domain.errors import ConflictError, InvalidError, UnavailableError
from beamkeeper.plugins.batch.jobs import MARK, BatchJob, Handle, Scheduler, ask

AGAIN_S = 5.0
"""So long after a failure it is looked for once more: a scheduler may take a while to show what it has taken."""

KEEP_S = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that is at its scheduler."""

    handle: Handle
    is_found: bool = False
    """It was there before: a try before this one submitted it, and it is not submitted again."""
    cancelled: Sequence[str] = ()
    """Ids of doubles, which the scheduler had taken as well and which were ended."""


def key_of(argv: Sequence[str], command: str) -> str:
    """Return the key of a submission: the same in every try of one command of a job, otherwise a new one."""
    if not command:
        return secrets.token_hex(8)
    return blake2b("\0".join([command, *argv]).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def submit(
    scheduler: Scheduler,
    argv: Sequence[str],
    key: str,
    *,
    patience_s: float,
    tell: Callable[[str], None],
    again_s: float = AGAIN_S,
) -> Submission:
    """Submit, unless a job with this key is there; return it.

    A scheduler that does not answer is waited for: UnavailableError after `patience_s`. InvalidError where it
    answers, and has no such job.
    """
    marked = scheduler.marked(argv, key)
    seeker = _Seeker(scheduler, _name_in(scheduler, marked, key), key, time.monotonic() + patience_s, tell, again_s)
    if found := seeker.look():
        return seeker.adopt(found)
    while True:
        complaint = ""
        try:
            ran = ask(marked, without=scheduler.kept_back)
            id_ = scheduler.id_in(ran.stdout) if not ran.returncode else None
            if id_ is not None:
                return seeker.settle(id_)
            complaint = (ran.stderr or ran.stdout).strip()
        except UnavailableError as error:
            complaint = error.message
        # It may have been taken all the same: only a scheduler that answers, and goes on to have none, has not.
        was_down = seeker.is_down()
        found = seeker.look() or seeker.look_later()
        if found:
            return seeker.adopt(found)
        if not was_down:
            raise InvalidError(f"{os.path.basename(argv[0])}: {complaint or 'it printed no job id'}")
        tell(f"{scheduler.name} answers again and has no such job: it is submitted again")


@dataclass(slots=True)
class _Seeker:
    """Looks for the jobs of one key."""

    scheduler: Scheduler
    name: str
    key: str
    deadline: float
    tell: Callable[[str], None]
    again_s: float

    def is_down(self) -> bool:
        """Whether the scheduler does not answer just now."""
        try:
            self.scheduler.queue()
        except UnavailableError:
            return True
        return False

    def look(self) -> list[BatchJob]:
        """Return the jobs, as soon as the scheduler answers."""
        is_told = False
        while True:
            try:
                return self.scheduler.find(self.name)
            except UnavailableError as error:
                if time.monotonic() > self.deadline:
                    raise
                if not is_told:
                    self.tell(f"waiting for {self.scheduler.name}: {error.message}")
                is_told = True
                time.sleep(min(self.again_s, max(0.1, self.deadline - time.monotonic())))

    def look_later(self) -> list[BatchJob]:
        """Look once more after a while."""
        time.sleep(self.again_s)
        return self.look()

    def settle(self, id_: str) -> Submission:
        """Return a job that the scheduler says it has taken, once no double of it is left."""
        try:
            found = self.scheduler.find(self.name)
        except UnavailableError:
            found = []
        return Submission(self._handle(id_), cancelled=self._end_doubles(id_, found))

    def adopt(self, found: Sequence[BatchJob]) -> Submission:
        """Return the oldest of the jobs that are there."""
        first = min(found, key=lambda job: int(job.id))
        return Submission(self._handle(first.id), is_found=True, cancelled=self._end_doubles(first.id, found))

    def _handle(self, id_: str) -> Handle:
        return Handle(self.scheduler.name, id_, self.key)

    def _end_doubles(self, keep: str, found: Sequence[BatchJob]) -> list[str]:
        doubles = sorted({job.id for job in found if job.id != keep and not job.state.has_ended}, key=int)
        for id_ in doubles:
            self.scheduler.cancel(self._handle(id_), self.name)
        return doubles


def _name_in(scheduler: Scheduler, marked: Sequence[str], key: str) -> str:
    """Return the name that a marked command gives its job."""
    ending = f"{MARK}{key}"
    found = next(word for word in marked if word.endswith(ending))
    return found.removeprefix("--job-name=")


class Once:
    """Remembers what one attempt has submitted, since the same command twice in it has the same key."""

    def __init__(self, directory: Path, attempt: str) -> None:
        self._directory, self._attempt = directory / "submitted", attempt

    def check(self, key: str) -> None:
        """Refuse a submission that this attempt has made already."""
        if self._attempt and (self._directory / f"{self._attempt}.{key}").exists():
            raise ConflictError("this attempt has submitted the very same command before: give each a --key of its own")

    def note(self, key: str) -> None:
        """Take note of a submission, and forget old ones."""
        if not self._attempt:
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._directory / f"{self._attempt}.{key}").touch(mode=0o600)
        before = time.time() - KEEP_S
        for path in self._directory.iterdir():
            with suppress(FileNotFoundError):  # others who submit forget the same ones
                if path.stat().st_mtime < before:
                    path.unlink()
