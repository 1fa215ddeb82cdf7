"""The watched directory may go, come back, be moved, replaced or unmounted: nothing in it is deleted by that (F07)."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import apart
import pytest

from beamkeeper.domain.acquisition import JournalState
from beamkeeper.domain.problems import ProblemKind
from beamkeeper.engine.intake import Rules
from beamkeeper.testing.intakes import Watched, watched
from beamkeeper.testing.station import until

J = JournalState
APART = ["unshare", "--user", "--map-root-user", "--mount", "--propagation", "private"]
UNFINISHED = Rules(quiet_s=600.0, scan_interval_s=0.2, canary_s=600.0)


def may_be_apart() -> bool:
    try:
        return subprocess.run([*APART, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not may_be_apart(), reason="this kernel lets nobody have mounts of their own")
@pytest.mark.parametrize("case", sorted(apart.CASES))
def test_apart(case: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [*APART, sys.executable, "-W", "error", apart.__file__, case, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def test_a_directory_that_is_moved_away_and_back_loses_nothing(tmp_path: Path) -> None:
    with watched(tmp_path, UNFINISHED) as made:
        (made.directory / "a.tif").write_bytes(b"frame")
        made.awaits(b"a.tif", J.CANDIDATE)
        made.directory.rename(tmp_path / "away")
        until(lambda: "it is not there" in made.acquisition.message, "the message", 10)
        time.sleep(0.5)
        assert made.state(b"a.tif") is J.CANDIDATE
        assert made.awaits_problem(ProblemKind.DIRECTORY_UNAVAILABLE).message == made.acquisition.message
        (tmp_path / "away" / "b.tif").write_bytes(b"frame")
        (tmp_path / "away").rename(made.directory)
        made.awaits(b"b.tif", J.CANDIDATE)
        made.awaits_problem(ProblemKind.DIRECTORY_BACK)
        assert made.state(b"a.tif") is J.CANDIDATE
        assert made.acquisition.message == ""
        # The watch is a new one: what happens now is told.
        (made.directory / "c.tif").write_bytes(b"frame")
        made.awaits(b"c.tif", J.CANDIDATE)


def test_a_directory_that_is_replaced_is_watched_and_what_went_with_the_old_one_is_listed_at_the_end(
    tmp_path: Path,
) -> None:
    with watched(tmp_path, UNFINISHED) as made:
        (made.directory / "old.tif").write_bytes(b"frame")
        made.awaits(b"old.tif", J.CANDIDATE)
        made.directory.rename(tmp_path / "away")
        made.directory.mkdir()
        (made.directory / "new.tif").write_bytes(b"frame")
        made.awaits(b"new.tif", J.CANDIDATE)
        made.awaits_problem(ProblemKind.DIRECTORY_REPLACED)
        assert "another directory stands in the place" in made.acquisition.message
        time.sleep(0.5)
        assert made.state(b"old.tif") is J.CANDIDATE
        made.announce(b"new.tif")
        made.drained()
        assert made.state(b"new.tif") is J.READY
        assert "in the place of" in made.awaits(b"old.tif", J.VANISHED).reason


def test_what_a_worker_does_not_find_is_gone_only_if_the_directory_is_there(tmp_path: Path) -> None:
    with watched(tmp_path, Rules(quiet_s=0.1, scan_interval_s=600.0)) as made:
        for name in ("kept.tif", "removed.tif"):
            (made.directory / name).write_bytes(b"frame")
        made.awaits_count(2)
        made.stop()
        made.directory.rename(tmp_path / "away")
        made.start()
        until(lambda: "it is not there" in made.acquisition.message, "the message", 10)
        give_back_all(made)
        time.sleep(0.3)
        assert {entry.state for entry in made.entries().values()} == {J.CANDIDATE}
        (tmp_path / "away" / "removed.tif").unlink()
        (tmp_path / "away").rename(made.directory)
        made.awaits(b"kept.tif", J.READY)
        made.awaits(b"removed.tif", J.VANISHED)


def give_back_all(made: Watched) -> None:
    """Say of everything that is ready that it was not found, as a worker does."""
    with made.database.write() as tx:
        batch = tx.journal.claim(made.uid, files=100, size=10**9)
        assert batch is not None
        tx.journal.step(batch, J.CANDIDATE, {file.id: {"attempts": 1} for file in batch.files}, free=True)
    made.intake.give_back([file.path for file in batch.files])


def test_a_daq_that_waits_for_its_directory_begins_when_it_is_there(tmp_path: Path) -> None:
    with Watched(tmp_path, Rules(quiet_s=0.1, scan_interval_s=600.0)) as made:
        made.directory.rmdir()
        made.start()
        until(lambda: "waits for its directory" in made.acquisition.message, "the message", 10)
        assert made.problems == []
        made.directory.mkdir()
        (made.directory / "a.tif").write_bytes(b"frame")
        made.awaits(b"a.tif", J.READY)
        assert made.acquisition.message == ""


def test_a_daq_that_waits_for_its_directory_can_be_ended(tmp_path: Path) -> None:
    with Watched(tmp_path) as made:
        made.directory.rmdir()
        made.start()
        made.drained()
        assert made.entries() == {}
