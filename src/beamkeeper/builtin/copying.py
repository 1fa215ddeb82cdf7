"""Transfer by copy to a mounted directory, hashing in the same pass and proving that the source held still."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from typing import ClassVar

from pydantic import Field, field_validator

from beamkeeper.builtin.digests import Digests
from beamkeeper.builtin.directories import open_directory, open_parent, path_of_url, reachable, remove_tree
from beamkeeper.config.failpoints import FailPoint, hit
from beamkeeper.domain.errors import DestinationError, SourceError
from beamkeeper.domain.files import SourceIdentity
from beamkeeper.domain.names import Algorithm, show_path
from beamkeeper.plugins.api import Options, Stop, TransferItem, TransferResult

MIB = 1024 * 1024
_HOLE = bytes(64 * 1024)
"""What is zero for this long in a sparse file becomes a hole."""

_SOURCE_CODES = {
    errno.ENOENT: "vanished",
    errno.ENOTDIR: "vanished",
    errno.ELOOP: "special",
    errno.ENXIO: "special",
    errno.ENODEV: "special",
    # Once is no proof: a disk or a server may have been away for a moment. After some tries it is.
    **dict.fromkeys(
        (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.ECONNRESET, errno.EREMOTEIO),
        "read-error",
    ),
}
_DESTINATION_CODES = {errno.ENOSPC: "full", errno.EDQUOT: "full", errno.EROFS: "read_only"} | dict.fromkeys(
    (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EFBIG, errno.EISDIR, errno.ENOTDIR, errno.ELOOP), "refused"
)
_HINTS = {
    "full": "free space or quota there",
    "read_only": "make it writable",
    "refused": "the storage does not take this file: rename or split it",
    "failed": "see that the storage is mounted and may be written",
}


class CopyOptions(Options):
    """How files are copied."""

    checksums: tuple[Algorithm, ...] = Field(
        default=(Algorithm.BLAKE3,),
        description="Made in the one pass: blake3, and md5 or sha256 where others want them.",
    )
    buffer_bytes: int = Field(default=4 * MIB, ge=4096, le=64 * MIB, description="How much is read at once.")
    threads: int = Field(default=2, ge=1, le=32, description="How many files of a batch are copied at once.")

    @field_validator("checksums")
    @classmethod
    def _with_blake3(cls, value: tuple[Algorithm, ...]) -> tuple[Algorithm, ...]:
        if Algorithm.BLAKE3 not in value:
            raise ValueError("blake3 must be among them: copies are verified by it")
        return tuple(dict.fromkeys(value))


class CopyTransfer:
    """Copies to a directory of this host: `file:///...`, with unusual characters percent-encoded."""

    options: ClassVar[type[Options]] = CopyOptions
    summary: ClassVar[str] = "Copies to a mounted directory, with checksums made in the same pass."

    def __init__(self, options: CopyOptions) -> None:
        self._options = options

    def send(self, items: Sequence[TransferItem], staging: str, stop: Stop) -> Generator[TransferResult]:
        """Copy each item to `staging`/path; what is there from before is replaced."""
        if not items:
            return
        where = path_of_url(staging)
        with _writing(where):
            root = open_directory(where)
        batch = _Batch(root, self._options, stop)
        try:
            with ThreadPoolExecutor(min(self._options.threads, len(items)), "copy") as pool:
                futures = [pool.submit(batch.copy, item) for item in items]
                try:
                    for future in as_completed(futures):
                        if (result := future.result()) is not None:
                            yield result
                finally:
                    batch.end()
        finally:
            os.close(root)

    def discard(self, staging: str) -> None:
        """Remove a staging directory and all in it."""
        where = path_of_url(staging)
        with _writing(where):
            remove_tree(where)


class _StoppedError(Exception):
    """The batch has ended while a file was being copied."""


class _Batch:
    """One call of `send`; `copy` is called from several threads."""

    def __init__(self, root: int, options: CopyOptions, stop: Stop) -> None:
        self._root = root
        self._options = options
        self._stop = stop
        self._ended = threading.Event()
        self._local = threading.local()

    def end(self) -> None:
        """Leave what has not begun, and what is under way at its next buffer."""
        self._ended.set()

    def copy(self, item: TransferItem) -> TransferResult | None:
        """Copy one file; None where the batch was stopped, a DestinationError where it must be."""
        try:
            self._check_stop()
            return self._deliver(item)
        except _StoppedError:
            return None
        except SourceError as error:
            return TransferResult(item.version_uid, error=error)
        except DestinationError as error:
            if error.details["code"] == "refused":
                return TransferResult(item.version_uid, error=error)
            self.end()
            raise

    def _check_stop(self, moved: int = 0) -> None:
        if self._ended.is_set() or self._stop(moved):
            raise _StoppedError

    def _deliver(self, item: TransferItem) -> TransferResult:
        with _reading(item), reachable(item.source) as (name, directory):
            source = os.open(
                name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=directory
            )
        try:
            with _reading(item):
                found = os.fstat(source)
            _check_identity(item, found)
            with _writing(item.path):
                parent = open_parent(self._root, item.path)
            try:
                return self._write(item, source, found, parent=parent)
            finally:
                os.close(parent)
        finally:
            os.close(source)

    def _write(self, item: TransferItem, source: int, found: os.stat_result, *, parent: int) -> TransferResult:
        name = item.path.name
        with _writing(item.path):
            target = _create(name, parent)
        try:
            try:
                digests = self._pump(item, source, target, is_sparse=found.st_blocks * 512 < found.st_size)
                with _writing(item.path):
                    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
            finally:
                with _writing(item.path):
                    os.close(target)  # where NFS tells of a write that failed
            hit(FailPoint.COPIED)
            _check_unchanged(item, source)
        except BaseException:
            with suppress(OSError):
                os.unlink(name, dir_fd=parent)
            raise
        return TransferResult(item.version_uid, found.st_size, digests.checksums(), digests.chunks())

    def _pump(self, item: TransferItem, source: int, target: int, *, is_sparse: bool) -> Digests:
        """Copy as many bytes as the source had, and not one of what is appended meanwhile."""
        size, done, count = item.identity.size, 0, 0
        digests = Digests(self._options.checksums, size)
        buffer = self._buffer()
        write = _write_sparse if is_sparse else _write_all
        while done < size:
            self._check_stop(count)
            with _reading(item):
                count = os.readv(source, [buffer[: size - done]])
            if not count:
                raise _changed(item)
            digests.update(buffer[:count])
            hit(FailPoint.COPYING)
            with _writing(item.path):
                write(target, buffer[:count], done)
            done += count
        self._stop(count)
        if is_sparse:
            with _writing(item.path):
                os.ftruncate(target, size)
        return digests

    def _buffer(self) -> memoryview:
        """Return this thread's buffer."""
        if not hasattr(self._local, "buffer"):
            self._local.buffer = memoryview(bytearray(self._options.buffer_bytes))
        return memoryview(self._local.buffer)


