"""Manners at the source: its writer comes first.

Copying threads read in the kernel's idle class, keep to limits by hour, and hold back while writes to the source's own
disk take longer than they do without us. That is measured where the writer feels it: the kernel counts, for each
disk, the writes and how long they took. (The kernel's figure of 'pressure' will not do: our own waiting counts in it.)
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from beamkeeper.domain.limits import Limit, allowed_at
from beamkeeper.engine.mounts import mount_of

# The class of reading (ioprio_set(2)).

_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "ppc64le": 273, "s390x": 282}
_THIS_THREAD = (1, 0)
_CLASSES = {"best-effort": 2 << 13 | 7, "idle": 3 << 13}
SystemCall = Callable[..., int]


def set_io_class(
    io_class: str,
    *,
    call: SystemCall | None = None,
    machine: str = os.uname().machine,
    is_64: bool = sys.maxsize > 2**32,
) -> str:
    """Give this thread, and those that it starts, an I/O class; return why it has none, or nothing.

    Where the kernel refuses, files are copied all the same: manners are no reason to lose data.
    """
    if io_class not in _CLASSES:
        return ""
    number = _IOPRIO_SET.get(machine) if is_64 else None
    if number is None:
        return f"I/O classes are not known on {machine}"
    if (call or _system_call)(number, *_THIS_THREAD, _CLASSES[io_class]) == 0:
        return ""
    return f"the kernel refuses the I/O class {io_class}: {os.strerror(ctypes.get_errno() or errno.ENOSYS).lower()}"


def _system_call(*arguments: int) -> int:
    return int(ctypes.CDLL(None, use_errno=True).syscall(*arguments))


# Limits by hour.

SLICE_S = 0.2
"""Who waits looks up so often whether to end, and whether another hour has come."""


class Limiter:
    """Lets bytes pass no faster than the hour allows; shared by all threads. What was not used is not saved up."""

    def __init__(
        self,
        limits: Sequence[Limit],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        rest: Callable[[float], None] = time.sleep,
    ) -> None:
        self.now = now
        """The time at the station."""
        self._limits = limits
        self._clock = clock
        self._rest = rest
        self._lock = threading.Lock()
        self._asked = 0.0
        self._passed = 0.0
        self._paid_at = clock()

    def hold(self, moved: int, is_over: Callable[[], bool]) -> None:
        """Take how many bytes have moved; return when more may."""
        if not self._limits:
            return
        with self._lock:
            self._pay()
            self._asked += moved
            mine = self._asked
        while not is_over():
            with self._lock:
                rate = self._pay()
                left = mine - self._passed
            if rate is None or left < 1:  # floating point may never come to nothing
                return
            self._rest(min(SLICE_S, left / rate))

    def _pay(self) -> int | None:
        rate, now = allowed_at(self._limits, self.now().time()), self._clock()
        passed = self._asked if rate is None else self._passed + rate * (now - self._paid_at)
        self._passed, self._paid_at = min(self._asked, passed), now
        return rate


# Backing off.


class WriteTime(NamedTuple):
    """How many writes a disk has had since the start, and for how many milliseconds they were under way."""

    writes: int
    milliseconds: int


def write_time(device: int, table: str = "/proc/diskstats") -> WriteTime | None:
    """Return what the kernel counts of a disk (Documentation/admin-guide/iostats); None where it counts nothing."""
    wanted = [str(os.major(device)), str(os.minor(device))]
    with suppress(OSError, ValueError, IndexError), open(table) as lines:
        for line in lines:
            fields = line.split()
            if fields[:2] == wanted:
                return WriteTime(int(fields[7]), int(fields[10]))
    return None


def disk_of(path: bytes) -> int | None:
    """Return the number of the disk that a directory lies on; None where it is not on one, such as on a network."""
    try:
        device = os.stat(path).st_dev
        if write_time(device) is not None:
            return device
        opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            source = mount_of(opened).source  # of file systems such as Btrfs, whose own numbers are no disk's
        finally:
            os.close(opened)
        device = os.stat(source).st_rdev if source.startswith("/dev/") else 0
    except OSError:
        return None
    return device if device and write_time(device) is not None else None


LEAST_SHARE = 0.25
"""Copying goes on with this share of its time at the least, so that the disk is not full in the end."""

FEW_WRITES = 4
LEAST_RISE_MS = 5.0
USUAL_MS = 10.0
"""What a write takes on a disk of which it was never measured."""

PATIENCE = 5
"""After so many looks at which it did not get better, nothing is read for one, to see how the disk is without us."""


@dataclass(slots=True)
class Pace:
    """How much of its time a thread may spend on copying from one disk."""

    rise: float
    share: float = 1.0
    calm_ms: float | None = None
    """What a write takes while nothing is copied."""
    _raised: int = 0

    def look(self, before: WriteTime, after: WriteTime, moved: int) -> None:
        """Take in what the disk did between two looks, while so many bytes were read from it."""
        writes = after.writes - before.writes
        if writes < FEW_WRITES:
            self.share, self._raised = min(1.0, max(LEAST_SHARE, self.share * 1.5)), 0
            return
        took_ms = (after.milliseconds - before.milliseconds) / writes
        is_calm = moved == 0 or self.share == 0.0
        if is_calm:
            self.calm_ms = took_ms if self.calm_ms is None else 0.7 * self.calm_ms + 0.3 * took_ms
        bearable = self.rise * (USUAL_MS if self.calm_ms is None else self.calm_ms) + LEAST_RISE_MS
        if is_calm or took_ms <= bearable:
            self.share, self._raised = min(1.0, max(LEAST_SHARE, self.share * 1.5)), 0
            return
        self._raised += 1
        self.share = max(LEAST_SHARE, self.share / 2)
        if self._raised % PATIENCE == 0:
            self.share = 0.0


MOST_REST_S = 2.0


class Manners:
    """Holds up threads that copy, as limits and the source's disk ask for."""

    def __init__(
        self,
        limiter: Limiter,
        *,
        rise: float,
        clock: Callable[[], float] = time.monotonic,
        rest: Callable[[float], None] = time.sleep,
    ) -> None:
        self.limiter = limiter
        self._rise = rise
        self._clock = clock
        self._rest = rest
        self._lock = threading.Lock()
        self._paces: dict[int, Pace] = {}
        self._moved: dict[int, int] = {}
        self._of_thread = threading.local()

    def hold(self, moved: int, is_over: Callable[[], bool], device: int) -> None:
        """Take how many bytes were read from a file system; return when more may be."""
        self.limiter.hold(moved, is_over)
        pace = self._paces.get(device)
        if pace is None:
            self._of_thread.since = None
            return
        with self._lock:
            self._moved[device] = self._moved.get(device, 0) + moved
        now, since = self._clock(), getattr(self._of_thread, "since", None)
        if since is not None and 0.0 < pace.share < 1.0:
            self._wait(min(MOST_REST_S, (now - since) * (1 / pace.share - 1)), is_over)
        while pace.share == 0.0 and not is_over():
            self._rest(SLICE_S)
        self._of_thread.since = self._clock()

    def _wait(self, seconds: float, is_over: Callable[[], bool]) -> None:
        ends = self._clock() + seconds
        while (left := ends - self._clock()) > 0 and not is_over():
            self._rest(min(SLICE_S, left))

    def share(self, device: int) -> float:
        """Return which share of its time copying from a file system has now."""
        pace = self._paces.get(device)
        return 1.0 if pace is None else pace.share

    def look(self, device: int, before: WriteTime, after: WriteTime) -> None:
        """Take in what the disk of a file system did since the last look."""
        with self._lock:
            moved = self._moved.pop(device, 0)
            pace = self._paces.get(device) or Pace(self._rise)
        pace.look(before, after, moved)
        self._paces[device] = pace

    def leave(self, device: int) -> None:
        """Hold nobody up any more: nothing writes to this file system now."""
        if (pace := self._paces.get(device)) is not None:
            pace.share = 1.0  # for who waits
            del self._paces[device]
