"""Directories by descriptor: staging URLs, paths longer than PATH_MAX, and removal that follows no link."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote_to_bytes
from uuid import uuid4

from beamkeeper.domain.errors import InvalidError
from beamkeeper.plugins.below import DIRECTORY, open_made

PATH_MAX = 4096
"""The longest path that one call to the kernel takes, its final NUL included."""


def path_of_url(url: str) -> bytes:
    """Return the absolute path of a `file:` URL, whose unusual characters are percent-encoded."""
    scheme, _, rest = url.partition(":")
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        rest = slash + path if host in {"", "localhost"} else ""
    raw = os.path.normpath(unquote_to_bytes(rest)) if rest.startswith("/") else b""
    if scheme != "file" or raw.strip(b"/") == b"" or b"\0" in raw:
        raise InvalidError(f'"{url}" is not a place to copy to: use file:///absolute/path')
    return b"/" + raw.lstrip(b"/")


@contextmanager
def reachable(path: bytes) -> Iterator[tuple[bytes, int | None]]:
    """Yield a path as (name, directory descriptor) for the kernel, however long it is."""
    if len(path) < PATH_MAX:
        yield path, None
        return
    directory, _, name = path.rpartition(b"/")
    here = os.open(b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in directory.split(b"/"):
            if part:
                below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
                os.close(here)
                here = below
        yield name, here
    finally:
        os.close(here)


def open_directory(path: bytes) -> int:
    """Open a directory; it and at most two levels above it are made where they are missing.

    What is above those is the experiment's own directory. Where that is missing, the storage is most
    likely not mounted, and making it would fill the disk below the mount point.
    """
    above = path
    for _ in range(3):
        above = os.path.dirname(above)
    os.stat(above)
    os.makedirs(path, 0o700, exist_ok=True)
    return os.open(path, DIRECTORY)


def open_parent(root: int, path: bytes) -> int:
    """Open the directory of a path below `root`, making what is missing and following no link."""
    return open_made(root, path.rpartition(b"/")[0])


def remove_tree(path: bytes) -> None:
    """Remove a directory and all in it, following no link; nothing there is no error."""
    try:
        root = os.open(path, DIRECTORY)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(path)
        return
    try:
        waiting = _empty(root, root)
        while waiting:
            name = waiting.pop()
            directory = os.open(name, DIRECTORY, dir_fd=root)
            try:
                waiting.extend(_empty(directory, root))
            finally:
                os.close(directory)
            os.rmdir(name, dir_fd=root)
    finally:
        os.close(root)
    os.rmdir(path)


def _empty(directory: int, root: int) -> list[str]:
    """Unlink the files of a directory and move its directories to the top; return their new names.

    Moving them up keeps one descriptor and a short name in use, however deep the tree is.
    """
    moved = []
    with os.scandir(directory) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                moved.append(f".discarded-{uuid4().hex}")
                os.rename(entry.name, moved[-1], src_dir_fd=directory, dst_dir_fd=root)
            else:
                os.unlink(entry.name, dir_fd=directory)
    return moved
