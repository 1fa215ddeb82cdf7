"""Jobs of batch systems: what names one for ever, which states it has, and what is asked of a scheduler."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import Protocol, Self

from beamkeeper.domain.errors import InvalidError, UnavailableError

MARK = ".bk-"
"""Stands between a job's own name and its key, in the name by which the scheduler knows it."""

ATTEMPT = "BEAMKEEPER_ATTEMPT"
"""By it the processes of an attempt are found and ended: a batch job is none of them, wherever it runs."""

ACTS_BY = "BEAMKEEPER_TOKEN"

ANSWER_S = 120.0
"""A scheduler that says nothing for so long does not answer."""

_KEY = re.compile(r"[A-Za-z0-9_-]{1,40}")
_HANDLE = re.compile(r"([a-z]+):(\d{1,18}):([A-Za-z0-9_-]{1,40})")


class BatchState(StrEnum):
    """Where a job of a batch system is, in the words of no scheduler."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self not in (BatchState.WAITING, BatchState.RUNNING)


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A job as its scheduler tells of it; one of several rows where it is an array."""

    id: str
    name: str
    state: BatchState
    exit_status: int = 0
    word: str = ""
    """The scheduler's own word for its state."""

    @property
    def key(self) -> str:
        """The key in its name; empty where it was not submitted by us."""
        return self.name.rpartition(MARK)[2] if MARK in self.name else ""


@dataclass(frozen=True, slots=True)
class Handle:
    """What names a job for ever: schedulers give their numbers again, but no other job has this key."""

    scheduler: str
    id: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `dm batch submit` printed."""
        found = _HANDLE.fullmatch(text.strip())
        if not found:
            raise InvalidError(f'"{text}" names no batch job: give what `dm batch submit` printed, SCHEDULER:ID:KEY')
        return cls(*found.groups())

    def __str__(self) -> str:
        return f"{self.scheduler}:{self.id}:{self.key}"

    def of(self, rows: Iterable[BatchJob]) -> list[BatchJob]:
        """Return the rows that are of this job; another one with the same number has another name."""
        return [row for row in rows if row.id == self.id and row.key == self.key]


class Scheduler(Protocol):
    """A batch system, asked as the user who runs us.

    Everything raises UnavailableError where it does not answer: then nothing is known, and nothing may be concluded.
    """

    name: str
    kept_back: Sequence[str]
    """Variables of a command's environment that a job does not get when the command submits it."""

    def marked(self, argv: Sequence[str], key: str) -> list[str]:
        """Return a command that submits so that the job has the key in its name, and its id is printed plainly."""
        ...

    def id_in(self, output: str) -> str | None:
        """Return the id that such a command printed."""
        ...

    def queue(self) -> list[BatchJob]:
        """Return all jobs of this user that it has in hand, by one question."""
        ...

    def accounts(self, jobs: Sequence[Handle]) -> list[BatchJob]:
        """Return what is known of jobs that it has in hand no more."""
        ...

    def find(self, name: str) -> list[BatchJob]:
        """Return all jobs of this name of the last month, in hand or not."""
        ...

    def cancel(self, job: Handle, name: str) -> None:
        """End a job, if it has this name; one that has ended already is no error."""
        ...


_SUBMITTERS = {
    "sbatch": "beamkeeper.plugins.batch.slurm:Slurm",
    "qsub": "beamkeeper.plugins.batch.grid_engine:GridEngine",
}
_NAMES = {"slurm": "sbatch", "sge": "qsub"}


def scheduler_of(word: str) -> Scheduler:
    """Return the batch system of a name, or of the command that submits to it."""
    command = _NAMES.get(word, os.path.basename(word))
    if command not in _SUBMITTERS:
        raise InvalidError(f'"{word}" submits to no batch system that is known here: use sbatch or qsub')
    module, _, attribute = _SUBMITTERS[command].partition(":")
    made: Scheduler = getattr(import_module(module), attribute)()
    return made


def name_of(own: str, key: str) -> str:
    """Return the name of a job with its key; refuse a key that no scheduler would keep."""
    if not _KEY.fullmatch(key):
        raise InvalidError(f'"{key}" cannot be a key: use up to 40 letters, digits, - and _')
    return f"{re.sub(r'[^A-Za-z0-9._-]', '_', own)[:60].lstrip('-._0123456789') or 'job'}{MARK}{key}"


def ask(argv: Sequence[str], *, without: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Ask a scheduler; UnavailableError where it does not answer in time, InvalidError where its command is not here.

    `without` are variables of our environment that it does not get.
    """
    told = {name: value for name, value in os.environ.items() if name not in without}
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=ANSWER_S, check=False, env=told
        )
    except FileNotFoundError:
        raise InvalidError(f"there is no {argv[0]} here: run this where jobs are submitted") from None
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{argv[0]} has said nothing for {ANSWER_S:g} s") from None


def silent(argv: Sequence[str], said: str) -> UnavailableError:
    """Return the error for a scheduler that does not answer."""
    last = said.strip().splitlines()[-1:] or ["it says nothing"]
    return UnavailableError(f"{argv[0]}: {last[0]}")
