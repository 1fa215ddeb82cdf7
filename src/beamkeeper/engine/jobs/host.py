"""The process in which an executor lives: its memory and its threads are not the service's, and nor is its end.

It reads messages from its standard input (four bytes of length, then JSON): first the name of the plugin with its
options, then orders. It answers with lines of JSON. When its input ends, the service has: what has begun goes on, and
this process ends with the last of it.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from beamkeeper.engine.jobs import runner
from beamkeeper.engine.jobs.hands import LENGTH
from beamkeeper.plugins.executors import Executor, Task
from beamkeeper.plugins.load import executor_of

ENTRY = "beamkeeper.engine.jobs.node:run"
LOOK_S = 1.0
CLOSE_S = 30.0


def main() -> int:
    """Keep one executor until its input ends, or it cannot go on."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    messages = _Messages()
    begun: list[dict[str, Any]] = []
    while not begun and not messages.has_ended:
        begun = messages.take(None)
    if not begun:
        return 0
    first, *orders = begun
    executor = executor_of(first["plugin"], first["options"], Path(first["directory"]))
    host = _Host(executor, answers)
    try:
        return host.run(messages, orders)
    finally:
        # A library whose parts were killed may wait for them for ever: the nodes find out by themselves.
        hung = threading.Timer(CLOSE_S, os._exit, [1])
        hung.daemon = True
        hung.start()
        executor.close()


class _Messages:
    """What comes in, as far as it is there."""

    def __init__(self) -> None:
        self._read = b""
        self.has_ended = False

    def take(self, timeout_s: float | None) -> list[dict[str, Any]]:
        """Return the messages that come within a time."""
        ready, _, _ = select.select([0], [], [], timeout_s)
        if not ready:
            return []
        piece = os.read(0, 1 << 16)
        self.has_ended = not piece
        self._read += piece
        found = []
        while len(self._read) >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self._read)
            if len(self._read) < LENGTH.size + size:
                break
            found.append(json.loads(self._read[LENGTH.size : LENGTH.size + size]))
            self._read = self._read[LENGTH.size + size :]
        return found


class _Host:
    """Gives orders to an executor, and passes on what it tells."""

    def __init__(self, executor: Executor, answers: int) -> None:
        self._executor = executor
        self._answers = answers
        self._lock = threading.Lock()
        self._under: dict[str, str] = {}
        """Attempts under way, with their directories."""

    def run(self, messages: _Messages, orders: Sequence[dict[str, Any]]) -> int:
        looked_at = time.monotonic()
        for order in orders:
            self._start(order)
        while not (messages.has_ended and not self._is_anything_under()):
            if messages.has_ended:
                time.sleep(LOOK_S)
            else:
                for order in messages.take(LOOK_S):
                    self._start(order)
            if time.monotonic() - looked_at >= LOOK_S:
                looked_at = time.monotonic()
                if fault := self._executor.fault():
                    self._answer({"fault": fault})
                    return 1
        return 0

    def _start(self, order: dict[str, Any]) -> None:
        attempt = order["attempt"]
        with self._lock:
            self._under[attempt] = order["directory"]
        try:
            self._executor.start(Task(attempt, ENTRY, order), lambda why: self._told(attempt, why))
        except Exception as error:  # of a plugin: the attempt hears of it, and the others go on
            self._told(attempt, f"{type(error).__name__}: {error}")

    def _told(self, attempt: str, why: str) -> None:
        with self._lock:
            self._under.pop(attempt, None)
        self._answer({"attempt": attempt, "lost": why})

    def _answer(self, facts: dict[str, str]) -> None:
        data = json.dumps(facts).encode() + b"\n"
        with self._lock:
            try:
                while data:
                    data = data[os.write(self._answers, data) :]
            except BrokenPipeError:
                pass  # the service has ended; the next one finds what was written

    def _is_anything_under(self) -> bool:
        """Whether anything is left to be waited for.

        What was taken away from us is not, and nor is what has its result: executors do not tell of every end.
        """
        with self._lock:
            under = list(self._under.values())
        return any(not (_has_result(directory) or _is_taken_away(directory)) for directory in under)


def _has_result(directory: str) -> bool:
    return os.path.exists(f"{directory}/{runner.RESULT}")


def _is_taken_away(directory: str) -> bool:
    try:
        with open(f"{directory}/{runner.CLAIM}", "rb") as file:
            return bool(json.load(file)["words"])
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    sys.exit(main())
