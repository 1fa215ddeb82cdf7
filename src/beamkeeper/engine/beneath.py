"""Working below one directory without ever leaving it: every step by descriptor, no symbolic link followed."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from beamkeeper.plugins.below import DIRECTORY, open_below

_libc = ctypes.CDLL(None, use_errno=True)
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
OPEN_DIRECTORIES = 64
NO_SUCH_CALL = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})


class Beneath:
    """A directory and what lies below it, reached by paths of bytes that cannot climb out.

    Directories that were opened stay open while they are in use again and again (at most OPEN_DIRECTORIES).
    """

    def __init__(self, root: str | bytes | Path) -> None:
        self._root = os.open(root, DIRECTORY)
        self._open: OrderedDict[bytes, int] = OrderedDict()
        self.made: set[bytes] = set()

    def directory(self, path: bytes, *, mode: int | None = None) -> int:
        """Return the descriptor of a directory below; made with `mode`, and its parents, where it is given.

        It is valid until some other directories were asked for. NotADirectoryError where a link stands in the way.
        """
        if not path:
            return self._root
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        if mode is not None:
            parent, _, name = path.rpartition(b"/")
            above = self.directory(parent, mode=mode)
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=above)
                os.chmod(name, mode, dir_fd=above)
                self.made.add(path)
        opened = open_below(self._root, path, DIRECTORY)
        self._open[path] = opened
        if len(self._open) > OPEN_DIRECTORIES:
            os.close(self._open.popitem(last=False)[1])
        return opened

    def open(self, path: bytes, flags: int = os.O_RDONLY) -> int:
        """Open a file below; a link is refused with ELOOP, a FIFO never waits."""
        parent, _, name = path.rpartition(b"/")
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self.directory(parent))

    def lstat(self, path: bytes) -> os.stat_result | None:
        """Return what stands at a path, None where nothing does."""
        parent, _, name = path.rpartition(b"/")
        try:
            return os.lstat(name, dir_fd=self.directory(parent))
        except FileNotFoundError:
            return None

    def readlink(self, path: bytes) -> bytes:
        """Return where a link points."""
        parent, _, name = path.rpartition(b"/")
        return os.readlink(name, dir_fd=self.directory(parent))

    def symlink(self, target: bytes, path: bytes) -> None:
        """Make a link."""
        parent, _, name = path.rpartition(b"/")
        os.symlink(target, name, dir_fd=self.directory(parent))

    def unlink(self, path: bytes) -> None:
        """Remove a file; one that is gone is no error."""
        parent, _, name = path.rpartition(b"/")
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.directory(parent))

    def rename(self, old: bytes, new: bytes, *, is_exchange: bool = False) -> None:
        """Rename a file to a name that is free (FileExistsError otherwise), or let two change places."""
        flags = RENAME_EXCHANGE if is_exchange else RENAME_NOREPLACE
        with self._pair(old, new) as (old_fd, old_name, new_fd, new_name):
            if _libc.renameat2(old_fd, old_name, new_fd, new_name, flags) == 0:
                return
            number = ctypes.get_errno()
            if number not in NO_SUCH_CALL or is_exchange:
                raise OSError(number, os.strerror(number), new)
            # Network file systems without the call: a second name fails where the first one stands already.
            os.link(old_name, new_name, src_dir_fd=old_fd, dst_dir_fd=new_fd, follow_symlinks=False)
            os.unlink(old_name, dir_fd=old_fd)

    def link(self, old: bytes, new: bytes) -> None:
        """Give a file a second name."""
        with self._pair(old, new) as (old_fd, old_name, new_fd, new_name):
            os.link(old_name, new_name, src_dir_fd=old_fd, dst_dir_fd=new_fd, follow_symlinks=False)

    def replace(self, old: bytes, new: bytes) -> None:
        """Rename a file over whatever stands at the new name."""
        with self._pair(old, new) as (old_fd, old_name, new_fd, new_name):
            os.rename(old_name, new_name, src_dir_fd=old_fd, dst_dir_fd=new_fd)

    @contextmanager
    def _pair(self, old: bytes, new: bytes) -> Iterator[tuple[int, bytes, int, bytes]]:
        old_parent, _, old_name = old.rpartition(b"/")
        new_parent, _, new_name = new.rpartition(b"/")
        # The second may push the first out of the open ones: hold it by a descriptor of our own.
        old_fd = os.dup(self.directory(old_parent))
        try:
            yield old_fd, old_name, self.directory(new_parent), new_name
        finally:
            os.close(old_fd)

    def sync(self, directory: bytes) -> None:
        """Make the names in a directory durable."""
        os.fsync(self.directory(directory))

    def sync_all(self) -> None:
        """Make everything on this file system durable, with one call; an error of any write is raised (Linux 5.8)."""
        if _libc.syncfs(self._root) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def remove_tree(self, path: bytes) -> None:
        """Remove a directory and all in it; one that is gone is no error."""
        try:
            here = self.directory(path)
        except FileNotFoundError:
            return
        with os.scandir(here) as entries:
            found = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_directory in found:
            below = path + b"/" + name
            if is_directory:
                self.remove_tree(below)
            else:
                self.unlink(below)
        self.forget(path)
        parent, _, name = path.rpartition(b"/")
        with suppress(FileNotFoundError):
            os.rmdir(name, dir_fd=self.directory(parent))

    def forget(self, path: bytes) -> None:
        """Close a directory that was kept open."""
        if path in self._open:
            os.close(self._open.pop(path))

    def close(self) -> None:
        """Close every descriptor."""
        for opened in self._open.values():
            os.close(opened)
        self._open.clear()
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_regular(found: os.stat_result) -> bool:
    """Whether it is a plain file."""
    return stat.S_ISREG(found.st_mode)
