"""A directory of one's own that files arrive in: no name leads out of it, and nothing half has a final name."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from beamkeeper.domain.errors import DestinationError, InvalidError
from beamkeeper.domain.names import RelPath, show_path

PARTS = b".dm-download"
"""Below the directory: what has not arrived as a whole; a later download goes on with it."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Landing:
    """Files below one directory, by descriptors: links on the way are never followed."""

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._root = os.open(directory, _DIRECTORY & ~os.O_NOFOLLOW)
            with suppress(FileExistsError):
                os.mkdir(PARTS, 0o700, dir_fd=self._root)
            self._parts = os.open(PARTS, _DIRECTORY, dir_fd=self._root)
        except OSError as error:
            raise _refused(os.fsencode(directory), error) from error

    def close(self) -> None:
        """Close it; the place for parts goes where nothing is left in it."""
        os.close(self._parts)
        with suppress(OSError):
            os.rmdir(PARTS, dir_fd=self._root)
        os.close(self._root)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open_part(self, name: str) -> int:
        """Open the file that the bytes arrive in, to read and to write; what arrived before is kept."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(name, flags, 0o600, dir_fd=self._parts)
        except OSError as error:
            raise _refused(os.fsencode(name), error) from error

    def drop_part(self, name: str) -> None:
        """Throw away what arrived."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._parts)

    @contextmanager
    def existing(self, path: RelPath) -> Iterator[int | None]:
        """Open what stands at a path; None where nothing does. What is no plain file is refused."""
        opened: int | None = None
        try:
            with self._above(path, is_made=False) as above:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                opened = None if above is None else os.open(path.name, flags, dir_fd=above)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _refused(path, error) from error
        try:
            if opened is not None and not stat.S_ISREG(os.fstat(opened).st_mode):
                raise InvalidError(f'"{show_path(path)}" is there already, and no plain file: move it away')
            yield opened
        finally:
            if opened is not None:
                os.close(opened)

    def land(self, name: str, path: RelPath, *, mtime_ns: int) -> None:
        """Give what has arrived its final name, in place of a file that has it."""
        try:
            os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=self._parts)
            with self._above(path, is_made=True) as above:
                os.rename(name, path.name, src_dir_fd=self._parts, dst_dir_fd=above)
        except OSError as error:
            raise _refused(path, error) from error

    def link(self, path: RelPath, target: bytes) -> bool:
        """Make a symbolic link, unless it is there as it should be; tell whether it was made."""
        try:
            with self._above(path, is_made=True) as above:
                with suppress(OSError):
                    if os.readlink(path.name, dir_fd=above) == target:
                        return False
                os.symlink(target, path.name, dir_fd=above)
        except OSError as error:
            raise _refused(path, error) from error
        return True

    @contextmanager
    def _above(self, path: RelPath, *, is_made: bool) -> Iterator[int | None]:
        here = os.dup(self._root)
        try:
            for part in path.split(b"/")[:-1]:
                if is_made:
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o777, dir_fd=here)
                below = os.open(part, _DIRECTORY, dir_fd=here)
                os.close(here)
                here = below
            yield here
        finally:
            os.close(here)


def stays_inside(path: RelPath, target: bytes) -> bool:
    """Whether a link leads to somewhere below the directory, as far as its text says."""
    if target.startswith(b"/") or not target:
        return False
    depth = path.count(b"/")
    for part in target.split(b"/"):
        depth += -1 if part == b".." else 0 if part in (b"", b".") else 1
        if depth < 0:
            return False
    return True


def _refused(path: bytes, error: OSError) -> DestinationError:
    is_link = error.errno in (errno.ELOOP, errno.ENOTDIR)
    why = "a link or a file stands in the way of a directory" if is_link else error.strerror or str(error)
    return DestinationError(f'"{show_path(path)}" cannot be written: {why}')
