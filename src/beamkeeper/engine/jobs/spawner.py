"""The spawner: a small process with one thread that forks runners: forking is cheap where little is in memory.

It reads orders from its standard input (four bytes of length, then JSON), and answers a line of JSON for each with the
runner's pid. It ends when its input does; runners go on. What a killed runner leaves behind comes to it, and is
killed.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import struct
import sys
from contextlib import suppress
from typing import Any

from beamkeeper.engine.jobs import points, runner, tree

LENGTH = struct.Struct(">I")


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
    return _Spawner(reading).run()


class _Spawner:
    """Takes orders and reaps runners."""

    def __init__(self, wakeups: int) -> None:
        self._wakeups = wakeups
        self._runners: set[int] = set()
        self._read = b""

    def run(self) -> int:
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(self._wakeups, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._wakeups in ready:
                _empty(self._wakeups)
                self._reap()
            if 0 in ready and not self._take_orders():
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
            self._fork(json.loads(order))
        return bool(piece)

    def _fork(self, order: dict[str, Any]) -> None:
        points.hit("attempt-forking")
        try:
            pid = os.fork()
        except OSError as error:
            _answer({"attempt": order["attempt"], "error": error.strerror})
            return
        if not pid:
            self._become_runner(order)
        self._runners.add(pid)
        _answer({"attempt": order["attempt"], "pid": pid, "start_ticks": tree.start_ticks(pid)})

    def _become_runner(self, order: dict[str, Any]) -> None:
        status = 1
        try:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            os.close(self._wakeups)
            runner.run(order)
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
            self._runners.discard(pid)
        strays = [pid for pid in tree.children(os.getpid()) if pid not in self._runners]
        below = {pid for stray in strays for pid in (stray, *tree.descendants(stray))}
        tree.kill(below)


def _answer(facts: dict[str, Any]) -> None:
    data = json.dumps(facts).encode() + b"\n"
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