def _create(name: bytes, parent: int) -> int:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)  # left over from a call that did not end
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)


def _write_all(target: int, piece: memoryview, offset: int) -> None:
    """Write all of a piece: one call may write less than it was given, and that is no error."""
    while piece:
        count = os.pwrite(target, piece, offset)
        piece, offset = piece[count:], offset + count


def _write_sparse(target: int, piece: memoryview, offset: int) -> None:
    """Write a piece but for long runs of zeros.

    Holes are found by reading them, not by SEEK_HOLE: ZFS has answered it with holes where there were data
    (openzfs#15526), and bytes that were never read would get a digest that fits what is wrong.
    """
    for start in range(0, len(piece), len(_HOLE)):
        part = piece[start : start + len(_HOLE)]
        if bytes(part) != _HOLE[: len(part)]:
            _write_all(target, part, offset + start)


def _identity(found: os.stat_result) -> SourceIdentity:
    """Return what says that a source file is still the same."""
    return SourceIdentity(
        dev=found.st_dev,
        ino=found.st_ino,
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
    )


def _check_identity(item: TransferItem, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise SourceError(f'"{show_path(item.source)}" is not a plain file any more: it is passed over', code="special")
    if _identity(found) != item.identity:
        raise _changed(item)


def _check_unchanged(item: TransferItem, source: int) -> None:
    """Refuse bytes that may be of two states of the source (I6): by what was open, and by its name."""
    with _reading(item), reachable(item.source) as (name, directory):
        named = os.stat(name, dir_fd=directory, follow_symlinks=False)
        opened = os.fstat(source)
    if not _identity(opened) == _identity(named) == item.identity:
        raise _changed(item)


def _changed(item: TransferItem) -> SourceError:
    return SourceError(
        f'"{show_path(item.source)}" changed after it was found finished: it is taken when it is finished again',
        code="changed",
    )


@contextmanager
def _reading(item: TransferItem) -> Iterator[None]:
    """Turn an error of the kernel into the source's."""
    try:
        yield
    except OSError as error:
        raise SourceError(
            f'"{show_path(item.source)}" cannot be read: {os.strerror(error.errno or 0)}',
            code=_SOURCE_CODES.get(error.errno or 0, "unreadable"),
            errno=error.errno,
        ) from error


@contextmanager
def _writing(path: bytes) -> Iterator[None]:
    """Turn an error of the kernel into the destination's."""
    try:
        yield
    except OSError as error:
        code = _DESTINATION_CODES.get(error.errno or 0, "failed")
        raise DestinationError(
            f'"{show_path(path)}" cannot be written: {os.strerror(error.errno or 0)}; {_HINTS[code]}',
            code=code,
            errno=error.errno,
        ) from error
