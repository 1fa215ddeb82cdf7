"""What is opened below a directory is below it, by one call and by walking, whoever swaps links in meanwhile."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from beamkeeper.engine.beneath import Beneath
from beamkeeper.plugins.below import DIRECTORY, open_below, open_by_kernel, open_by_walking, open_made

Open = Callable[[int, bytes, int], int]
TRIES = 2000
SECRET = b"secret"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """A directory with a file and links that lead out of it; beside it is what nobody may read."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/frame").write_bytes(SECRET)
    (tmp_path / "inside/scan").mkdir(parents=True)
    (tmp_path / "inside/scan/frame").write_bytes(b"photons")
    (tmp_path / "inside/away").symlink_to(tmp_path / "outside")
    (tmp_path / "inside/near").symlink_to("scan")
    (tmp_path / "inside/frame").symlink_to(tmp_path / "outside/frame")
    descriptor = os.open(tmp_path / "inside", DIRECTORY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture(params=[open_below, open_by_kernel, open_by_walking])
def opening(request: pytest.FixtureRequest, root: int) -> Open:
    """Each of the ways."""
    if request.param is open_by_kernel:
        try:
            os.close(open_by_kernel(root, b"scan", DIRECTORY))
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EPERM):
                pytest.skip("this kernel, or who limits us, lets nobody call openat2")
            raise
    way: Open = request.param
    return way


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


def test_what_is_below_is_opened(opening: Open, root: int) -> None:
    assert read(opening(root, b"scan/frame", os.O_RDONLY)) == b"photons"
    with pytest.raises(FileNotFoundError):
        opening(root, b"scan/none", os.O_RDONLY)


@pytest.mark.parametrize(
    "path",
    [b"frame", b"away/frame", b"near/frame", b"../outside/frame", b"scan/../../outside/frame", b"/etc/passwd", b"away"],
)
def test_nothing_else_is(opening: Open, root: int, path: bytes) -> None:
    with pytest.raises(OSError, match=r"\[Errno") as refused:
        opening(root, path, os.O_RDONLY)
    assert refused.value.errno in (errno.ELOOP, errno.ENOTDIR, errno.EXDEV)


def test_the_links_of_the_kernel_itself_lead_nowhere(opening: Open) -> None:
    own = os.open(f"/proc/{os.getpid()}", DIRECTORY)
    try:
        for path in (b"root/etc/passwd", b"cwd", b"exe"):
            with pytest.raises(OSError, match=r"\[Errno"):
                opening(own, path, os.O_RDONLY)
    finally:
        os.close(own)


def test_a_path_longer_than_one_call_takes_is_opened(root: int) -> None:
    path = b"/".join([b"d" * 250] * 20)
    os.close(open_made(root, path))
    os.close(open_below(root, path, DIRECTORY))


def test_what_is_missing_is_made_and_no_link_is_followed(root: int, tmp_path: Path) -> None:
    os.close(open_made(root, b"scan/new/deep"))
    assert (tmp_path / "inside/scan/new/deep").is_dir()
    with pytest.raises(NotADirectoryError):
        open_made(root, b"away/new")
    assert not (tmp_path / "outside/new").exists()


def swap(root: int, done: threading.Event) -> None:
    """Let a directory and a link that leads out change places, again and again."""
    with Beneath(f"/proc/self/fd/{root}/.") as beneath:
        while not done.is_set():
            beneath.rename(b"scan", b"away", is_exchange=True)


def test_f67_a_link_that_is_swapped_in_meanwhile_leads_nowhere(opening: Open, root: int) -> None:
    done = threading.Event()
    swapping = threading.Thread(target=swap, args=(root, done))
    swapping.start()
    got: list[bytes] = []
    try:
        while len(got) < TRIES:
            try:
                got.append(read(opening(root, b"scan/frame", os.O_RDONLY)))
            except OSError:
                got.append(b"")
    finally:
        done.set()
        swapping.join()
    assert set(got) <= {b"photons", b""}
    assert b"photons" in got
