"""Reading back what is stored: from the device where the kernel lets us, and saying which it was."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from beamkeeper.config.failpoints import is_armed
from beamkeeper.domain.files import ReadFrom
from beamkeeper.domain.names import Algorithm, Checksum
from beamkeeper.engine import reading
from beamkeeper.engine.beneath import Beneath
from beamkeeper.plugins.helpers import HelperEndedError, Helpers

THREADS = 4
HELPERS = 2
HELPED_FILES = 32
"""From so many files on they are read by helper processes."""


def strongest(checksums: Sequence[Checksum]) -> Checksum:
    """Return the checksum to verify by: BLAKE3 where there is one."""
    order = (Algorithm.BLAKE3, Algorithm.SHA256, Algorithm.MD5)
    return min(checksums, key=lambda c: order.index(c.algorithm))


def digest(descriptor: int, algorithm: Algorithm) -> tuple[str, int]:
    """Return the digest of an open file from its beginning, and how many bytes it has."""
    return reading.digest(descriptor, algorithm, memoryview(bytearray(reading.BUFFER_BYTES)), _unheard)


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What reading a stored file back gave; an empty digest is that of no plain file.

    `read_from` is None where it was not read: its digest is then what it should be.
    """

    value: str
    size: int
    read_from: ReadFrom | None
    is_named: bool = False
    """It has its plain name already."""


Answer = tuple[bytes, ReadBack | OSError]


class Reader:
    """Reads many files back: in helper processes, few of them in threads."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="read-back")
        self._local = threading.local()
        self.helpers = Helpers("beamkeeper.engine.reading")

    def read(
        self,
        wanted: Sequence[tuple[bytes, Algorithm]],
        beneath: Beneath,
        names: Mapping[bytes, reading.Name] | None = None,
    ) -> Iterator[Answer]:
        """Read files back. A missing one is its OSError.

        Those of `names` may be given their plain names at once where they are as they should be: calls to the kernel
        cost a helper process less than they do here.
        """
        left = dict(wanted)
        if len(left) >= HELPED_FILES and not is_armed():
            try:
                for path, answer in self._with_helpers(wanted, beneath, names or {}):
                    del left[path]
                    yield path, answer
            except HelperEndedError:
                pass  # what it leaves is read here
        if left:
            yield from self._with_threads(list(left.items()), beneath)

    def _with_helpers(
        self, wanted: Sequence[tuple[bytes, Algorithm]], beneath: Beneath, names: Mapping[bytes, reading.Name]
    ) -> Iterator[Answer]:
        share = -(-len(wanted) // HELPERS)
        root = f"/proc/{os.getpid()}/fd/{beneath.directory(b'')}/."
        orders = [
            {
                "root": root,
                "items": [(os.fsdecode(path), str(algorithm)) for path, algorithm in part],
                "names": {os.fsdecode(path): names[path] for path, _ in part if path in names},
            }
            for part in (wanted[start : start + share] for start in range(0, len(wanted), share))
        ]
        for path, found, is_named in self.helpers.work(orders, _unheard):
            yield os.fsencode(path), _error(found) if isinstance(found, int) else _read_back(found, is_named=is_named)

    def _with_threads(self, wanted: Sequence[tuple[bytes, Algorithm]], beneath: Beneath) -> Iterator[Answer]:
        for group in reading.groups(wanted, beneath.open):
            yield from map(_answer, group.settled)
            for answers in self._pool.map(self._part, group.parts(THREADS)):
                yield from answers

    def _part(self, files: Sequence[reading.Opened]) -> list[Answer]:
        if not hasattr(self._local, "buffer"):
            self._local.buffer = memoryview(bytearray(reading.BUFFER_BYTES))
        return [_answer(one) for one in reading.read(files, self._local.buffer, _unheard)]

    def close(self) -> None:
        """End the threads and the helpers."""
        self._pool.shutdown(cancel_futures=True)
        self.helpers.close()


def _answer(one: tuple[bytes, reading.Found | OSError]) -> Answer:
    path, found = one
    return path, found if isinstance(found, OSError) else _read_back(found)


def _unheard(moved: int) -> bool:
    return False


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _read_back(found: reading.Found, *, is_named: bool = False) -> ReadBack:
    value, size, is_device = found
    return ReadBack(value, size, ReadFrom.DEVICE if is_device else ReadFrom.CACHE, is_named)
