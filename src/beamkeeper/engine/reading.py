"""Reading files back in groups, where nothing else is to be in the way: in threads, or in helper processes.

Waiting for one file after the other is what costs (a device answers in about a millisecond): the kernel is told of a
whole group before the first is read, and of the next group before this one is. Imports nothing heavy.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from blake3 import blake3

from beamkeeper.engine.beneath import Beneath
from beamkeeper.engine.rights import Given, give

if TYPE_CHECKING:
    from beamkeeper.plugins.helpers import Report

BUFFER_BYTES = 2 * 1024 * 1024
DIRECT_BYTES = 64 * 1024 * 1024
"""Files from this size on are read past the page cache: faster, and pushing nothing out that others use."""

DIRECT_BUFFER_BYTES = 4 * 1024 * 1024
GROUP = 64
"""So many files are open at once, and as many again whose reads are announced."""

PAUSES_S = (0.001, 0.003, 0.01, 0.03, 0.1)
"""After these the kernel is asked again to drop pages that it kept: it does where it has just something to do with
them, 1 % of small files on a busy machine, for 1 to 50 ms (measured on ext4)."""

Found = tuple[str, int, bool]
"""A digest (empty: of no plain file), a size, and whether it was read from the device."""

Wanted = tuple[bytes, str]
"""A path, and the algorithm of its digest."""

Opened = tuple[bytes, str, int, bool]
"""The same, with a descriptor and whether the device will be read."""

Name = tuple[str, int, str, Given]
"""The digest and size that a file should have, and then its plain name and its rights."""

Moved = Callable[[int], object]
"""Hears how many bytes were read."""


class Hasher(Protocol):
    """Takes bytes, gives a digest."""

    def update(self, data: memoryview, /) -> object:
        """Take bytes."""
        ...

    def hexdigest(self) -> str:
        """Give the digest."""
        ...


def hasher(algorithm: str) -> Hasher:
    """Return a new hasher."""
    return blake3() if algorithm == "blake3" else hashlib.new(str(algorithm), usedforsecurity=False)


def digest(descriptor: int, algorithm: str, buffer: memoryview, moved: Moved) -> tuple[str, int]:
    """Return the digest of an open file from its beginning, and how many bytes it has."""
    found, offset = hasher(algorithm), 0
    if os.fstat(descriptor).st_size >= DIRECT_BYTES and _past_cache(descriptor, on=True):
        offset = _read_direct(descriptor, found, moved)
        _past_cache(descriptor, on=False)
    while count := os.preadv(descriptor, [buffer], offset):
        found.update(buffer[:count])
        offset += count
        moved(count)
    return found.hexdigest(), offset


def _read_direct(descriptor: int, found: Hasher, moved: Moved) -> int:
    """Hash a file as far as it can be read past the page cache, and return how far that was."""
    offset, count = 0, DIRECT_BUFFER_BYTES
    with mmap.mmap(-1, DIRECT_BUFFER_BYTES) as pages, memoryview(pages) as aligned:
        while count == DIRECT_BUFFER_BYTES:  # after a short read, the next would not be aligned
            try:
                count = os.preadv(descriptor, [aligned], offset)
            except OSError as error:
                if error.errno == errno.EINVAL:  # this file system wants another alignment
                    break
                raise
            found.update(aligned[:count])
            offset += count
            moved(count)
    return offset


def _past_cache(descriptor: int, *, on: bool) -> bool:
    """Read past the page cache from now on, or no more; False where the file system cannot."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)
    except OSError:
        return False
    return True


def drop_cache(descriptor: int) -> bool:
    """Drop a file's pages, which must be on disk already, and tell whether the next read comes from the device.

    The kernel may keep them (tmpfs always does). A read that may not wait tells: what is at hand at once was
    in the cache.
    """
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return is_at_hand(descriptor) is False


def is_at_hand(descriptor: int) -> bool | None:
    """Whether the beginning of a file is in the cache; None where the file system does not tell, as over a network."""
    try:
        return os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT) > 0
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            return None
        raise


