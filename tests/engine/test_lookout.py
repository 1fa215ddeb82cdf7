"""A watch that is dead is found out, and replaced."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pytest

from beamkeeper.config import failpoints
from beamkeeper.domain.acquisition import CANARY_PREFIX
from beamkeeper.engine.canary import Canary
from beamkeeper.engine.lookout import Lookout
from beamkeeper.engine.scan import walk
from beamkeeper.testing.station import until

UID = uuid4()


class Open(Protocol):
    def __call__(self, *, canary_s: float = 600.0, patience_s: float = 5.0) -> Lookout: ...


@pytest.fixture
def open_(tmp_path: Path) -> Iterator[Open]:
    made: list[Lookout] = []

    def open_one(*, canary_s: float = 600.0, patience_s: float = 5.0) -> Lookout:
        made.append(Lookout(os.fsencode(tmp_path), UID, lambda: None, canary_s=canary_s, patience_s=patience_s))
        return made[-1]

    yield open_one
    for lookout in made:
        lookout.close()


def inotify_descriptors() -> set[int]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:inotify":
                found.add(int(name))
        except OSError:
            continue
    return found


def told(lookout: Lookout, path: bytes) -> bool:
    return until(lambda: path in lookout.take().files, f"word of {path!r}", 10)


def test_a_canary_is_heard_leaves_nothing_and_is_no_news(open_: Open, tmp_path: Path) -> None:
    lookout = open_(canary_s=0.05, patience_s=5.0)
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        assert lookout.check() == ""
        assert lookout.take().files == {}
        time.sleep(0.01)
    assert lookout.is_trusted
    assert lookout.fault == lookout.doubt == ""
    assert list(tmp_path.iterdir()) == []


def test_a_canary_of_a_killed_process_is_wiped_and_no_scan_ever_lists_one(tmp_path: Path) -> None:
    canary = Canary(os.fsencode(tmp_path), UID)
    (tmp_path / f"{CANARY_PREFIX}{UID}").touch()
    (tmp_path / f"{CANARY_PREFIX}another").touch()
    (tmp_path / ".hidden").touch()
    (listing,) = walk(os.fsencode(tmp_path), b"", lambda _: None)
    assert [path for path, _ in listing.entries] == [b".hidden"]
    assert canary.send()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{CANARY_PREFIX}another", ".hidden"]


@pytest.mark.parametrize("fault", ["F09 the descriptor is closed", "F09 the thread dies"])
def test_a_reader_that_has_died_is_replaced_at_once(open_: Open, tmp_path: Path, fault: str) -> None:
    before = inotify_descriptors()
    lookout = open_()
    (own,) = inotify_descriptors() - before
    if "descriptor" in fault:
        os.close(own)
    else:
        failpoints.arm("watch-reading:raise")
    try:
        why = until(lookout.check, "word of the dead reader", 10)
    finally:
        failpoints.arm("")
    assert why.startswith("the reader of the watch has ended")
    until(lambda: lookout.check() == "", "a living reader", 10)
    (tmp_path / "a.tif").touch()
    assert told(lookout, b"a.tif")


def test_a_descriptor_that_somebody_else_has_by_now_is_not_closed(open_: Open) -> None:
    before = inotify_descriptors()
    lookout = open_()
    (own,) = inotify_descriptors() - before
    other = os.memfd_create("other")
    os.dup2(other, own)
    lookout.close()
    os.fstat(own)
    os.close(own)
    os.close(other)


def test_a_watch_that_tells_nothing_is_replaced_and_trusted_again_when_its_canary_is_heard(
    open_: Open, tmp_path: Path
) -> None:
    lookout = open_(canary_s=0.05, patience_s=0.3)
    watch = lookout._watch
    assert watch is not None
    watch._inotify.rm_watch(watch._watch_of[b""])  # as when the kernel's side is lost
    why = until(lookout.check, "word of the silent watch", 10)
    assert "told nothing of a canary" in why
    assert not lookout.is_trusted
    assert "stopped telling" in lookout.fault
    until(lambda: lookout.check() == "" and lookout.is_trusted, "trust", 10)
    (tmp_path / "a.tif").touch()
    assert told(lookout, b"a.tif")


def test_where_nothing_may_be_written_the_watch_works_and_is_not_trusted(open_: Open, tmp_path: Path) -> None:
    # A directory where the canary's name is: for root too, it cannot be made.
    (tmp_path / f"{CANARY_PREFIX}{UID}").mkdir()
    lookout = open_(canary_s=0.05, patience_s=0.2)
    (tmp_path / "a.tif").touch()
    assert told(lookout, b"a.tif")
    time.sleep(0.3)
    assert lookout.check() == ""
    assert not lookout.is_trusted
    assert "nothing may be written" in lookout.doubt
    (tmp_path / f"{CANARY_PREFIX}{UID}").rmdir()
    until(lambda: lookout.check() == "" and lookout.is_trusted, "trust", 10)


def test_without_canaries_the_doubt_names_the_setting(open_: Open) -> None:
    lookout = open_(canary_s=0.0)
    assert lookout.check() == ""
    assert not lookout.is_trusted
    assert "acquisition.canary_s" in lookout.doubt


def test_a_closed_lookout_leaves_neither_threads_nor_descriptors(open_: Open) -> None:
    threads, descriptors = threading.active_count(), inotify_descriptors()
    lookout = open_()
    lookout.close()
    assert threading.active_count() == threads
    assert inotify_descriptors() == descriptors
