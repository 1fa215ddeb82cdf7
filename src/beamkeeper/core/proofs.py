"""Whether a copy in another storage area has the bytes that the catalogue knows: read as a whole, once, and remembered.

A small copy is read while its reader waits. A large one takes minutes: it is read on by a thread of its own, no request
waits longer than a few seconds for it, and whoever asks again hears how far it has come.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from blake3 import blake3

from beamkeeper.core.arrays import Opened
from beamkeeper.domain.errors import UnavailableError
from beamkeeper.domain.names import Algorithm, RelPath, show_path

BLOCK = 1024 * 1024
HANGING_S = 30.0
"""A copy of which nothing could be read for so long is none to wait for."""

WRONG_S = 60.0
"""For so long a copy that was not right is not read again."""

KNOWN = 10_000
"""So many copies are remembered, in the state that they were read in."""

MOST_READ = 16
"""So many copies are read at once."""

SO_FAR = "so_far"
"""In the details of an error: how much of a copy has been read. Who sees it grow may go on asking."""

Key = tuple[str, bytes, str]
"""A directory, a path below it, and the state of what stands there."""


@dataclass(slots=True, eq=False)
class _Reading:
    """A copy that is being read."""

    so_far: int = 0
    moved_at: float = field(default_factory=time.monotonic)
    ended: threading.Event = field(default_factory=threading.Event)
    is_right: bool = False


class Proofs:
    """Reads copies as a whole, and remembers which were right; may be asked from several threads."""

    waits_s = 5.0
    """So long a request waits for a copy to be read."""

    def __init__(self, read: Callable[[int, int, int], bytes] = os.pread) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._going: dict[tuple[Key, str], _Reading] = {}
        self._found: OrderedDict[tuple[Key, str], tuple[bool, float]] = OrderedDict()
        """What was right, and until when that counts."""
        self._right: dict[Key, str] = {}

    def was_right(self, directory: str, path: RelPath, state: str) -> bool:
        """Whether a copy in this very state was found right here, by whatever checksum."""
        with self._lock:
            return (directory, bytes(path), state) in self._right

    def is_right(self, directory: str, path: RelPath, checksum: str, copy: Opened) -> bool:
        """Whether a copy has this checksum; UnavailableError, with how far it was read, where that takes longer."""
        key = (directory, bytes(path), copy.state), checksum
        with self._lock:
            is_right, until = self._found.get(key, (False, -math.inf))
            if until > time.monotonic():
                self._found.move_to_end(key)
                return is_right
            reading = self._going.get(key) or self._begin(key, copy)
        if reading.ended.wait(self.waits_s):
            return reading.is_right
        if time.monotonic() - reading.moved_at > HANGING_S:
            return False
        raise UnavailableError(
            f'"{show_path(path)[:1000]}" is read in another storage area first, to see that it is right there: '
            f"{reading.so_far} of {copy.size} bytes so far; try again",
            **{SO_FAR: reading.so_far},
        )

    def _begin(self, key: tuple[Key, str], copy: Opened) -> _Reading:
        if len(self._going) >= MOST_READ:
            raise UnavailableError(f"{MOST_READ} copies are being read to see whether they are right: try again later")
        reading = self._going[key] = _Reading()
        descriptor = os.dup(copy.descriptor)
        try:
            threading.Thread(target=self._run, args=(key, reading, descriptor), name="prove", daemon=True).start()
        except BaseException:
            os.close(descriptor)
            del self._going[key]
            raise
        return reading

    def _run(self, key: tuple[Key, str], reading: _Reading, descriptor: int) -> None:
        try:
            before = _state(descriptor)
            is_read = self._digest(descriptor, key[1], reading) == key[1]
            reading.is_right = is_read and _state(descriptor) == before
        except OSError:
            reading.is_right = False
        finally:
            os.close(descriptor)
            with self._lock:
                self._keep(key, is_right=reading.is_right)
                del self._going[key]
            reading.ended.set()

    def _keep(self, key: tuple[Key, str], *, is_right: bool) -> None:
        self._found[key] = is_right, math.inf if is_right else time.monotonic() + WRONG_S
        if is_right:
            self._right[key[0]] = key[1]
        while len(self._found) > KNOWN:
            (copy, checksum), _ = self._found.popitem(last=False)
            if self._right.get(copy) == checksum:
                del self._right[copy]

    def _digest(self, descriptor: int, checksum: str, reading: _Reading) -> str:
        algorithm = Algorithm(checksum.partition(":")[0])
        made = blake3() if algorithm is Algorithm.BLAKE3 else hashlib.new(str(algorithm), usedforsecurity=False)
        while block := self._read(descriptor, BLOCK, reading.so_far):
            made.update(block)
            reading.so_far += len(block)
            reading.moved_at = time.monotonic()
        return f"{algorithm}:{made.hexdigest()}"


def _state(descriptor: int) -> tuple[int, int, int]:
    found = os.fstat(descriptor)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
