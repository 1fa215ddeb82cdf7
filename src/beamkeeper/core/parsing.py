"""Reading large bodies that register files: in a process of its own while many come, so that two cores have work."""

from __future__ import annotations

import gc
import marshal
import os
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

from beamkeeper.domain.arriving import Arriving
from beamkeeper.domain.arriving_body import read
from beamkeeper.plugins.helpers import IDLE_S, HelperEndedError, Helpers, Report

LARGE_BYTES, MOST_BYTES = 256 * 1024, 32 * 1024 * 1024
"""Bodies of these sizes are given away: of smaller ones reading takes no longer than giving them away."""

LOOK_AFTER = 1_000_000
"""The helper looks for cycles after so many objects, some hundred bodies: they make none."""

SWARM_BYTES, SWARM_S = 1024 * 1024, 2.0
"""A helper is started where so much came within so long: who sends a thousand files in one call has more."""


def work(order: Any, report: Report) -> None:
    """Read the body that stands in the service's memory, and put what it brings in its place; the helper's side."""
    gc.set_threshold(LOOK_AFTER)
    with open(order["memory"], "r+b", buffering=0) as memory:
        found = read(os.pread(memory.fileno(), order["bytes"], 0)) if order["bytes"] else None
        answer = b"" if found is None else marshal.dumps(list(map(tuple, found)))
        _put(memory.fileno(), answer)
    report.add(len(answer))


class Parser:
    """Gives bodies to a helper while many come; may be used from several threads."""

    def __init__(self) -> None:
        self._helpers = Helpers("beamkeeper.core.parsing")
        self._lock = threading.Lock()
        """Held by who has a body in the memory."""
        self._came: deque[tuple[float, int]] = deque()
        self._memory: int | None = None
        self._used_at: float | None = None
        """When the helper was last seen to work; None where none is known to."""
        self.is_asked = False
        """Whether a helper is being started."""

    @property
    def helpers(self) -> list[int]:
        """The processes that are there, by their numbers."""
        return self._helpers.idle

    def read(self, content: bytes) -> list[Arriving] | None:
        """Return what a body brings; None where it has to be read here, since it is refused or nobody helps."""
        if not LARGE_BYTES <= len(content) <= MOST_BYTES or not self._is_swarm(len(content)):
            return None
        if self._used_at is None or time.monotonic() - self._used_at > IDLE_S / 2:
            if not self.is_asked:
                self.is_asked = True
                threading.Thread(target=self._ask, args=(b"",), name="parser", daemon=True).start()
            return None
        answer = self._ask(content)
        return list(map(Arriving._make, marshal.loads(answer))) if answer else None  # noqa: S302 - our own

    def close(self) -> None:
        """End the helper, and give the memory back."""
        with self._lock:
            self._helpers.close()
            if self._memory is not None:
                os.close(self._memory)
                self._memory = None

    def _is_swarm(self, size: int) -> bool:
        now = time.monotonic()
        self._came.append((now, size))
        with suppress(IndexError):  # another thread was faster
            while self._came[0][0] < now - SWARM_S:
                self._came.popleft()
        return sum(size for _, size in list(self._came)) >= SWARM_BYTES

    def _ask(self, content: bytes) -> bytes:
        """Return the helper's answer, empty where there is none."""
        with self._lock:
            try:
                if self._memory is None:
                    self._memory = os.memfd_create("beamkeeper-bodies")
                _put(self._memory, content)
                order = {"memory": f"/proc/{os.getpid()}/fd/{self._memory}", "bytes": len(content)}
                (length,) = self._helpers.work([order], lambda _: False)
                answer = os.pread(self._memory, length, 0)
                os.ftruncate(self._memory, 0)
            except (HelperEndedError, OSError, ValueError):
                self._used_at = None
                return b""
            finally:
                self.is_asked = False
            self._used_at = time.monotonic()
            return answer


def _put(memory: int, content: bytes) -> None:
    rest, at = memoryview(content), 0
    os.ftruncate(memory, 0)
    while at < len(rest):
        at += os.pwrite(memory, rest[at:], at)
