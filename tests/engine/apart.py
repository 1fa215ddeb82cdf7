"""Cases for test_intake_root.py, each a process of its own with mounts and limits that nobody else sees.

unshare --user --map-root-user --mount python apart.py CASE DIRECTORY
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from beamkeeper.domain.acquisition import JournalState, State
from beamkeeper.domain.problems import ProblemKind
from beamkeeper.engine.intake import Rules
from beamkeeper.testing.intakes import Watched
from beamkeeper.testing.station import until

J = JournalState
OFTEN = Rules(quiet_s=0.1, scan_interval_s=0.2, canary_s=600.0)
UNFINISHED = Rules(quiet_s=600.0, scan_interval_s=0.2, canary_s=600.0)


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def unmount(where: Path) -> None:
    subprocess.run(["umount", "-l", str(where)], check=True)


def mounted(place: Path) -> Path:
    """A directory of a detector's disk, mounted where it is watched; below it is an empty mount point."""
    (place / "disk").mkdir()
    (place / "det").mkdir()
    mount("--bind", place / "disk", place / "det")
    return place / "det"


def unavailable(made: Watched) -> str:
    until(lambda: "is unavailable" in made.acquisition.message, "the message", 15)
    return made.acquisition.message


def f07_an_unmounted_directory_is_unavailable_and_not_empty(place: Path) -> None:
    with Watched(place, UNFINISHED, directory=mounted(place)) as made:
        for number in range(20):
            (made.directory / f"{number}.tif").write_bytes(b"frame")
        made.begun()
        made.awaits_count(20, J.CANDIDATE)
        unmount(made.directory)
        assert "was it unmounted?" in unavailable(made)
        time.sleep(0.7)
        assert {entry.state for entry in made.entries().values()} == {J.CANDIDATE}
        assert made.awaits_problem(ProblemKind.DIRECTORY_UNAVAILABLE).directory == str(made.directory)
        assert made.acquisition.state is State.RUNNING
        (place / "disk" / "meanwhile.tif").write_bytes(b"frame")
        mount("--bind", place / "disk", made.directory)
        made.awaits(b"meanwhile.tif", J.CANDIDATE)
        made.awaits_problem(ProblemKind.DIRECTORY_BACK)
        until(lambda: made.acquisition.message == "", "the message to be taken back", 10)
        made.announce(*made.entries())
        made.drained()
        assert {entry.state for entry in made.entries().values()} == {J.READY}


def f07_a_service_that_starts_while_it_is_unmounted_waits(place: Path) -> None:
    with Watched(place, UNFINISHED, directory=mounted(place)) as made:
        (made.directory / "a.tif").write_bytes(b"frame")
        made.begun()
        made.stop()
        unmount(made.directory)
        made.start()
        unavailable(made)
        with made.database.write() as tx:
            tx.acquisitions.request_stop(made.uid)
        until(lambda: "--now" in made.acquisition.message, "the way out", 10)
        time.sleep(0.5)
        assert not made.intake.is_drained
        assert made.state(b"a.tif") is J.CANDIDATE
        mount("--bind", place / "disk", made.directory)
        made.announce(b"a.tif")
        until(lambda: made.intake.is_drained, "the end", 20)
        assert made.state(b"a.tif") is J.READY


def f07_another_mount_in_its_place_is_not_taken_for_it(place: Path) -> None:
    with Watched(place, UNFINISHED, directory=mounted(place)) as made:
        (made.directory / "a.tif").write_bytes(b"frame")
        made.begun()
        mount("-t", "tmpfs", "other", made.directory)
        (made.directory / "stranger.tif").write_bytes(b"frame")
        assert "tmpfs of other" in unavailable(made)
        time.sleep(0.5)
        assert made.state(b"stranger.tif") is None
        unmount(made.directory)
        until(lambda: made.acquisition.message == "", "the message to be taken back", 10)
        assert made.state(b"a.tif") is J.CANDIDATE


