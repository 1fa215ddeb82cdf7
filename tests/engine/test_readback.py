"""Reading back many files: by helper processes, in the directory that is open, and with the answers of few."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from beamkeeper.domain.files import ReadFrom
from beamkeeper.domain.names import Algorithm
from beamkeeper.engine.beneath import Beneath
from beamkeeper.engine.readback import HELPED_FILES, ReadBack, Reader
from beamkeeper.engine.reading import DIRECT_BUFFER_BYTES, DIRECT_BYTES, drop_cache

MANY = 2 * HELPED_FILES


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader()
    yield made
    made.close()


def make(root: Path, count: int) -> dict[bytes, bytes]:
    contents = {b"%d/\xff%03d" % (number % 3, number): os.urandom(number * 50) for number in range(count)}
    for path, content in contents.items():
        place = os.path.join(os.fsencode(root), path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "wb") as file:
            file.write(content)
    os.sync()
    return contents


@pytest.mark.parametrize("count", [3, MANY])
def test_every_file_is_read_and_what_is_none_is_said(tmp_path: Path, reader: Reader, count: int) -> None:
    contents = make(tmp_path, count)
    os.symlink("0", tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    odd: dict[bytes, object] = {b"none": errno.ENOENT, b"link": errno.ELOOP, b"0": "", b"pipe": ""}
    wanted = [(path, Algorithm.BLAKE3) for path in (*contents, *odd)]
    with Beneath(tmp_path) as beneath:
        found = dict(reader.read(wanted, beneath))
    assert len(found) == len(wanted)
    for path, content in contents.items():
        back = found[path]
        assert isinstance(back, ReadBack)
        assert (back.value, back.size) == (blake3(content).hexdigest(), len(content))
    for path, answer in odd.items():
        back = found[path]
        assert (back.value if isinstance(back, ReadBack) else back.errno) == answer


def test_the_directory_that_is_open_is_read_whatever_its_name_means_now(tmp_path: Path, reader: Reader) -> None:
    (tmp_path / "root").mkdir()
    contents = make(tmp_path / "root", MANY)
    with Beneath(tmp_path / "root") as beneath:
        (tmp_path / "root").rename(tmp_path / "moved")
        (tmp_path / "root").mkdir()
        found = dict(reader.read([(path, Algorithm.BLAKE3) for path in contents], beneath))
    assert all(isinstance(back, ReadBack) and back.size == len(contents[path]) for path, back in found.items())


def test_files_are_read_all_the_same_where_no_helper_can_be_had(tmp_path: Path, reader: Reader) -> None:
    contents = make(tmp_path, MANY)
    reader.helpers = type(reader.helpers)("beamkeeper.no_such_module")
    with Beneath(tmp_path) as beneath:
        found = dict(reader.read([(path, Algorithm.BLAKE3) for path in contents], beneath))
    assert all(isinstance(back, ReadBack) and back.size == len(contents[path]) for path, back in found.items())


def test_files_are_read_all_the_same_where_no_process_can_be_started(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = make(tmp_path, MANY)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with Beneath(tmp_path) as beneath:
        found = dict(reader.read([(path, Algorithm.BLAKE3) for path in contents], beneath))
    assert all(isinstance(back, ReadBack) and back.size == len(contents[path]) for path, back in found.items())


@pytest.mark.parametrize("more", [0, 1, DIRECT_BUFFER_BYTES + 513])
def test_a_large_file_is_read_whole_and_leaves_the_page_cache_as_it_was(
    tmp_path: Path, reader: Reader, more: int
) -> None:
    content = os.urandom(1024 * 1024) * (DIRECT_BYTES // 1024**2) + os.urandom(more)
    (tmp_path / "large").write_bytes(content)
    os.sync()
    with Beneath(tmp_path) as beneath:
        [(_, back)] = reader.read([(b"large", Algorithm.BLAKE3)], beneath)
    assert isinstance(back, ReadBack)
    assert (back.value, back.size) == (blake3(content).hexdigest(), len(content))
    if back.read_from is ReadFrom.DEVICE:
        with (tmp_path / "large").open("rb") as file, pytest.raises(BlockingIOError):
            os.preadv(file.fileno(), [bytearray(4096)], DIRECT_BYTES // 2, os.RWF_NOWAIT)


def test_pages_that_the_kernel_keeps_for_a_moment_are_dropped_soon_after(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"frame")
    os.sync()
    said: list[bool] = []

    def drop(descriptor: int) -> bool:
        said.append(len(said) >= 2 and drop_cache(descriptor))
        return said[-1]

    monkeypatch.setattr("beamkeeper.engine.reading.drop_cache", drop)
    with Beneath(tmp_path) as beneath:
        [(_, back)] = reader.read([(b"a", Algorithm.BLAKE3)], beneath)
    assert isinstance(back, ReadBack)
    assert len(said) > 2
    assert back.read_from is (ReadFrom.DEVICE if said[-1] else ReadFrom.CACHE)  # the last word is the kernel's


def test_a_file_system_that_does_not_tell_of_its_cache_is_asked_once(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"frame")
    read, pauses = os.preadv, list[float]()

    def tells_nothing(descriptor: int, buffers: list[bytearray], offset: int, flags: int = 0) -> int:
        if flags & os.RWF_NOWAIT:
            raise OSError(errno.EOPNOTSUPP, "as over NFS")
        return read(descriptor, buffers, offset, flags)

    monkeypatch.setattr(os, "preadv", tells_nothing)
    monkeypatch.setattr("beamkeeper.engine.reading.time.sleep", pauses.append)
    with Beneath(tmp_path) as beneath:
        [(_, back)] = reader.read([(b"a", Algorithm.BLAKE3)], beneath)
    assert isinstance(back, ReadBack)
    assert (back.read_from, pauses) == (ReadFrom.CACHE, [])
