"""The spawner: a small process with one thread that forks runners: forking is cheap where little is in memory.

It reads orders from its standard input (four bytes of length, then JSON), and answers a line of JSON for each with the
runner's pid, and another one when a runner says that its attempt has ended. No more attempts than its argument says are
under way; others are held until one has ended, or are dropped where that is asked. It ends when its input does; runners
go on to the end of what they have. What a killed runner leaves behind comes to it, and is killed.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
from contextlib import suppress
from typing import Any

from beamkeeper.engine.jobs import points, runner, tree
from beamkeeper.engine.jobs.hands import LENGTH, Hands, work


def main() -> int:
    """Fork runners until the input ends."""
    gc.collect()
    gc.disable()
    gc.freeze()  # what is forked shares what is there, as long as nobody looks through it
    tree.adopt_orphans()
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return _Spawner(reading, int(sys.argv[1])).run()


class _Spawner:
    """Takes orders and reaps runners."""

    def __init__(self, wakeups: int, slots: int) -> None:
        self._wakeups, self._slots = wakeups, slots
        self._held: dict[str, dict[str, Any]] = {}
        self._hands = Hands()
        self._read = b""

    def run(self) -> int:
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(self._wakeups, select.POLLIN)
        poll.register(self._hands.ended, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._wakeups in ready:
                _empty(self._wakeups)
                self._reap()
            if self._hands.ended in ready:
                _answer([{"attempt": attempt, "ended": True} for attempt in self._hands.take_ended()])
            if 0 in ready and not self._take_orders():
                return self._part()
            self._begin_held()

    def _part(self) -> int:
        """Write down of what is held that nobody has begun it: after a restart of the machine nothing else tells."""
        for order in self._held.values():
            runner.take(order["directory"], words="the service ended")
        return 0

    def _take_orders(self) -> bool:
        piece = os.read(0, 1 << 16)
        self._read += piece
        while len(self._read) >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self._read)
            if len(self._read) < LENGTH.size + size:
                break
            order = self._read[LENGTH.size : LENGTH.size + size]
            self._read = self._read[LENGTH.size + size :]
            self._take(json.loads(order))
        return bool(piece)

    def _take(self, order: dict[str, Any]) -> None:
        """Hold an order until it is begun, or drop one that was held."""
        if "drop" not in order:
            self._held[order["attempt"]] = order
        elif self._held.pop(order["drop"], None) is not None:
            _answer([{"attempt": order["drop"], "error": "it was dropped"}])

    def _begin_held(self) -> None:
        """Begin what is held, the oldest first, as far as there is room."""
        while self._held and self._hands.count < self._slots:
            self._fork(self._held.pop(next(iter(self._held))))

    def _fork(self, order: dict[str, Any]) -> None:
        points.hit("attempt-forking")
        pid = self._hands.give(order)
        if pid is None:
            try:
                pid, orders = self._hands.fork(order)
            except OSError as error:
                _answer([{"attempt": order["attempt"], "error": error.strerror}])
                return
            if not pid:
                self._become_runner(order, orders)
        _answer([{"attempt": order["attempt"], "pid": pid, "start_ticks": tree.start_ticks(pid)}])

    def _become_runner(self, order: dict[str, Any], orders: int) -> None:
        status = 1
        try:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            os.close(self._wakeups)
            work(order, orders, self._hands.ended_there)
            status = 0
        except BaseException as error:
            sys.stderr.write(f"runner of attempt {order.get('attempt')}: {type(error).__name__}: {error}\n")
            sys.stderr.flush()
        finally:
            os._exit(status)

    def _reap(self) -> None:
        """Wait for runners that have ended, and kill what one left that was killed."""
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                break
            self._hands.died(pid)
        strays = [pid for pid in tree.children(os.getpid()) if pid not in self._hands.pids]
        below = {pid for stray in strays for pid in (stray, *tree.descendants(stray))}
        tree.kill(below)


def _answer(facts: list[dict[str, Any]]) -> None:
    data = b"".join(json.dumps(each).encode() + b"\n" for each in facts)
    try:
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError:
        pass  # the service has ended; the next one finds the runner by its attempt


def _empty(descriptor: int) -> None:
    with suppress(BlockingIOError):
        while os.read(descriptor, 512):
            pass


if __name__ == "__main__":
    sys.exit(main())