class Group:
    """Files that are open, and whose reads are announced."""

    def __init__(self, wanted: Sequence[Wanted], opened: Callable[[bytes], int]) -> None:
        self.settled: list[tuple[bytes, Found | OSError]] = []
        """What needs no reading: files that cannot be opened, and what is no plain file."""
        self._open: list[Opened] = []
        try:
            for path, algorithm in wanted:
                try:
                    self._add(path, algorithm, opened(path))
                except OSError as error:
                    self.settled.append((path, error))
            self._drop_kept()
            for _, _, descriptor, _ in self._open:
                if os.fstat(descriptor).st_size < DIRECT_BYTES:
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        except BaseException:
            self.close()
            raise

    def _add(self, path: bytes, algorithm: str, descriptor: int) -> None:
        try:
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode):
                self._open.append((path, algorithm, descriptor, drop_cache(descriptor)))
                return
            self.settled.append((path, ("", found.st_size, False)))
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)

    def _drop_kept(self) -> None:
        """Try again where pages were kept, for all files together: some file systems have nothing but them.

        Where it is not told whether they were, to ask again tells nothing more.
        """
        for pause_s in PAUSES_S:
            unsure = [place for place, (*_, is_device) in enumerate(self._open) if not is_device]
            kept = [place for place in unsure if is_at_hand(self._open[place][2])]
            if not kept:
                return
            time.sleep(pause_s)
            for place in kept:
                path, algorithm, descriptor, _ = self._open[place]
                self._open[place] = (path, algorithm, descriptor, drop_cache(descriptor))

    @property
    def whole(self) -> Sequence[Opened]:
        """The open files."""
        return self._open

    def parts(self, count: int) -> Iterator[Sequence[Opened]]:
        """Yield the open files in so many parts."""
        for number in range(count):
            if part := self._open[number::count]:
                yield part

    def close(self) -> None:
        """Close the files."""
        for _, _, descriptor, _ in self._open:
            os.close(descriptor)
        self._open.clear()


def read(files: Sequence[Opened], buffer: memoryview, moved: Moved) -> Iterator[tuple[bytes, Found | OSError]]:
    """Read open files."""
    for path, algorithm, descriptor, is_device in files:
        try:
            yield path, (*digest(descriptor, algorithm, buffer, moved), is_device)
        except OSError as error:
            yield path, error


def groups(wanted: Sequence[Wanted], opened: Callable[[bytes], int]) -> Iterator[Group]:
    """Yield files in groups, the one after already announced; `opened` gives a descriptor, which is closed here."""
    starts = range(0, len(wanted), GROUP)
    going: list[Group] = []
    try:
        for start in starts:
            going.append(Group(wanted[start : start + GROUP], opened))
            if len(going) == 2:
                yield going[0]
                going.pop(0).close()
        while going:
            yield going[0]
            going.pop(0).close()
    finally:
        for group in going:
            group.close()


def work(order: dict[str, Any], report: Report) -> None:
    """Read the files of an order, in a helper process; one report each: its place, what was found, and if it is named.

    With `names`, a file that has the digest and size given there gets its rights and its plain name at once.
    """
    # The very directory that the service has open, not what may stand at its name by now.
    with Beneath(order["root"]) as beneath:
        paths = [(os.fsencode(path), algorithm) for path, algorithm in order["items"]]
        names = {os.fsencode(path): name for path, name in order["names"].items()}
        buffer = memoryview(bytearray(BUFFER_BYTES))
        for group in groups(paths, beneath.open):
            for path, error in group.settled:
                report.add([os.fsdecode(path), error.errno if isinstance(error, OSError) else error, False])
            for opened, (path, found) in zip(group.whole, read(group.whole, buffer, report.moved), strict=True):
                if isinstance(found, OSError):
                    report.add([os.fsdecode(path), found.errno, False])
                else:
                    is_named = path in names and _name(beneath, opened, found, names[path])
                    report.add([os.fsdecode(path), found, is_named])


def _name(beneath: Beneath, opened: Opened, found: Found, name: Name) -> bool:
    """Give a file its plain name where it is as it should be; what stands in the way is for the service to judge."""
    value, size, plain, rights = name
    if (found[0], found[1]) != (value, size):
        return False
    try:
        give(opened[2], rights)
        beneath.rename(opened[0], os.fsencode(plain))
    except OSError:
        return False
    return True
