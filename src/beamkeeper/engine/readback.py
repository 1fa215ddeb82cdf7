"""Reading back what is stored: from the device where the kernel lets us, and saying which it was."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from blake3 import blake3

from beamkeeper.domain.files import ReadFrom
from beamkeeper.domain.names import Algorithm, Checksum
from beamkeeper.engine.beneath import is_regular

BUFFER_BYTES = 2 * 1024 * 1024
THREADS = 4
GROUP = 64
"""So many files are open at once: their reads are announced to the kernel together, and it brings them in one go."""


class Hasher(Protocol):
    """Takes bytes, gives a digest."""

    def update(self, data: memoryview, /) -> object:
        """Take bytes."""
        ...

    def hexdigest(self) -> str:
        """Give the digest."""
        ...


def hasher(algorithm: Algorithm) -> Hasher:
    """Return a new hasher."""
    if algorithm is Algorithm.BLAKE3:
        return blake3()
    return hashlib.new(str(algorithm), usedforsecurity=False)


def strongest(checksums: Sequence[Checksum]) -> Checksum:
    """Return the checksum to verify by: BLAKE3 where there is one."""
    order = (Algorithm.BLAKE3, Algorithm.SHA256, Algorithm.MD5)
    return min(checksums, key=lambda c: order.index(c.algorithm))


def digest(descriptor: int, algorithm: Algorithm, buffer: memoryview | None = None) -> tuple[str, int]:
    """Return the digest of an open file from its beginning, and how many bytes it has."""
    work = buffer if buffer is not None else memoryview(bytearray(BUFFER_BYTES))
    found, offset = hasher(algorithm), 0
    while count := os.preadv(descriptor, [work], offset):
        found.update(work[:count])
        offset += count
    return found.hexdigest(), offset


def drop_cache(descriptor: int) -> ReadFrom:
    """Drop a file's pages, which must be on disk already, and tell where the next read comes from.

    The kernel may keep them (tmpfs always does). A read that may not wait tells: what is at hand at once was
    in the cache.
    """
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        at_hand = os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return ReadFrom.DEVICE
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            return ReadFrom.CACHE
        raise
    return ReadFrom.CACHE if at_hand else ReadFrom.DEVICE


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What reading a stored file back gave; an empty digest is that of no plain file.

    `read_from` is None where it was not read: its digest is then what it should be.
    """

    value: str
    size: int
    read_from: ReadFrom | None


class Reader:
    """Reads many files back: drops their caches, announces all reads, and hashes in a few threads.

    Waiting for one file after the other is what costs (a device answers in about a millisecond): the kernel is
    told of a whole group before the first is read.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="read-back")
        self._local = threading.local()

    def read(
        self, wanted: Sequence[tuple[bytes, Algorithm]], opened: Callable[[bytes], int]
    ) -> Iterator[tuple[bytes, ReadBack | OSError]]:
        """Read files back; `opened` gives a descriptor, which is closed here. A missing file is its OSError."""
        for start in range(0, len(wanted), GROUP):
            yield from self._group(wanted[start : start + GROUP], opened)

    def _group(
        self, wanted: Sequence[tuple[bytes, Algorithm]], opened: Callable[[bytes], int]
    ) -> Iterator[tuple[bytes, ReadBack | OSError]]:
        descriptors: list[tuple[bytes, int, Algorithm, ReadFrom]] = []
        try:
            for path, algorithm in wanted:
                try:
                    descriptor = opened(path)
                except OSError as error:
                    yield path, error
                    continue
                descriptors.append((path, descriptor, algorithm, ReadFrom.CACHE))
                descriptors[-1] = (path, descriptor, algorithm, drop_cache(descriptor))
            for _, descriptor, _, _ in descriptors:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
            yield from self._pool.map(self._one, descriptors)
        finally:
            for _, descriptor, _, _ in descriptors:
                os.close(descriptor)

    def _one(self, file: tuple[bytes, int, Algorithm, ReadFrom]) -> tuple[bytes, ReadBack | OSError]:
        path, descriptor, algorithm, read_from = file
        if not hasattr(self._local, "buffer"):
            self._local.buffer = memoryview(bytearray(BUFFER_BYTES))
        try:
            found = os.fstat(descriptor)
            if not is_regular(found):
                return path, ReadBack("", found.st_size, read_from)
            value, size = digest(descriptor, algorithm, self._local.buffer)
            return path, ReadBack(value, size, read_from)
        except OSError as error:
            return path, error

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)
