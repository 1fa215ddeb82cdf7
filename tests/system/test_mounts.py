"""Other file systems below a watched directory: listed, never silently skipped; bind mounts of the same are crossed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from beamkeeper.domain.acquisition import JournalState
from beamkeeper.engine.choose import OTHER_DEVICE, TOO_LONG, UNREADABLE
from beamkeeper.engine.intake import Rules
from beamkeeper.testing.intakes import Watched
from beamkeeper.testing.station import until

J = JournalState
OFTEN = Rules(quiet_s=0.1, scan_interval_s=0.2, canary_s=600.0)
PATIENT = Rules(quiet_s=600.0, scan_interval_s=0.2, canary_s=600.0)


def unmount(place: Path) -> None:
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def bound() -> Iterator[Callable[[Path, Path], None]]:
    if os.geteuid():
        pytest.skip("only root may mount")
    made: list[Path] = []

    def bind(what: Path, at: Path) -> None:
        subprocess.run(["mount", "--bind", str(what), str(at)], check=True)
        made.append(at)

    yield bind
    for place in made:
        unmount(place)


def test_what_is_mounted_below_is_listed_with_its_reason_and_not_entered(
    tmp_path: Path, mounted: Callable[[Path], None]
) -> None:
    with Watched(tmp_path, OFTEN) as made:
        place = made.directory / "disk"
        place.mkdir()
        mounted(place)
        (place / "scan").mkdir()
        (place / "scan" / "theirs").write_bytes(b"x")
        (made.directory / "ours").write_bytes(b"x")
        made.begun().awaits(b"ours", J.READY)
        entry = made.awaits(b"disk", J.SKIPPED)
        assert entry.reason_code == OTHER_DEVICE
        assert "another file system is mounted there" in entry.reason
        made.announce(b"disk/scan")  # not by the writer's word, either
        scans = made.intake.scans
        until(lambda: made.intake.scans > scans + 1, "another scan")
        assert set(made.entries()) == {b"ours", b"disk"}
        unmount(place)
        (place / "uncovered").write_bytes(b"x")
        made.awaits(b"disk/uncovered", J.READY)
        assert set(made.entries()) == {b"ours", b"disk/uncovered"}


def test_what_a_mount_hides_is_not_taken_for_gone(tmp_path: Path, mounted: Callable[[Path], None]) -> None:
    place = tmp_path / "det" / "scan"
    place.mkdir(parents=True)
    with Watched(tmp_path, OFTEN) as made, (place / "open").open("wb", buffering=0) as writer:
        writer.write(b"begun")
        made.begun().awaits(b"scan/open", J.GROWING)
        mounted(place)
        entry = made.awaits(b"scan/open", J.QUARANTINED)
        assert entry.reason_code == UNREADABLE
        assert entry.reason == 'another file system is mounted over "scan", and hides it'
        unmount(place)
        made.awaits(b"scan/open", J.CANDIDATE, J.GROWING)


def test_what_a_mount_hides_since_a_restart_is_not_taken_for_gone(
    tmp_path: Path, mounted: Callable[[Path], None]
) -> None:
    with Watched(tmp_path, PATIENT) as made:
        place = made.directory / "scan"
        place.mkdir()
        (place / "hidden").write_bytes(b"x")
        (made.directory / "gone").write_bytes(b"x")
        made.begun().awaits_count(2, J.CANDIDATE)
        made.stop()
        mounted(place)
        (made.directory / "gone").unlink()
        made.start()
        made.awaits(b"gone", J.VANISHED)
        made.awaits(b"scan/hidden", J.QUARANTINED)
        unmount(place)
        made.awaits(b"scan/hidden", J.CANDIDATE)


def test_a_bind_mount_of_the_same_file_system_is_crossed(tmp_path: Path, bound: Callable[[Path, Path], None]) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").write_bytes(b"x")
    with Watched(tmp_path, OFTEN) as made:
        (made.directory / "here").mkdir()
        bound(tmp_path / "elsewhere", made.directory / "here")
        made.begun().awaits(b"here/a", J.READY)


def test_f18_a_path_that_is_too_long_says_so(tmp_path: Path) -> None:
    with Watched(tmp_path, OFTEN) as made:
        here = os.open(made.directory, os.O_RDONLY | os.O_DIRECTORY)
        for _ in range(21):
            os.mkdir(b"d" * 190, dir_fd=here)
            below = os.open(b"d" * 190, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        top = len(os.fsencode(made.directory)) + 21 * 191
        file, link = b"f" * (4097 - top), b"l" * (4097 - top)  # the directory can still be opened, what is in it not
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT, dir_fd=here))
        os.symlink(b"somewhere", link, dir_fd=here)
        os.close(here)
        made.begun().awaits_count(2, J.QUARANTINED)
        for entry in made.entries().values():
            assert (entry.state, entry.reason_code) == (J.QUARANTINED, TOO_LONG)
            assert "more than the 4095 bytes that Linux takes" in entry.reason
