"""The watch tells of every change below its directory, or that it lost count."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from beamkeeper.engine.scan import walk
from beamkeeper.engine.watch import News, Watch
from beamkeeper.testing.station import until


class Collected:
    """A watch and everything that it told."""

    def __init__(self, root: Path) -> None:
        self.news = News()
        self.woken = threading.Event()
        self.watch = Watch(os.fsencode(root), self.woken.set)
        self.root = os.fsencode(root)

    def scan(self, top: bytes = b"") -> set[bytes]:
        return {path for listing in walk(self.root, top, self.watch.add) for path, _ in listing.entries}

    def take(self) -> News:
        news = self.watch.take()
        self.news.files.update(news.files)
        self.news.directories |= news.directories
        self.news.is_dirty = self.news.is_dirty or news.is_dirty
        return self.news

    def wait(self, is_there: Callable[[News], bool]) -> News:
        until(lambda: is_there(self.take()), "news", 10)
        return self.news


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[Collected]:
    collected = Collected(tmp_path)
    collected.scan()
    yield collected
    collected.watch.close()


def test_a_file_that_is_written_and_closed_is_told(seen: Collected, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"frame")
    assert seen.wait(lambda n: n.files.get(b"a.tif") is not None and n.files[b"a.tif"].is_closed)


def test_names_that_are_not_utf8_are_told_as_bytes(seen: Collected, tmp_path: Path) -> None:
    name = b"line\nbreak \xff\xfe.tif"
    (tmp_path / os.fsdecode(name)).write_bytes(b"frame")
    assert seen.wait(lambda n: name in n.files)


def test_a_rename_from_a_temporary_name_is_told_as_such(seen: Collected, tmp_path: Path) -> None:
    (tmp_path / "a.h5.tmp").write_bytes(b"frames")
    (tmp_path / "a.h5.tmp").rename(tmp_path / "a.h5")
    (tmp_path / "b.dat").write_bytes(b"frames")
    (tmp_path / "b.dat").rename(tmp_path / "b.h5")
    news = seen.wait(lambda n: b"a.h5" in n.files and b"b.h5" in n.files)
    assert news.files[b"a.h5"].is_renamed_in
    assert not news.files[b"b.h5"].is_renamed_in


def test_writing_again_after_closing_takes_the_closing_back(seen: Collected, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("one\n")
    seen.wait(lambda n: n.files.get(b"log.txt") is not None and n.files[b"log.txt"].is_closed)
    with path.open("a") as file:
        file.write("two\n")
        file.flush()
        assert seen.wait(lambda n: not n.files[b"log.txt"].is_closed)


def test_deep_directories_that_appear_at_once_lose_nothing(seen: Collected, tmp_path: Path) -> None:
    wanted = set()
    for i in range(100):
        below = tmp_path / f"{i}" / "s" / "t"
        below.mkdir(parents=True)
        (below / "frame.tif").write_bytes(b"x")
        wanted.add(os.fsencode(f"{i}/s/t/frame.tif"))
    found: set[bytes] = set()

    def all_there() -> bool:
        news = seen.take()
        for directory in sorted(news.directories):
            found.update(seen.scan(directory))
        news.directories.clear()
        return wanted <= found | set(news.files)

    until(all_there, "all frames", 10)


def test_a_directory_that_is_renamed_is_told_under_its_new_name(seen: Collected, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    seen.wait(lambda n: b"old" in n.directories)
    seen.scan(b"old")
    (tmp_path / "old").rename(tmp_path / "new")
    seen.wait(lambda n: b"new" in n.directories)
    seen.scan(b"new")
    (tmp_path / "new" / "a.tif").write_bytes(b"x")
    news = seen.wait(lambda n: b"new/a.tif" in n.files)
    assert b"old/a.tif" not in news.files


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may shorten the kernel's queue")
def test_a_queue_that_ran_over_is_told(tmp_path: Path) -> None:
    limit = Path("/proc/sys/fs/inotify/max_queued_events")
    before = limit.read_text()
    limit.write_text("16")  # copied into the instance as it is made: restored at once
    try:
        collected = Collected(tmp_path)
    finally:
        limit.write_text(before)
    try:
        collected.scan()
        for i in range(2000):
            (tmp_path / f"{i}.tif").touch()
        assert collected.wait(lambda n: n.is_dirty)
    finally:
        collected.watch.close()


def test_names_beyond_a_bound_are_given_up_for_a_scan(tmp_path: Path) -> None:
    watch = Watch(os.fsencode(tmp_path), lambda: None, max_hints=20)
    try:
        watch.add(b"")
        most = 0
        for i in range(300):
            (tmp_path / f"{i}.tif").touch()
            most = max(most, len(watch._news.files))
        until(lambda: watch._news.is_dirty, "word of too many names", 10)
        assert most <= 20
        assert not watch.take().is_overflow
    finally:
        watch.close()


def test_what_is_renamed_in_a_directory_that_nobody_has_scanned_yet_is_told(seen: Collected, tmp_path: Path) -> None:
    below = tmp_path / "scan_1"
    below.mkdir()
    seen.wait(lambda n: b"scan_1" in n.directories)
    (below / "a.tif.tmp").write_bytes(b"frame")
    (below / "a.tif.tmp").rename(below / "a.tif")
    assert seen.wait(lambda n: b"scan_1/a.tif" in n.files and n.files[b"scan_1/a.tif"].is_renamed_in)
