"""Helper processes for work that is mostly calls to the kernel, a thousand files at a time.

In a thread of a service each such call gives the interpreter lock away and waits to get it back from threads that
compute: for many small files that takes longer than the calls. A helper is a small interpreter of its own, started
when there is much to do and ended when there has been nothing for a while; it imports one light module with a
function `work(order, report)`. What a helper did when it died is done again by whoever gave the order.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

IDLE_S = 15.0
"""A helper without work for so long is ended."""

MOST_IDLE = 4
"""So many helpers are kept for the next order; more are ended at once."""

FLUSH_RESULTS = 16
FLUSH_BYTES = 8 * 1024 * 1024
WINDOW = 4
"""So many reports may be unanswered: who is told to wait waits after these."""

_GO, _STOP = b"\0\0\0\0", b"\xff\xff\xff\xff"
_LENGTH = struct.Struct(">I")
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV")


class HelperEndedError(Exception):
    """A helper ended before its order was done."""


class _Helper:
    """One process, as the service sees it."""

    def __init__(self, module: str) -> None:
        self.idle_since = 0.0
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "beamkeeper.plugins.helpers", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,  # what a buffer has taken in, poll does not tell of
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            )
        except OSError as error:  # no more processes or descriptors: no fault of a file or of a storage area
            raise HelperEndedError(f"no helper can be started: {error.strerror}") from error
        if self.process.stdin is None or self.process.stdout is None:
            raise HelperEndedError("a helper has no pipes")
        self._orders, self.answers = self.process.stdin, self.process.stdout

    def give(self, order: object) -> None:
        _write(self._orders.fileno(), json.dumps(order).encode())

    def take(self) -> dict[str, Any]:
        frame = _read(self.answers.fileno())
        if not frame:
            raise HelperEndedError("a helper ended before its order was done")
        found: dict[str, Any] = json.loads(frame)
        return found

    def answer(self, is_over: bool) -> None:
        with suppress(BrokenPipeError):  # the next report tells
            os.write(self._orders.fileno(), _STOP if is_over else _GO)

    def end(self) -> None:
        """End it now: it holds nothing that counts."""
        self.process.kill()
        with suppress(BrokenPipeError), self.process:
            pass


class Helpers:
    """The helpers that run one module's `work`; may be used from several threads."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._lock = threading.Lock()
        self._idle: list[_Helper] = []
        self._timer: threading.Timer | None = None

    def work(self, orders: Sequence[object], stop: Callable[[int], bool]) -> Iterator[Any]:
        """Have orders done side by side, and yield what is reported; HelperEndedError where one is left undone.

        `stop` is called with how much was moved, for each report; when it says so no further piece is begun.
        """
        going: dict[int, _Helper] = {}
        poll = select.poll()
        try:
            for order in orders:
                helper = self._take()
                going[helper.answers.fileno()] = helper
                poll.register(helper.answers, select.POLLIN)
                try:
                    helper.give(order)
                except BrokenPipeError as error:
                    raise HelperEndedError("a helper ended before its order was done") from error
            while going:
                for descriptor, _ in poll.poll():
                    report = going[descriptor].take()
                    yield from report["results"]
                    if report["end"]:
                        poll.unregister(descriptor)
                        self._give_back(going.pop(descriptor))
                    else:
                        going[descriptor].answer(stop(report["moved"]))
        finally:
            for helper in going.values():
                helper.end()

    @property
    def idle(self) -> list[int]:
        """The processes that live and have nothing to do, by their numbers."""
        with self._lock:
            return [helper.process.pid for helper in self._idle if helper.process.poll() is None]

    def close(self) -> None:
        """End those that have nothing to do."""
        with self._lock:
            for helper in self._idle:
                helper.end()
            self._idle.clear()

    def _take(self) -> _Helper:
        with self._lock:
            while self._idle:
                helper = self._idle.pop()
                if helper.process.poll() is None:
                    return helper
                helper.end()
        return _Helper(self._module)

    def _give_back(self, helper: _Helper) -> None:
        helper.idle_since = time.monotonic()
        with self._lock:
            if len(self._idle) >= MOST_IDLE:
                helper.end()
                return
            self._idle.append(helper)
            self._watch()

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(IDLE_S, self._end_idle)
            self._timer.daemon = True
            self._timer.start()

    def _end_idle(self) -> None:
        with self._lock:
            self._timer = None
            oldest = time.monotonic() - IDLE_S
            for helper in [helper for helper in self._idle if helper.idle_since <= oldest]:
                self._idle.remove(helper)
                helper.end()
            if self._idle:
                self._watch()


class Report:
    """How the work tells what it has done; the helper's side."""

    def __init__(self, out: int) -> None:
        self._out = out
        self._results: list[object] = []
        self._moved = 0
        self._unanswered = 0
        self._is_over = False
        self._news = threading.Condition()

    def answered(self, is_over: bool) -> None:
        """Take an answer to a report; called by the thread that reads."""
        with self._news:
            self._unanswered -= 1
            self._is_over = self._is_over or is_over
            self._news.notify()

    def add(self, result: object) -> None:
        """Tell of one thing that is done."""
        self._results.append(result)
        if len(self._results) >= FLUSH_RESULTS:
            self._flush()

    def moved(self, count: int = 0) -> bool:
        """Tell that so many bytes were moved; True where no more is to be begun."""
        self._moved += count
        if self._moved >= FLUSH_BYTES:
            self._flush()
        return self._is_over

    def end(self) -> None:
        """Tell that the order is done."""
        self._write(is_end=True)

    def _flush(self) -> None:
        self._write(is_end=False)
        with self._news:
            self._unanswered += 1
            while self._unanswered >= WINDOW:
                self._news.wait()

    def _write(self, *, is_end: bool) -> None:
        frame = {"results": self._results, "moved": self._moved, "end": is_end}
        self._results, self._moved = [], 0
        _write(self._out, json.dumps(frame).encode())


def _write(descriptor: int, content: bytes) -> None:
    rest = memoryview(_LENGTH.pack(len(content)) + content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _read(descriptor: int) -> bytes:
    """Return the next message; empty at the end of all."""
    head = _exactly(descriptor, _LENGTH.size)
    return _exactly(descriptor, _LENGTH.unpack(head)[0]) if head else b""


def _exactly(descriptor: int, count: int) -> bytes:
    content = bytearray()
    while len(content) < count:
        piece = os.read(descriptor, count - len(content))
        if not piece:
            return b""
        content += piece
    return bytes(content)


class _Orders:
    """Reads what the service sends, in a thread: when the service is gone, this process ends in the middle of all."""

    def __init__(self) -> None:
        self.waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.report: Report | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while head := _exactly(0, _LENGTH.size):
            if head in (_GO, _STOP):
                if self.report is not None:
                    self.report.answered(head == _STOP)
            elif content := _exactly(0, _LENGTH.unpack(head)[0]):
                self.waiting.put(json.loads(content))
        os._exit(0)


def main() -> None:
    """Do one order after the other until the service has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the service's terminal is not ours
    module = importlib.import_module(sys.argv[1])
    answers = os.dup(1)
    os.dup2(2, 1)  # what anybody prints must not get between the answers
    orders = _Orders()
    while True:
        order = orders.waiting.get()
        report = orders.report = Report(answers)
        module.work(order, report)
        report.end()


if __name__ == "__main__":
    main()