def a_device_with_another_number_is_the_same_directory(place: Path) -> None:
    (place / "det").mkdir()
    mount("-t", "tmpfs", "disk", place / "det")
    with Watched(place, OFTEN, directory=place / "det") as made:
        (made.directory / "a.tif").write_bytes(b"frame")
        made.begun()
        made.awaits(b"a.tif", J.READY)
        assert made.deliver() == 1
        made.stop()
        with made.database.write() as tx:  # as when the numbers were others before the machine started again
            root = tx.acquisitions.root(made.uid)
            assert root is not None
            tx.acquisitions.set_root(made.uid, {**root, "devices": [1, os.stat(made.directory).st_dev]})
        made.start()
        until(lambda: made.intake.scans > 1, "scans", 10)
        assert made.state(b"a.tif") is J.AVAILABLE


def another_file_system_below_it_is_listed_and_not_entered(place: Path) -> None:
    with Watched(place, OFTEN) as made:
        (made.directory / "nested").mkdir()
        mount("-t", "tmpfs", "nested", made.directory / "nested")
        (made.directory / "nested" / "a.tif").write_bytes(b"frame")
        made.begun()
        assert made.awaits(b"nested", J.SKIPPED).reason_code == "other-device"
        assert made.state(b"nested/a.tif") is None
        assert made.acquisition.message == ""
        unmount(made.directory / "nested")
        (made.directory / "nested" / "b.tif").write_bytes(b"frame")
        made.awaits(b"nested/b.tif", J.READY)
        assert made.state(b"nested") is None


def a_mounted_file_systems_own_directories_are_listed_and_not_entered(place: Path) -> None:
    (place / "det").mkdir()
    mount("-t", "tmpfs", "disk", place / "det")
    with Watched(place, OFTEN, directory=place / "det") as made:
        for directory in (made.directory / "lost+found", made.directory / "below" / "lost+found"):
            directory.mkdir(parents=True)
            (directory / "a.tif").write_bytes(b"frame")
        made.begun()
        assert made.awaits(b"lost+found", J.SKIPPED).reason_code == "special"
        made.awaits(b"below/lost+found/a.tif", J.READY)
        assert made.state(b"lost+found/a.tif") is None
        made.drained()
        assert len(made.entries()) == 2


def f03_beyond_the_limit_of_watches_directories_are_scanned_often(place: Path) -> None:
    Path("/proc/sys/user/max_inotify_watches").write_text("3")
    with Watched(place, Rules(quiet_s=0.1, scan_interval_s=6.0, canary_s=600.0)) as made:
        for number in range(20):
            (made.directory / f"{number}").mkdir()
        made.begun()
        until(lambda: "max_user_watches" in made.acquisition.message, "the message", 10)
        assert "max_user_watches" in made.awaits_problem(ProblemKind.WATCH_RESTARTED).message
        for number in range(20):
            (made.directory / f"{number}" / "a.tif").write_bytes(b"frame")
        made.awaits_count(20, timeout_s=10)
        Path("/proc/sys/user/max_inotify_watches").write_text("1000")
        until(lambda: made.acquisition.message == "", "the message to be taken back", 10)
        assert made.acquisition.policy.endswith("and scanned every 6 s")


def f03_without_any_watch_directories_are_scanned_often(place: Path) -> None:
    Path("/proc/sys/user/max_inotify_instances").write_text("0")
    with Watched(place, Rules(quiet_s=0.1, scan_interval_s=6.0, canary_s=1.0)) as made:
        made.begun()
        assert "max_user_instances" in made.awaits_problem(ProblemKind.WATCH_RESTARTED).message
        until(lambda: "max_user_instances" in made.acquisition.message, "the message", 10)
        (made.directory / "a.tif").write_bytes(b"frame")
        made.awaits(b"a.tif", J.READY, timeout_s=5)
        Path("/proc/sys/user/max_inotify_instances").write_text("10")
        until(lambda: made.acquisition.message == "", "the message to be taken back", 10)


CASES = {
    name: case for name, case in list(globals().items()) if callable(case) and name.startswith(("f0", "a_", "another"))
}

if __name__ == "__main__":
    CASES[sys.argv[1]](Path(sys.argv[2]))
