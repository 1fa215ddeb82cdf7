"""A runner: one process that runs one attempt at a time, and outlives the service that asked for it.

It takes the attempt (nobody can take it twice), starts the command, keeps what it writes, holds it to its limits,
ends everything that it left behind, and writes the result so that a crash cannot lose it. Only then it ends, or says
so and takes another one, and whoever watches it reads the result. It is forked, never started, and knows nothing of
databases or services.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import time
from contextlib import suppress
from typing import Any

from beamkeeper.domain.captured import STREAMS, Capture
from beamkeeper.engine.jobs import command, points, tree

CLAIM, STARTED, STOP, RESULT = "claimed.json", "started", "stop", "result.json"
"""Files of an attempt: who has taken it; that its command may have begun; that it is to end; what came of it."""

LONGEST_RESULT = 2048

CHECK_S = 0.25
"""So often processes are counted, where no control group does it."""

_CHUNK = 1 << 18


def run(order: dict[str, Any]) -> None:
    """Run one attempt to its end."""
    points.hit("attempt-forked")
    if take(order["directory"], place=order.get("place")):
        _Run(order).run()


def take(directory: str, *, words: str = "", place: dict[str, str] | None = None) -> bool:
    """Take an attempt; False where it is taken already. With `words`, it is taken so that nobody runs it."""
    pid = os.getpid()
    facts = {
        "pid": pid,
        "start_ticks": tree.start_ticks(pid),
        "boot_id": tree.boot_id(),
        "words": words,
        "place": place,
    }
    new = f"{directory}/.claim.{pid}"
    _write(new, json.dumps(facts).encode())
    try:
        os.link(new, f"{directory}/{CLAIM}")  # whole or not at all, and once
    except FileExistsError:
        return os.stat(new).st_nlink == 2  # a file system over a network may have done it, and be asked again
    finally:
        os.unlink(new)
    return True


class _Run:
    """What a runner knows of its attempt."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self._directory: str = order["directory"]
        self._groups: list[str] = []
        self._child = 0
        self._status: int | None = None
        self._why = ""
        self._kill_at: float | None = None
        self._poll = select.poll()
        self._captures: dict[int, Capture] = {}
        self._began = time.monotonic()
        self._began_at = time.time()

    def run(self) -> None:
        """Start the command, follow it to its end, and write the result."""
        points.hit("attempt-taken")
        tree.adopt_orphans()
        wakeups = self._listen()
        self._groups = tree.make_groups(
            self._order["groups"],
            self._order["attempt"],
            processes=self._order["processes"],
            memory_bytes=self._order["memory_bytes"],
        )
        # Its room is taken before the command can fill the disk.
        _write(f"{self._directory}/{RESULT}.new", b" " * LONGEST_RESULT)
        _say_started(self._directory)
        points.hit("attempt-beginning")
        self._began, self._began_at = time.monotonic(), time.time()
        fault = None
        if not self._why:
            fault = self._start()
            points.hit("attempt-running")
            if not fault:
                self._follow(wakeups)
        points.hit("attempt-ended")
        left = self._end_tree()
        self._drain()
        for descriptor, capture in self._captures.items():
            capture.close()
            os.close(descriptor)
        os.close(signal.set_wakeup_fd(-1))
        os.close(wakeups)
        out_of_memory = tree.was_out_of_memory(self._groups)
        tree.remove_groups(self._groups)
        self._write_result(fault, left=left, out_of_memory=out_of_memory)

    def _listen(self) -> int:
        """Let signals wake the poll; return the descriptor that becomes readable."""
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, lambda *_: None)  # not ignored, which a command would inherit
        self._poll.register(reading, select.POLLIN)
        self._on_stop()
        return reading

    def _on_stop(self, *signals: object) -> None:
        if os.path.exists(f"{self._directory}/{STOP}"):  # else it was meant for the attempt before, and is late
            self._stop("stopped")
        elif signals and self._order.get("place"):
            self._stop("lost")  # elsewhere it is the machine that ends us, or our worker has ended

    def _start(self) -> dict[str, Any] | None:
        """Start the command; return why it could not be started."""
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in STREAMS]
        self._child, fault = command.start(self._order, self._groups, [writing for _, writing in pipes])
        for name, (reading, writing) in zip(STREAMS, pipes, strict=True):
            os.close(writing)
            os.set_blocking(reading, False)
            self._captures[reading] = self._capture(name)
            self._poll.register(reading, select.POLLIN)
        return fault

    def _capture(self, name: str) -> Capture:
        secrets = [secret.encode() for secret in self._order["secrets"]]
        path = f"{self._directory}/{name}"
        return Capture(path, head=self._order["head_bytes"], tail=self._order["tail_bytes"], secrets=secrets)

    def _follow(self, wakeups: int) -> None:
        """Take what the command writes until it has ended, holding it to its limits."""
        next_count = time.monotonic() + CHECK_S
        is_counted = self._order["processes"] and not any("/pids/" in path for path in self._groups)
        self._reap()
        while self._status is None:
            now = time.monotonic()
            ends = [self._ends_at()] + ([next_count] if is_counted else [])
            left = min((at for at in ends if at is not None), default=None)
            for descriptor, _ in self._poll.poll(None if left is None else max(0, left - now) * 1000 + 1):
                if descriptor == wakeups:
                    _empty(wakeups)
                elif descriptor in self._captures:
                    self._take(descriptor)
            self._reap()
            self._limit()
            if is_counted and time.monotonic() >= next_count:
                next_count = time.monotonic() + CHECK_S
                if len(tree.descendants(os.getpid())) > self._order["processes"]:
                    self._stop("processes", at_once=True)

    def _ends_at(self) -> float | None:
        if self._kill_at is not None:
            return self._kill_at
        timeout = self._order["timeout_s"]
        return None if timeout is None else self._began + float(timeout)

    def _limit(self) -> None:
        now = time.monotonic()
        if self._kill_at is not None:
            if now >= self._kill_at and self._status is None:
                self._kill_all()
                self._kill_at = now + 0.05
        elif self._order["timeout_s"] is not None and now - self._began >= self._order["timeout_s"]:
            self._stop("timeout")

    def _stop(self, why: str, *, at_once: bool = False) -> None:
        """Ask everything to end, and set the time at which it is killed."""
        if not self._why:
            self._why = why
            grace = 0.0 if at_once else float(self._order["grace_s"])
            self._kill_at = time.monotonic() + grace
            if not at_once:
                self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        pids = set(tree.descendants(os.getpid())) | tree.members(self._groups)
        refused = tree.kill(pids, number)
        door = self._order["door"]
        # They run under another account, so the signal goes by the same door. None is stopped: sudo, which nobody
        # but root may wake, stops with its command.
        if refused and door and number != signal.SIGSTOP:
            tree.call([*door, "/bin/kill", f"-{int(number)}", *map(str, refused)])

    def _kill_all(self) -> None:
        # Stopped first: what forks faster than we can list has to hold still.
        self._signal(signal.SIGSTOP)
        tree.kill_groups(self._groups)
        self._signal(signal.SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self._child:
                self._status = status

    def _end_tree(self) -> int:
        """End what the command has left behind; return how many processes that were."""
        left: set[int] = set()
        pause = 0.0005
        while True:
            self._reap()
            found = {
                pid
                for pid in (*tree.descendants(os.getpid()), *tree.members(self._groups))
                if tree.start_ticks(pid) is not None
            }
            if not found and not tree.children(os.getpid()):
                return len(left)
            left |= found
            self._kill_all()
            time.sleep(pause)
            pause = min(pause * 2, 0.5)

    def _drain(self) -> None:
        for descriptor in list(self._captures):
            while self._take(descriptor):
                pass

    def _take(self, descriptor: int) -> bool:
        """Take a piece of what was written; tell whether there was one."""
        try:
            piece = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return False
        if piece:
            try:
                self._captures[descriptor].write(piece)
            except OSError as error:
                self._why = self._why or f"output: {error.strerror}"
                self._kill_at = self._kill_at or time.monotonic()
            return True
        with suppress(KeyError):
            self._poll.unregister(descriptor)
        return False

    def _write_result(self, fault: dict[str, Any] | None, *, left: int, out_of_memory: bool) -> None:
        if time.time() >= self._order.get("ends_at", math.inf):
            # Its machine ends everything, in what order nobody knows: a shell goes on when what it waits for is killed.
            self._why = self._why or "lost"
        status = self._status
        is_exit = status is not None and os.WIFEXITED(status)
        result = {
            "attempt": self._order["attempt"],
            "exit_status": os.WEXITSTATUS(status) if status is not None and is_exit and not fault else None,
            "signal": os.WTERMSIG(status) if status is not None and not is_exit else None,
            "why": "memory" if out_of_memory and not self._why else self._why,
            "fault": fault,
            "left_behind": left,
            "started_at": self._began_at,
            "run_time_s": time.monotonic() - self._began,
        }
        points.hit("result-writing")
        # Elsewhere its reader writes it down durably before anything follows: what a power cut takes away was unknown.
        write = write_whole if self._order.get("place") else write_durably
        write(self._directory, RESULT, json.dumps(result).encode())
        points.hit("result-written")


def _say_started(directory: str) -> None:
    """Leave the mark that a command may have begun: a second name of the claim, which costs no file of its own."""
    with suppress(FileExistsError):  # a file system over a network may have done it, and be asked again
        os.link(f"{directory}/{CLAIM}", f"{directory}/{STARTED}")


def _empty(descriptor: int) -> None:
    with suppress(BlockingIOError):
        while os.read(descriptor, 512):
            pass


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def write_whole(directory: str, name: str, data: bytes) -> None:
    """Write a file of which no reader finds a part; a power cut may take it back. What there is of its room is used."""
    new = f"{directory}/{name}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, data)
        os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)
    os.rename(new, f"{directory}/{name}")


def write_durably(directory: str, name: str, data: bytes) -> None:
    """Write a file so that neither a crash nor a power cut can take it back; no reader finds a part of it.

    What there is of `NAME.new` is written over: room that was taken before is used. The name comes before the syncs,
    of which the second then finds little to do. A power cut in between may leave a file that is no JSON, or no file:
    both mean that there is no result.
    """
    new = f"{directory}/{name}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, data)
        os.ftruncate(descriptor, len(data))
        os.rename(new, f"{directory}/{name}")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
