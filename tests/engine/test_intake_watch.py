"""An intake loses nothing when its watch loses count, dies, cannot be had, or tells nothing (F01 to F05, F09)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beamkeeper.config import failpoints
from beamkeeper.domain.acquisition import CANARY_PREFIX, JournalState
from beamkeeper.domain.problems import ProblemKind
from beamkeeper.engine import intake, scan
from beamkeeper.engine.intake import SCANS_APART_S, Rules
from beamkeeper.engine.scan import Listing
from beamkeeper.engine.watch import News, Watch
from beamkeeper.testing.intakes import QUICK, Watched, watched
from beamkeeper.testing.station import until

J = JournalState
QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may shorten the kernel's queue")


def begun_with_short_queue(made: Watched) -> None:
    before = QUEUE.read_text()
    QUEUE.write_text("16")  # copied into the instance as it is made: put back at once
    try:
        made.begun()
    finally:
        QUEUE.write_text(before)


@only_root
def test_f01_what_the_kernels_queue_lost_is_found_by_a_scan_and_told(tmp_path: Path) -> None:
    with Watched(tmp_path) as made:
        begun_with_short_queue(made)
        for number in range(1500):
            (made.directory / f"{number}.tif").touch()
        made.awaits_problem(ProblemKind.QUEUE_OVERFLOW)
        made.awaits_count(1500)
        until(lambda: made.acquisition.message == "", "the message to be taken back", 10)


@only_root
def test_f02_overflows_while_everything_is_scanned_give_few_scans(tmp_path: Path) -> None:
    with Watched(tmp_path) as made:
        begun_with_short_queue(made)
        began = time.monotonic()
        for number in range(3000):
            (made.directory / f"{number}.tif").touch()
            time.sleep(0.0003)
        made.awaits_count(3000)
        assert made.intake.scans <= 2 + (time.monotonic() - began) / SCANS_APART_S


def test_f02_hints_that_are_lost_behind_a_scan_give_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue runs over while everything is scanned, with news of a directory that was scanned already."""
    told, walked, take = [False, False], [b""], Watch.take

    def walk(*given: Any) -> Iterator[Listing]:
        for listing in scan.walk(*given):
            walked.append(listing.directory)
            yield listing

    def lossy(watch: Watch) -> News:
        news = take(watch)
        news.files.pop(b"a/late.tif", None)
        if not told[0] or (walked[-1] == b"b" and not told[1]):
            if told[0]:
                told[1] = True
                (tmp_path / "det/a/late.tif").write_bytes(b"x")
            told[0] = True
            return News(is_dirty=True, is_overflow=True)
        return news

    for name in ("a", "b"):
        (tmp_path / "det" / name).mkdir(parents=True)
    with Watched(tmp_path) as made:
        made.begun()
        monkeypatch.setattr(intake, "BREATH_S", -1.0)
        monkeypatch.setattr(intake, "walk", walk)
        monkeypatch.setattr(Watch, "take", lossy)
        made.intake.wake()
        until(lambda: told[1], "the second time that hints are lost")
        made.awaits(b"a/late.tif", J.READY)


def test_f04_directories_that_appear_with_their_files_lose_nothing(tmp_path: Path) -> None:
    with watched(tmp_path) as made:
        for number in range(60):
            below = made.directory / f"{number}/b/c/d/e"
            below.mkdir(parents=True)
            (below / "a.tif").write_bytes(b"x")
        made.awaits_count(60)


def test_f05_what_nobody_tells_of_is_found_within_two_scans(tmp_path: Path) -> None:
    with Watched(tmp_path, Rules(quiet_s=0.1, scan_interval_s=6.0), poll=True) as made:
        made.begun()
        assert "it is not watched, and scanned every 1 s" in made.acquisition.policy
        (made.directory / "a.tif").write_bytes(b"x")
        made.awaits(b"a.tif", J.READY, timeout_s=4)


def test_polling_can_be_asked_for_in_the_settings_too(tmp_path: Path) -> None:
    with watched(tmp_path, Rules(quiet_s=0.1, scan_interval_s=6.0, is_polled=True)) as made:
        assert "it is not watched" in made.acquisition.policy


def test_f09_a_reader_that_dies_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    with watched(tmp_path) as made:
        (made.directory / "below").mkdir()
        failpoints.arm("watch-reading:raise")
        try:
            problem = made.awaits_problem(ProblemKind.WATCH_RESTARTED)
        finally:
            failpoints.arm("")
        assert "the reader of the watch has ended" in problem.message
        assert (problem.experiment, problem.directory) == ("coffee", str(made.directory))
        (made.directory / "below" / "a.tif").write_bytes(b"x")
        made.awaits(b"below/a.tif", J.READY)
        until(lambda: made.acquisition.message == "", "the message to be taken back", 10)


def test_canaries_are_never_taken_for_files(tmp_path: Path) -> None:
    with watched(tmp_path, Rules(quiet_s=0.0, scan_interval_s=0.1, canary_s=0.05)) as made:
        (made.directory / f"{CANARY_PREFIX}of-another-daq").touch()
        (made.directory / "a.tif").touch()
        made.awaits(b"a.tif", J.READY)
        time.sleep(0.5)
        assert list(made.entries()) == [b"a.tif"]
        assert made.problems == []


def test_where_no_canary_can_be_written_scans_come_often_and_the_policy_says_so(tmp_path: Path) -> None:
    with Watched(tmp_path, Rules(quiet_s=0.1, scan_interval_s=12.0)) as made:
        (made.directory / f"{CANARY_PREFIX}{made.uid}").mkdir()  # for root too, its name is taken
        made.begun()
        policy = made.acquisition.policy
        assert policy.endswith(
            "scanned every 2 s as nothing may be written there, so that nothing proves its watch alive"
        )
        (made.directory / "a.tif").write_bytes(b"x")
        made.awaits(b"a.tif", J.READY, timeout_s=5)


def test_an_intake_without_news_rests(tmp_path: Path) -> None:
    with watched(tmp_path, QUICK) as made:
        made.awaits_count(0)
        before = time.process_time()
        time.sleep(1.0)
        assert time.process_time() - before < 0.3
