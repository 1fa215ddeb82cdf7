"""F30 and F31: SIGKILL at every fail point, in the middle of trouble, at the n-th call, and at any moment."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from beamkeeper.config.failpoints import FailPoint, TroublePoint
from beamkeeper.domain.acquisition import JournalState
from beamkeeper.testing.checker import Finding
from faults.lab import CannotInjectError, Lab, Trial

CHUNK = 64 * 1024 * 1024
SIZES = (0, 1, 65_535, 65_536, 65_537)
"""The sizes that are asked for; the long form adds one of several chunks."""

TIMES = {FailPoint.WATCH_READING: 5, FailPoint.COPYING: 2}
"""Fail points that are passed before there is anything to lose, and at which time it gets interesting."""


def armed(point: FailPoint, action: str = "kill") -> str:
    """Return what arms a fail point."""
    return f"{point}:{TIMES.get(point, 1)}:{action}"


@contextmanager
def watched(lab: Lab, name: str, seed: int) -> Iterator[Trial]:
    """Give a trial with one file that is stored already, so that its next version has one to replace."""
    trial = lab.trial(name, seed=seed)
    try:
        trial.begin()
        trial.writer.renamed(b"again.dat", random.Random(seed).randbytes(100))
        trial.await_available(1)
        yield trial
    finally:
        trial.close()


def feed(trial: Trial, number: int, rng: random.Random, sizes: Sequence[int] = SIZES) -> None:
    """Write what passes every fail point: files of many sizes, a new version, a link."""
    for size in sizes:
        trial.writer.renamed(b"life_%d/%d.dat" % (number, size), rng.randbytes(size))
    trial.writer.plain(b"life_%d/plain.dat" % number, rng.randbytes(1000))
    (trial.source / f"link_{number}").symlink_to("again.dat")
    trial.writer.renamed(b"again.dat", rng.randbytes(100 + number))


def kill_at_each(trial: Trial, points: Sequence[FailPoint], rng: random.Random) -> None:
    """Die at one fail point after the other; each life has to go on with what the one before left."""
    trial.lab.down()
    for number, point in enumerate(points):
        feed(trial, number, rng)
        trial.lab.launch(armed(point))
        assert trial.lab.await_death() == -signal.SIGKILL, point


def kill_at(trial: Trial, point: FailPoint, number: int, rng: random.Random, sizes: Sequence[int]) -> list[Finding]:
    """Die at one fail point, and recover."""
    trial.lab.down()
    feed(trial, number, rng, sizes)
    trial.lab.launch(armed(point))
    assert trial.lab.await_death() == -signal.SIGKILL, point
    return trial.settle()


def kill_in_trouble(trial: Trial, point: TroublePoint, number: int, rng: random.Random) -> list[Finding]:
    """Let something go wrong, die in the middle of coping with it, and recover."""
    die_in_trouble(trial, point, number, rng)
    return trial.settle()


def die_in_trouble(trial: Trial, point: TroublePoint, number: int, rng: random.Random) -> None:
    """Let something go wrong, and die in the middle of coping with it."""
    trial.lab.down()
    feed(trial, number, rng)
    if point is TroublePoint.PUBLISH_LOST:
        if not trial.shim.is_there:
            raise CannotInjectError("there is no C compiler")
        trial.shim.fail_syncs(1)
        die_at(trial, point)
    elif point is TroublePoint.STAGING_DISCARDED:
        die_at(trial, FailPoint.COPIED)
        die_at(trial, point)
    else:
        with storage_away(trial):
            die_at(trial, TroublePoint.AREA_PAUSED if point is TroublePoint.AREA_WORKS else point)
        if point is TroublePoint.AREA_WORKS:
            die_at(trial, point)


def die_at(trial: Trial, point: FailPoint | TroublePoint) -> None:
    """Start the services, and wait until they have died at a point."""
    trial.lab.launch(f"{point}:kill")
    assert trial.lab.await_death() == -signal.SIGKILL, point


@contextmanager
def storage_away(trial: Trial) -> Iterator[None]:
    """Let the experiment's directory be somewhere else meanwhile, as behind a mount that is missing."""
    away = trial.stored.with_name(trial.stored.name + "-away")
    trial.stored.rename(away)
    try:
        yield
    finally:
        away.rename(trial.stored)


def kill_at_call(trial: Trial, call: int, number: int, rng: random.Random) -> list[Finding]:
    """Die at the n-th call that changes a file system after new files are there, and recover."""
    trial.lab.up()
    trial.shim.kill_at(call)
    feed(trial, number, rng)
    trial.lab.await_death()
    return trial.settle()


def kill_anywhere(trial: Trial, number: int, rng: random.Random) -> list[Finding]:
    """Die at a moment of chance while a detector writes, and recover."""
    trial.lab.up()
    with trial.writing("rename", count=30, size=30_000, pause=0.01, seed=rng.randrange(2**31)) as process:
        time.sleep(rng.uniform(0.2, 1.2))
        trial.lab.down()
        process.wait(timeout=60)
    trial.writer.renamed(b"again.dat", rng.randbytes(100 + number))
    return trial.settle()


def has_delivered(trial: Trial) -> bool:
    """Whether anything is available at all: a trial that stored nothing has shown nothing."""
    return trial.daq.count(JournalState.AVAILABLE) > 0
