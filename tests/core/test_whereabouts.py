"""Whether two paths lead to the same files: links are followed elsewhere, bind mounts are found out here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from beamkeeper.core.mounts import Whereabouts, mount_of


@pytest.fixture
def bound() -> Iterator[Callable[[Path, Path], Path]]:
    """Give what mounts a directory at another place, too."""
    if os.geteuid():
        pytest.skip("only root may mount")
    made: list[Path] = []

    def bind(what: Path, at: Path) -> Path:
        at.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", str(what), str(at)], check=True)
        made.append(at)
        return at

    yield bind
    for place in reversed(made):
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def where(path: Path) -> Whereabouts:
    found = Whereabouts.of(os.fsencode(path))
    assert found is not None
    return found


def remembered(path: Path) -> Whereabouts:
    """What is known of a directory without looking at it."""
    opened = os.open(path, os.O_RDONLY)
    try:
        found = os.fstat(opened)
        root = {"ino": found.st_ino, "devices": [found.st_dev], "mount": asdict(mount_of(opened))}
    finally:
        os.close(opened)
    return Whereabouts.known(os.fsencode(path), root)


def meet(one: Path, other: Path) -> bool:
    found = {
        where(one).meets(where(other)),
        where(other).meets(where(one)),
        where(one).meets(remembered(other)),
        where(other).meets(remembered(one)),
    }
    assert len(found) == 1, found
    return found.pop()


def test_directories_meet_by_their_paths(tmp_path: Path) -> None:
    one, below, other = tmp_path / "one", tmp_path / "one" / "below", tmp_path / "one2"
    for directory in (one, below, other):
        directory.mkdir()
    assert (meet(one, one), meet(one, below), meet(one, other)) == (True, True, False)
    assert Whereabouts.of(os.fsencode(tmp_path / "none")) is None


def test_a_bind_mount_leads_to_the_same_files(tmp_path: Path, bound: Callable[[Path, Path], Path]) -> None:
    scan = tmp_path / "det tector" / "scan"
    (scan / "sub").mkdir(parents=True)
    other = tmp_path / "other"
    other.mkdir()
    view = bound(scan, tmp_path / "view 1")
    assert meet(view, scan)
    assert meet(view, scan.parent)  # of which the view's own parents say nothing
    assert meet(view, scan / "sub")
    assert meet(view / "sub", scan)
    assert meet(view / "sub", scan / "sub")
    assert not meet(view, other)
    (scan / "sub2").mkdir()
    assert not meet(view / "sub", scan / "sub2")


def test_what_is_mounted_in_a_directory_counts_as_in_it(tmp_path: Path, bound: Callable[[Path, Path], Path]) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    (other / "scan").mkdir(parents=True)
    assert not meet(one, other)
    bound(other / "scan", one / "here")
    assert meet(one, other)
    assert meet(one, other / "scan")
