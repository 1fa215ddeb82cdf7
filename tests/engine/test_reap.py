"""The reaper: whose leases go to others, and when."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from beamkeeper.db.base import new_uid
from beamkeeper.db.journal import Seen
from beamkeeper.domain.acquisition import JournalState
from beamkeeper.domain.files import SourceIdentity
from beamkeeper.engine.processes import Process
from beamkeeper.engine.reap import ReapLoop
from beamkeeper.testing.beamline import Beamline, options

LEASE_S = 1.0


@pytest.fixture
def beamline(tmp_path: Path) -> Iterator[Beamline]:
    made = Beamline(f"sqlite:///{tmp_path / 'test.db'}", tmp_path / "storage")
    with made.database.write() as tx:
        uid = tx.acquisitions.add(made.experiment(), options()).uid
        identity = SourceIdentity(dev=1, ino=1, size=10, mtime_ns=0, ctime_ns=0)
        tx.journal.see(uid, [Seen(b"a", JournalState.READY, identity=identity)])
    yield made
    made.close()


@pytest.fixture
def reaper(beamline: Beamline) -> ReapLoop:
    made = ReapLoop(beamline.database, new_uid(), lease_s=LEASE_S, report=lambda _: None)
    made.register()
    return made


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def worker(beamline: Beamline, pid: int, *, host: str | None = None) -> UUID:
    """Write a process down as a worker that holds the file."""
    found = Process.of(pid)
    assert found is not None
    uid = new_uid()
    with beamline.database.write() as tx:
        tx.workers.add(
            uid, host=host or found.host, boot_id=found.boot_id, pid=found.pid, start_ticks=found.start_ticks
        )
        assert tx.journal.claim(uid, files=1, size=1) is not None
    return uid


def holders(beamline: Beamline) -> list[UUID]:
    with beamline.database.read() as tx:
        return tx.journal.owners()


def step_after(reaper: ReapLoop, pause_s: float) -> None:
    time.sleep(pause_s)
    reaper.step()


def test_what_a_dead_process_of_this_host_held_is_free_at_once(
    beamline: Beamline, reaper: ReapLoop, sleeper: subprocess.Popen[bytes]
) -> None:
    worker(beamline, sleeper.pid)
    reaper.step()
    assert len(holders(beamline)) == 1
    sleeper.kill()
    sleeper.wait()
    reaper.step()
    assert holders(beamline) == []


@pytest.mark.parametrize("host", [None, "another-host"])
def test_a_process_that_lives_and_says_nothing_for_a_lease_loses_what_it_held(
    beamline: Beamline, reaper: ReapLoop, sleeper: subprocess.Popen[bytes], host: str | None
) -> None:
    worker(beamline, sleeper.pid, host=host)
    reaper.step()
    step_after(reaper, 0.3 * LEASE_S)
    assert len(holders(beamline)) == 1
    step_after(reaper, 0.8 * LEASE_S)
    assert holders(beamline) == []


def test_a_process_that_beats_keeps_what_it_holds(
    beamline: Beamline, reaper: ReapLoop, sleeper: subprocess.Popen[bytes]
) -> None:
    uid = worker(beamline, sleeper.pid)
    for _ in range(4):
        with beamline.database.write() as tx:
            assert tx.workers.beat(uid)
        step_after(reaper, 0.4 * LEASE_S)
    assert holders(beamline) == [uid]


def test_who_was_taken_for_dead_writes_itself_down_again(beamline: Beamline, reaper: ReapLoop) -> None:
    other = ReapLoop(beamline.database, new_uid(), lease_s=LEASE_S, report=lambda _: None)
    other.register()
    with beamline.database.write() as tx:
        (uid,) = [w.uid for w in tx.workers.all() if w.pid == Process.this().pid][:1]
        tx.workers.remove(uid)
    reaper.step()
    other.step()
    with beamline.database.read() as tx:
        assert len(tx.workers.all()) == 2


def test_leases_of_nobody_who_is_written_down_are_freed_after_a_lease(beamline: Beamline, reaper: ReapLoop) -> None:
    """Its holder was taken for dead, went on to claim, and died before it could write itself down again."""
    with beamline.database.write() as tx:
        assert tx.journal.claim(new_uid(), files=1, size=1) is not None
    reaper.step()
    assert len(holders(beamline)) == 1
    step_after(reaper, 1.05 * LEASE_S)
    assert holders(beamline) == []
