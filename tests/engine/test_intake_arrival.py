"""When a real intake calls a file finished, and what becomes of odd ones (F06, F10 to F14, F16, F17, F19, F20, F23)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

from beamkeeper.domain.acquisition import UNFINISHED, JournalState
from beamkeeper.domain.problems import ProblemKind
from beamkeeper.engine.intake import Rules
from beamkeeper.engine.scan import AT_ONCE
from beamkeeper.testing.intakes import QUICK, Watched, uploaded, watched
from beamkeeper.testing.station import until

J = JournalState
WRITER = (
    "import sys; f = open(sys.argv[1], 'ab'); f.write(b'frame'); f.flush(); print('open', flush=True); sys.stdin.read()"
)


@contextmanager
def writing(path: Path, code: str = WRITER) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold a file open for writing."""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        if process.poll() is None:
            process.kill()


def stays(made: Watched, path: bytes, *states: JournalState, seconds: float = 1.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert made.state(path) in states
        time.sleep(0.05)


def test_f11_a_writer_that_stands_still_is_waited_for(tmp_path: Path) -> None:
    with watched(tmp_path) as made, writing(made.directory / "a.dat") as writer:
        made.awaits(b"a.dat", J.GROWING)
        writer.send_signal(signal.SIGSTOP)
        stays(made, b"a.dat", J.GROWING)
        writer.send_signal(signal.SIGCONT)
        assert writer.stdin is not None
        writer.stdin.close()
        made.awaits(b"a.dat", J.READY)


def test_f10_what_a_killed_writer_left_is_taken_after_the_quiet_period(tmp_path: Path) -> None:
    with watched(tmp_path, Rules(quiet_s=3.0, scan_interval_s=600.0)) as made:
        with writing(made.directory / "a.dat") as writer:
            writer.kill()
        made.awaits(b"a.dat", J.CANDIDATE)
        stays(made, b"a.dat", J.CANDIDATE)
        assert not made.awaits(b"a.dat", J.READY).is_snapshot


def test_f12_the_second_of_two_writers_is_waited_for(tmp_path: Path) -> None:
    with watched(tmp_path) as made, (made.directory / "a.dat").open("wb", buffering=0) as last:
        with (made.directory / "a.dat").open("ab", buffering=0) as first:
            first.write(b"first")
        made.awaits(b"a.dat", J.GROWING)
        last.write(b"last!")
        stays(made, b"a.dat", J.GROWING)
        last.close()
        assert made.awaits(b"a.dat", J.READY).size == 5


def test_f13_an_hdf5_file_that_is_written_in_swmr_mode_grows(tmp_path: Path) -> None:
    with watched(tmp_path) as made:
        with h5py.File(made.directory / "a.h5", "w", libver="latest") as file:
            frames = file.create_dataset("frames", (0, 8), maxshape=(None, 8), dtype="u2")
            file.swmr_mode = True
            for count in range(1, 4):
                frames.resize((count, 8))
                frames.flush()
                time.sleep(0.1)
            made.awaits(b"a.h5", J.GROWING)
            stays(made, b"a.h5", J.GROWING, seconds=0.5)
        assert not made.awaits(b"a.h5", J.READY).is_snapshot


@pytest.mark.parametrize(
    ("libver", "cut"), [("latest", 0), ("latest", 100), ("earliest", 100)], ids=["F10 flag", "F10 short", "F14"]
)
def test_hdf5_files_of_killed_writers_are_waited_for_and_then_kept_as_what_they_are(
    tmp_path: Path, libver: str, cut: int
) -> None:
    path = tmp_path / "whole.h5"
    with h5py.File(path, "w", libver=libver) as file:
        file["frames"] = np.arange(1000)
    content = bytearray(path.read_bytes())
    if cut:
        del content[-cut:]
    else:
        content[11] |= 1  # as a writer leaves it that is killed
    with watched(tmp_path) as made:
        (made.directory / "a.h5").write_bytes(content)
        began = time.monotonic()
        entry = made.awaits(b"a.h5", J.READY)
        assert time.monotonic() - began >= 5 * QUICK.quiet_s * 0.9
        assert entry.is_snapshot
        told = made.awaits_problem(ProblemKind.FILES_UNFINISHED)
        assert (told.paths, "its format calls it unfinished" in told.message) == (("a.h5",), True)
        assert made.deliver() == 1
        with made.database.read() as tx:
            assert [(t.state, t.reason_code) for t in tx.journal.tallies(made.uid)] == [(J.AVAILABLE, UNFINISHED)]


def test_a_closed_hdf5_file_is_taken_at_once(tmp_path: Path) -> None:
    with watched(tmp_path, Rules(quiet_s=600.0, scan_interval_s=600.0)) as made:
        with h5py.File(made.directory / "a.h5", "w", libver="latest") as file:
            file["frames"] = np.arange(1000)
        made.awaits(b"a.h5", J.READY)


def test_a_rename_from_a_temporary_name_is_taken_at_once_and_the_old_name_is_forgotten(tmp_path: Path) -> None:
    with watched(tmp_path, Rules(quiet_s=600.0, scan_interval_s=600.0)) as made:
        (made.directory / "a.h5.tmp").write_bytes(b"frames")
        assert made.awaits(b"a.h5.tmp", J.CANDIDATE).reason_code == "temporary-name"
        (made.directory / "a.h5.tmp").rename(made.directory / "a.h5")
        made.awaits(b"a.h5", J.READY)
        until(lambda: b"a.h5.tmp" not in made.entries(), "the old name to be forgotten", 10)


def test_a_growing_file_is_told_as_it_grows_and_since_when(tmp_path: Path) -> None:
    with watched(tmp_path) as made, writing(made.directory / "log") as writer:
        entry = made.awaits(b"log", J.GROWING)
        assert entry.reason == "a process has it open for writing"
        assert entry.first_seen_at is not None
        assert writer.poll() is None


def test_f16_a_changed_file_begins_again_whatever_its_time_says(tmp_path: Path) -> None:
    with watched(tmp_path) as made:
        path = made.directory / "a.dat"
        path.write_bytes(b"first state")
        made.awaits(b"a.dat", J.READY)
        made.deliver()
        before = path.stat()
        path.write_bytes(b"other state")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        made.awaits(b"a.dat", J.READY)
        made.deliver()
        assert made.state(b"a.dat") is J.AVAILABLE


@pytest.mark.parametrize("is_longer_first", [False, True])
def test_f16_a_file_that_is_emptied_and_written_anew_waits_for_no_snapshot(
    tmp_path: Path, is_longer_first: bool
) -> None:
    with watched(tmp_path) as made:
        path = made.directory / "a.dat"
        path.write_bytes(b"first")
        made.awaits(b"a.dat", J.READY)
        made.deliver()
        with path.open("ab" if is_longer_first else "wb") as written:
            if is_longer_first:
                written.write(b" and more")
                written.flush()
            made.awaits(b"a.dat", J.CANDIDATE, J.GROWING)
            written.truncate(0)
            written.seek(0)
            written.write(b"other")
        made.awaits(b"a.dat", J.READY)


@pytest.mark.parametrize("was_watched", [True, False])
def test_f23_an_old_file_that_is_moved_over_a_known_name_is_found(tmp_path: Path, was_watched: bool) -> None:
    with watched(tmp_path) as made:
        (made.directory / "a.dat").write_bytes(b"first")
        made.awaits(b"a.dat", J.READY)
        made.deliver()
        if not was_watched:
            made.stop()
        (tmp_path / "old").write_bytes(b"older")
        os.utime(tmp_path / "old", (1, 1))
        (tmp_path / "old").rename(made.directory / "a.dat")
        if not was_watched:
            made.start()
        made.awaits(b"a.dat", J.READY)


def test_f06_an_inode_that_is_used_again_is_another_file(tmp_path: Path) -> None:
    with watched(tmp_path) as made:
        inodes = set()
        for number in range(6):
            path = made.directory / "same.dat"
            path.unlink(missing_ok=True)
            path.write_bytes(b"content %d" % number)
            inodes.add(path.stat().st_ino)
            made.awaits(b"same.dat", J.READY)
            assert made.deliver() == 1
        (made.directory / "same.dat").unlink()
        (made.directory / "other.dat").write_bytes(b"content 9")
        made.awaits(b"other.dat", J.READY)
        assert made.state(b"same.dat") is J.AVAILABLE


def test_a_file_that_is_renamed_after_it_is_stored_is_taken_under_its_new_name_and_the_old_one_stays(
    tmp_path: Path,
) -> None:
    with watched(tmp_path) as made:
        (made.directory / "scan").mkdir()
        (made.directory / "scan" / "a.dat").write_bytes(b"frame")
        made.awaits(b"scan/a.dat", J.READY)
        made.deliver()
        (made.directory / "scan").rename(made.directory / "scan_good")
        made.awaits(b"scan_good/a.dat", J.READY)
        assert made.state(b"scan/a.dat") is J.AVAILABLE


def test_f17_f19_every_name_arrives_as_the_bytes_that_it_is(tmp_path: Path) -> None:
    names = [
        b"line\nbreak",
        b"\xff\xfe",
        b"-rf",
        b"$(touch x)",
        b"\xc3\xa9",
        b"e\xcc\x81",
        b"Case",
        b"case",
        b"n" * 255,
    ]
    with watched(tmp_path) as made:
        for name in names:
            (made.directory / os.fsdecode(name)).write_bytes(name)
        made.awaits_count(len(names))
        assert set(made.entries()) == set(names)


def test_f20_links_are_recorded_and_what_is_no_file_is_counted(tmp_path: Path) -> None:
    with Watched(tmp_path) as made:
        (made.directory / "out").symlink_to("/etc/passwd")
        (made.directory / "circle").symlink_to("circle")
        (made.directory / "above").symlink_to("..")
        os.mkfifo(made.directory / "pipe")
        made.begun()
        for name in (b"out", b"circle", b"above"):
            assert made.awaits(name, J.READY).kind == "link"
        assert made.awaits(b"pipe", J.SKIPPED).reason_code == "special"
        assert len(made.entries()) == 4


def test_a_removed_file_is_listed_and_comes_back_with_it(tmp_path: Path) -> None:
    with watched(tmp_path, Rules(quiet_s=600.0, scan_interval_s=600.0)) as made:
        (made.directory / "a.dat").write_bytes(b"frame")
        made.awaits(b"a.dat", J.CANDIDATE)
        (made.directory / "a.dat").unlink()
        made.awaits(b"a.dat", J.VANISHED)
        (made.directory / "a.dat").write_bytes(b"frame")
        made.awaits(b"a.dat", J.CANDIDATE)


def test_what_comes_before_the_first_scan_is_over_was_not_there_before(tmp_path: Path) -> None:
    """The first scan of a large tree takes a while, and a service may die in it: writers go on."""
    (directory := tmp_path / "there").mkdir()
    (directory / "old.dat").write_bytes(b"before")
    time.sleep(0.05)  # the kernel stamps files by a clock of some milliseconds
    with Watched(tmp_path, directory=directory, with_existing=False) as made:
        time.sleep(0.05)
        (directory / "new.dat").write_bytes(b"after")
        made.begun()
        made.awaits(b"new.dat", J.READY)
        assert made.awaits(b"old.dat", J.SKIPPED).reason_code == "existing"


def test_a_large_directory_is_taken_in_parts_and_what_went_of_it_is_known_to_be_gone(tmp_path: Path) -> None:
    (directory := tmp_path / "there").mkdir()
    names = [b"%05d.dat" % i for i in range(2 * AT_ONCE + 10)]
    for name in names:
        os.close(os.open(os.path.join(os.fsencode(directory), name), os.O_WRONLY | os.O_CREAT))
    (directory / "below").mkdir()
    (directory / "below" / "deep.dat").touch()
    with Watched(tmp_path, Rules(quiet_s=600.0, scan_interval_s=600.0), directory=directory) as made:
        made.begun()
        made.awaits_count(len(names) + 1, J.CANDIDATE)
        made.stop()
        gone = {names[0], names[AT_ONCE], names[-1]}
        for path in gone:
            (directory / os.fsdecode(path)).unlink()
        (directory / "new.dat").touch()
        made.start()
        made.awaits(b"new.dat", J.CANDIDATE)
        made.awaits_count(len(gone), J.VANISHED)
        assert {path for path, entry in made.entries().items() if entry.state is J.VANISHED} == gone


def test_an_upload_takes_what_is_there_and_is_over(tmp_path: Path) -> None:
    with uploaded(tmp_path) as made:
        (made.directory / "a.dat").write_bytes(b"frame")
        made.begun()
        made.awaits(b"a.dat", J.READY)
        until(lambda: made.intake.is_drained, "the end", 10)
        assert made.acquisition.policy.startswith("a file is finished at once when")


def test_a_file_that_is_written_to_all_the_time_is_looked_at_now_and_then_only(tmp_path: Path) -> None:
    with watched(tmp_path) as made, (made.directory / "log").open("wb", buffering=0) as log:
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            log.write(b"line\n")
            time.sleep(0.005)
        sorter = made.intake._sorter
        assert sorter is not None
        assert len(sorter.undecided._due) <= 3
        assert made.state(b"log") is J.GROWING
