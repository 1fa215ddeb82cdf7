"""Reading back what is stored: from the device where the kernel lets us, and saying which it was."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Sequence
from typing import Protocol

from blake3 import blake3

from beamkeeper.domain.files import ReadFrom
from beamkeeper.domain.names import Algorithm, Checksum

BUFFER_BYTES = 4 * 1024 * 1024


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
