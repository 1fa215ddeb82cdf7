"""Runners that take one attempt after another: to fork one costs more than what most commands do."""

from __future__ import annotations

import json
import os
import signal
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from beamkeeper.engine.jobs import runner

LENGTH = struct.Struct(">I")
"""An order is sent as its length and JSON."""

MOST_ATTEMPTS = 200
"""A runner ends after so many, and what it has gathered in memory goes with it: another one is a fork."""

MOST_IDLE = 16
"""So many wait for another attempt; more end."""


def work(order: dict[str, Any], orders: int, ended: int, most: int = MOST_ATTEMPTS) -> None:
    """Run an attempt, say that it has ended, and take the next one, until the spawner is gone or it is enough."""
    os.setsid()
    mine = b"%d\n" % os.getpid()
    for left in range(most, 0, -1):
        runner.run(order)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it was meant for an attempt, and that has ended
        if left == 1 or not _write(ended, mine) or (found := next_order(orders)) is None:
            return
        order = found


def next_order(orders: int) -> dict[str, Any] | None:
    """Return the next order; None where there is none any more."""
    if (size := _read(orders, LENGTH.size)) is None or (data := _read(orders, LENGTH.unpack(size)[0])) is None:
        return None
    found: dict[str, Any] = json.loads(data)
    return found


def _read(descriptor: int, size: int) -> bytes | None:
    """Read so many bytes; None where the other end is closed."""
    data = b""
    while len(data) < size:
        piece = os.read(descriptor, size - len(data))
        if not piece:
            return None
        data += piece
    return data


def _write(descriptor: int, data: bytes) -> bool:
    """Write all, and tell whether there is anybody to read it."""
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except BrokenPipeError:
        return False
    return True


class Hands:
    """The runners of a spawner: those that have an attempt, and those that wait for another one."""

    def __init__(self) -> None:
        self.ended, self.ended_there = os.pipe2(os.O_CLOEXEC)
        """A pipe through which all of them say that an attempt has ended."""
        os.set_blocking(self.ended, False)
        self.pids: set[int] = set()
        self._orders: dict[int, int] = {}
        self._attempts: dict[int, str] = {}
        self._idle: list[int] = []
        self._told = b""

    @property
    def count(self) -> int:
        """How many runners have an attempt."""
        return len(self._attempts)

    def give(self, order: dict[str, Any]) -> int | None:
        """Give an attempt to a runner that waits for one, and return its pid; None where none does."""
        data = json.dumps(order).encode()
        while self._idle:
            pid = self._idle.pop()
            if _write(self._orders[pid], LENGTH.pack(len(data)) + data):
                self._attempts[pid] = order["attempt"]
                return pid
        return None

    def fork(self, order: dict[str, Any]) -> tuple[int, int]:
        """Fork a runner for an attempt; return its pid, and in the runner 0 with where its next orders come from."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.fork()
        except OSError:
            os.close(reading)
            os.close(writing)
            raise
        if not pid:
            # With a copy of another's pipe in here, that one would not hear that the spawner is gone.
            for descriptor in (self.ended, writing, *self._orders.values()):
                os.close(descriptor)
            return 0, reading
        os.close(reading)
        self.pids.add(pid)
        self._orders[pid], self._attempts[pid] = writing, order["attempt"]
        return pid, -1

    def take_ended(self) -> Iterator[str]:
        """Yield the attempts that have ended; their runners wait for others, or end where many do."""
        with suppress(BlockingIOError):
            while piece := os.read(self.ended, 1 << 16):
                self._told += piece
        *pids, self._told = self._told.split(b"\n")
        for pid in map(int, pids):
            attempt = self._attempts.pop(pid, None)
            if attempt is None:
                continue
            if len(self._idle) < MOST_IDLE:
                self._idle.append(pid)
            else:
                os.close(self._orders.pop(pid))
            yield attempt

    def died(self, pid: int) -> None:
        """Count on a runner no more."""
        self.pids.discard(pid)
        self._attempts.pop(pid, None)
        if pid in self._idle:
            self._idle.remove(pid)
        if pid in self._orders:
            os.close(self._orders.pop(pid))
