"""Copying single files: every byte once, hashed in the same pass, and proof that the source held still.

Imports nothing heavy: it runs in helper processes as well.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from beamkeeper.builtin.digests import Digests
from beamkeeper.builtin.directories import open_parent, reachable

if TYPE_CHECKING:
    from beamkeeper.plugins.helpers import Report

_HOLE = bytes(64 * 1024)
"""What is zero for this long in a sparse file becomes a hole."""

FLUSH_BYTES = 32 * 1024 * 1024
"""After so much the kernel is asked to write out what a large file has got."""

CHANGED, SPECIAL = "changed", "special"

Identity = Sequence[int]
"""Device, inode, size, and the times of the last change of content and of anything, in nanoseconds."""

Copied = tuple[int, list[str], list[str]]
"""A size, the digests in the order that was asked for, and those of the chunks."""


class StoppedError(Exception):
    """The batch has ended while a file was being copied."""


class CopyError(Exception):
    """A file that could not be copied: the side that is at fault, and why."""

    def __init__(self, *, is_source: bool, code: str = "", number: int = 0) -> None:
        super().__init__(code or os.strerror(number))
        self.is_source = is_source
        self.code = code
        self.number = number


class Copier:
    """Copies one file after the other below a directory. Of one thread.

    `stop` hears how many bytes were moved, and says whether to end; `copying` and `copied` are called where a piece
    is read and not written, and where all is written and the source not looked at again.
    """

    def __init__(
        self,
        root: int,
        algorithms: Sequence[str],
        *,
        chunk_bytes: int,
        buffer_bytes: int,
        stop: Callable[[int], bool],
        copying: Callable[[], object] = lambda: None,
        copied: Callable[[], object] = lambda: None,
    ) -> None:
        self._root = root
        self._algorithms = algorithms
        self._chunk_bytes = chunk_bytes
        self._buffer = memoryview(bytearray(buffer_bytes))
        self._stop = stop
        self._copying = copying
        self._copied = copied
        self._parent = -1
        self._parent_path: bytes | None = None

    def close(self) -> None:
        """Close what is kept open."""
        if self._parent >= 0:
            os.close(self._parent)
        self._parent, self._parent_path = -1, None

    def copy(self, source: bytes, path: bytes, identity: Identity, known: Sequence[str] = ()) -> Copied:
        """Copy a file; CopyError where it cannot be, StoppedError where it is not to be any more.

        `known` are digests of its first chunks as they were copied while it was written: where they are still the same
        nothing is written.
        """
        self._check_stop()
        opened, found = open_source(source, identity)
        try:
            return self._deliver(opened, found, source, path, identity, known=known)
        except OSError as error:
            raise CopyError(is_source=True, number=error.errno or 0) from error
        finally:
            os.close(opened)

    def _check_stop(self, moved: int = 0) -> None:
        if self._stop(moved):
            raise StoppedError

    def extend(self, source: bytes, path: bytes, known: Sequence[str], upto: int) -> list[str]:
        """Copy whole chunks beyond the known ones of a file that is still written; return the digests of all."""
        opened, _ = open_source(source, None)
        try:
            directory, _, name = path.rpartition(b"/")
            try:
                target = _open(name, self._open_parent(directory, path), os.O_RDWR | os.O_CREAT)
            except OSError as error:
                raise CopyError(is_source=False, number=error.errno or 0) from error
            try:
                return self._extend(opened, target, known, upto)
            finally:
                os.close(target)
        except OSError as error:
            raise CopyError(is_source=True, number=error.errno or 0) from error
        finally:
            os.close(opened)

    def _extend(self, source: int, target: int, known: Sequence[str], upto: int) -> list[str]:
        each = self._chunk_bytes
        chunks = list(known) if os.fstat(target).st_size >= len(known) * each else []
        with suppress(StoppedError):
            while (end := (len(chunks) + 1) * each) <= min(upto, os.fstat(source).st_size):
                digest = Digests(["blake3"], each, each)
                for offset, piece in self._pieces(source, end - each, end):
                    digest.update(piece)
                    _write(_write_all, target, piece, offset)
                _flush_behind(target, end - each, end)
                chunks += digest.values()
        return chunks

    def _deliver(
        self,
        opened: int,
        found: os.stat_result,
        source: bytes,
        path: bytes,
        identity: Identity,
        *,
        known: Sequence[str],
    ) -> Copied:
        directory, _, name = path.rpartition(b"/")
        try:
            parent = self._open_parent(directory, path)
            target = _open(name, parent, os.O_RDWR | os.O_CREAT) if known else _create(name, parent)
        except OSError as error:
            raise CopyError(is_source=False, number=error.errno or 0) from error
        try:
            try:
                digests = self._pump(opened, target, found, identity[2], known)
            finally:
                try:
                    os.close(target)  # where NFS tells of a write that failed
                except OSError as error:
                    raise CopyError(is_source=False, number=error.errno or 0) from error
            self._copied()
            check_unchanged(opened, source, identity)
        except BaseException:
            with suppress(OSError):
                os.unlink(name, dir_fd=parent)
            raise
        return found.st_size, digests.values(), digests.chunks()

    def _open_parent(self, directory: bytes, path: bytes) -> int:
        if directory != self._parent_path:
            self.close()
            self._parent = open_parent(self._root, path)
            self._parent_path = directory
        return self._parent

    def _pump(self, source: int, target: int, found: os.stat_result, size: int, known: Sequence[str]) -> Digests:
        """Copy as many bytes as the source had, and not one of what is appended meanwhile."""
        digests = Digests(self._algorithms, size, self._chunk_bytes)
        is_sparse = not known and found.st_blocks * 512 < found.st_size
        write = _write_sparse if is_sparse else _write_all
        begin = flushed = self._compare(source, target, size, known, digests)
        for offset, piece in self._pieces(source, begin, size):
            digests.update(piece)
            self._copying()
            _write(write, target, piece, offset)
            flushed = _flush_behind(target, flushed, offset + len(piece))
        try:
            if is_sparse or known:
                os.ftruncate(target, size)
            os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
        except OSError as error:
            raise CopyError(is_source=False, number=error.errno or 0) from error
        return digests

    def _compare(self, source: int, target: int, size: int, known: Sequence[str], digests: Digests) -> int:
        """Digest the chunks that were copied already, copy those that changed since, and return how far that goes."""
        each = self._chunk_bytes
        there = min(os.fstat(target).st_size, size) if known else 0
        many = min(len(known), there // each) if size > each else 0
        for number in range(many):
            begin, end = number * each, (number + 1) * each
            for _, piece in self._pieces(source, begin, end):
                digests.update(piece)
            if digests.last_chunk != known[number]:
                for offset, piece in self._pieces(source, begin, end):
                    _write(_write_all, target, piece, offset)
                _flush_behind(target, begin, end)
        return many * each

    def _pieces(self, source: int, begin: int, end: int) -> Iterator[tuple[int, memoryview]]:
        """Yield what a source has between two places, piece by piece."""
        done, count = begin, 0
        while done < end:
            self._check_stop(count)
            count = os.preadv(source, [self._buffer[: end - done]], done)
            if not count:
                raise CopyError(is_source=True, code=CHANGED)
            yield done, self._buffer[:count]
            done += count
        self._stop(count)


def open_source(source: bytes, identity: Identity | None) -> tuple[int, os.stat_result]:
    """Open a source that is in the state in which it was found finished, or in any; CopyError where it is not."""
    try:
        with reachable(source) as (name, directory):
            opened = os.open(
                name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=directory
            )
    except OSError as error:
        raise CopyError(is_source=True, number=error.errno or 0) from error
    try:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            raise CopyError(is_source=True, code=SPECIAL)
        if identity is not None and not _is(found, identity):
            raise CopyError(is_source=True, code=CHANGED)
    except BaseException:
        os.close(opened)
        raise
    return opened, found


def _create(name: bytes, parent: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return _open(name, parent, flags)
    except FileExistsError:
        os.unlink(name, dir_fd=parent)  # left over from a call that did not end
        return _open(name, parent, flags)


def _open(name: bytes, parent: int, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)


def _write(how: Callable[[int, memoryview, int], None], target: int, piece: memoryview, offset: int) -> None:
    try:
        how(target, piece, offset)
    except OSError as error:
        raise CopyError(is_source=False, number=error.errno or 0) from error


def _write_all(target: int, piece: memoryview, offset: int) -> None:
    """Write all of a piece: one call may write less than it was given, and that is no error."""
    while piece:
        count = os.pwrite(target, piece, offset)
        piece, offset = piece[count:], offset + count


def _flush_behind(target: int, flushed: int, done: int) -> int:
    """Have the kernel write out what a large file has got so far, and return how far that is.

    Else the disk would be idle until all is copied: the kernel lets a tenth of the memory become dirty first. What is
    on disk already when the advice comes, it drops; who writes terabytes pushes nothing else out of the cache.
    """
    if done - flushed < FLUSH_BYTES:
        return flushed
    start = max(0, flushed - FLUSH_BYTES)
    with suppress(OSError):  # it is advice
        os.posix_fadvise(target, start, done - start, os.POSIX_FADV_DONTNEED)
    return done


def _write_sparse(target: int, piece: memoryview, offset: int) -> None:
    """Write a piece but for long runs of zeros.

    Holes are found by reading them, not by SEEK_HOLE: ZFS has answered it with holes where there were data
    (openzfs#15526), and bytes that were never read would get a digest that fits what is wrong.
    """
    for start in range(0, len(piece), len(_HOLE)):
        part = piece[start : start + len(_HOLE)]
        if bytes(part) != _HOLE[: len(part)]:
            _write_all(target, part, offset + start)


def _is(found: os.stat_result, identity: Identity) -> bool:
    """Whether a source file is still the same."""
    dev, ino, size, mtime_ns, ctime_ns = identity
    return (
        found.st_ino == ino
        and found.st_size == size
        and found.st_mtime_ns == mtime_ns
        and found.st_ctime_ns == ctime_ns
        and found.st_dev == dev
    )


def check_unchanged(opened: int, source: bytes, identity: Identity) -> None:
    """Refuse bytes that may be of two states of the source (I6): by what was open, and by its name."""
    with reachable(source) as (name, directory):
        named = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not (_is(named, identity) and _is(os.fstat(opened), identity)):
        raise CopyError(is_source=True, code=CHANGED)


def is_of_one_file(error: CopyError) -> bool:
    """Whether the other files of a batch may still be copied."""
    return error.is_source or error.number in REFUSED


REFUSED = frozenset(
    (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EFBIG, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)
)
"""What a destination does not take of one file, and of others may."""


def work(order: dict[str, Any], report: Report) -> None:
    """Copy the files of an order, in a helper process; one report each: its place, and what became of it."""
    root = os.open(order["staging"], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    copier = Copier(
        root,
        order["algorithms"],
        chunk_bytes=order["chunk_bytes"],
        buffer_bytes=order["buffer_bytes"],
        stop=report.moved,
    )
    try:
        for place, source, path, identity in order["items"]:
            try:
                report.add([place, copier.copy(os.fsencode(source), os.fsencode(path), identity)])
            except StoppedError:
                break
            except CopyError as error:
                report.add([place, [error.is_source, error.code, error.number]])
                if not is_of_one_file(error):
                    break
    finally:
        copier.close()
        os.close(root)
