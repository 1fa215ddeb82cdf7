"""The writer's own word: files that are announced, or that a sentinel speaks of, are finished at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from beamkeeper.domain.acquisition import JournalState
from beamkeeper.engine.intake import Rules
from beamkeeper.testing.intakes import Watched, watched
from beamkeeper.testing.station import until

J = JournalState
PATIENT = Rules(quiet_s=600.0, scan_interval_s=600.0, canary_s=600.0)
"""Nothing counts as finished but by somebody's word."""


def stays(made: Watched, path: bytes, state: JournalState, seconds: float = 0.4) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert made.state(path) is state
        time.sleep(0.05)


def test_an_announced_file_is_ready_at_once_and_others_wait(tmp_path: Path) -> None:
    with watched(tmp_path, PATIENT) as made:
        for name in ("a.tif", "b.tif"):
            (made.directory / name).write_bytes(b"frame")
        made.awaits(b"a.tif", J.CANDIDATE)
        made.announce(b"a.tif")
        made.awaits(b"a.tif", J.READY)
        stays(made, b"b.tif", J.CANDIDATE)
        until(lambda: not made.announced(), "the announcement to be done with")


def test_a_file_may_be_announced_before_it_is_there(tmp_path: Path) -> None:
    with watched(tmp_path, PATIENT) as made:
        made.announce(b"deep/later.tif")
        time.sleep(0.2)
        assert made.announced() == [b"deep/later.tif"]
        (made.directory / "deep").mkdir()
        (made.directory / "deep" / "later.tif").write_bytes(b"frame")
        made.awaits(b"deep/later.tif", J.READY)


def test_an_announcement_outlives_the_service(tmp_path: Path) -> None:
    with watched(tmp_path, PATIENT) as made:
        made.stop()
        (made.directory / "a.tif").write_bytes(b"frame")
        with made.database.write() as tx:
            tx.announcements.add(made.uid, [b"a.tif"])
        made.start()
        made.awaits(b"a.tif", J.READY)
        until(lambda: not made.announced(), "the announcement to be done with")


def test_an_announced_file_that_somebody_has_open_waits_for_them(tmp_path: Path) -> None:
    with watched(tmp_path, PATIENT) as made:
        with (made.directory / "a.dat").open("wb") as file:
            file.write(b"first part")
            file.flush()
            made.announce(b"a.dat")
            made.awaits(b"a.dat", J.GROWING)
            stays(made, b"a.dat", J.GROWING, 1.0)
        # It was announced in the state in which it still is: closing it is all that was waited for.
        made.awaits(b"a.dat", J.READY, timeout_s=20)


def test_a_temporary_name_counts_where_its_writer_announces_it(tmp_path: Path) -> None:
    with watched(tmp_path, PATIENT) as made:
        (made.directory / "scan.tmp").write_bytes(b"frame")
        made.awaits(b"scan.tmp", J.CANDIDATE)
        made.announce(b"scan.tmp")
        made.awaits(b"scan.tmp", J.READY)


def test_what_is_excluded_stays_so_though_it_is_announced(tmp_path: Path) -> None:
    with watched(tmp_path, PATIENT, exclude=("*.log",)) as made:
        made.announce(b"a.log")
        (made.directory / "a.log").write_bytes(b"text")
        assert made.awaits(b"a.log", J.SKIPPED).reason_code == "excluded"
        until(lambda: not made.announced(), "the announcement to be done with")


def test_announcing_a_directory_speaks_of_all_that_is_in_it_now(tmp_path: Path) -> None:
    with watched(tmp_path, PATIENT) as made:
        (made.directory / "scan" / "deep").mkdir(parents=True)
        for name in ("scan/a.tif", "scan/deep/b.tif", "c.tif"):
            (made.directory / name).write_bytes(b"frame")
        made.announce(b"scan")
        made.awaits(b"scan/a.tif", J.READY)
        made.awaits(b"scan/deep/b.tif", J.READY)
        until(lambda: not made.announced(), "the announcement to be done with")
        (made.directory / "scan" / "late.tif").write_bytes(b"frame")
        made.awaits(b"scan/late.tif", J.CANDIDATE)
        stays(made, b"scan/late.tif", J.CANDIDATE)
        assert made.state(b"c.tif") is J.CANDIDATE


def test_a_change_after_the_announcement_is_not_covered_by_it(tmp_path: Path) -> None:
    with watched(tmp_path, PATIENT) as made:
        (made.directory / "a.tif").write_bytes(b"frame")
        made.announce(b"a.tif")
        made.awaits(b"a.tif", J.READY)
        assert made.deliver() == 1
        (made.directory / "a.tif").write_bytes(b"another frame")
        made.awaits(b"a.tif", J.CANDIDATE)
        stays(made, b"a.tif", J.CANDIDATE)


def test_what_was_announced_and_never_came_is_listed_at_the_end(tmp_path: Path) -> None:
    with watched(tmp_path) as made:
        made.announce(b"never.tif")
        made.drained()
        entry = made.awaits(b"never.tif", J.VANISHED)
        assert entry.reason_code == "announced"


def test_a_sentinel_finishes_what_it_speaks_of_and_is_kept_itself(tmp_path: Path) -> None:
    rules = Rules(quiet_s=1.0, scan_interval_s=600.0, canary_s=600.0)
    with watched(tmp_path, rules, sentinel="*.done", quiet_s=600.0) as made:
        (made.directory / "scan_1").mkdir()
        for name in ("scan_1.h5", "scan_1/a.tif", "scan_2.h5"):
            (made.directory / name).write_bytes(b"frame")
        made.awaits(b"scan_2.h5", J.CANDIDATE)
        (made.directory / "scan_1.done").touch()
        made.awaits(b"scan_1.h5", J.READY)
        made.awaits(b"scan_1/a.tif", J.READY)
        stays(made, b"scan_2.h5", J.CANDIDATE)
        assert made.awaits(b"scan_1.done", J.CANDIDATE, J.READY)
        assert 'named by a sentinel "*.done"' in made.acquisition.policy


@pytest.mark.parametrize("was_watched", [True, False])
def test_a_sentinel_is_heeded_whether_it_is_told_of_or_found_by_a_scan(tmp_path: Path, was_watched: bool) -> None:
    with Watched(tmp_path, PATIENT, sentinel="FINISHED") as made:
        if was_watched:
            made.begun()
        (made.directory / "d" / "e").mkdir(parents=True)
        (made.directory / "d" / "e" / "a.tif").write_bytes(b"frame")
        (made.directory / "d" / "FINISHED").touch()
        if not was_watched:
            made.begun()
        made.awaits(b"d/e/a.tif", J.READY)


def test_an_announcement_that_is_repeated_after_a_change_counts_again(tmp_path: Path) -> None:
    with watched(tmp_path, PATIENT) as made:
        with (made.directory / "a.dat").open("wb", buffering=0) as file:
            file.write(b"first part")
            made.announce(b"a.dat")
            made.awaits(b"a.dat", J.GROWING)
            file.write(b" and more")
            time.sleep(0.3)
        stays(made, b"a.dat", J.GROWING)
        made.announce(b"a.dat")
        assert made.awaits(b"a.dat", J.READY).size == len(b"first part and more")
