"""A runner: one process that runs one attempt, and outlives the service that asked for it.

It takes the attempt (nobody can take it twice), starts the command, keeps what it writes, holds it to its limits,
ends everything that it left behind, and writes the result so that a crash cannot lose it. Only then it ends, and
whoever watches it reads the result. It is forked, never started, and knows nothing of databases or services.
"""

from __future__ import annotations

import json
import os
import resource
import select
import shlex
import signal
import time
from contextlib import suppress
from typing import Any

from beamkeeper.domain.captured import STREAMS, Capture
from beamkeeper.engine.jobs import points, tree

CLAIM, STARTED, RESULT = "claimed.json", "started", "result.json"
"""Files of an attempt: who has taken it; that its command may have begun; what came of it."""

CHECK_S = 0.25
"""So often processes are counted, where no control group does it."""

_CHUNK = 1 << 18


def run(order: dict[str, Any]) -> None:
    """Run one attempt to its end."""
    os.setsid()
    directory = order["directory"]
    points.hit("attempt-forked")
    if take(directory):
        _Run(order).run()


def take(directory: str, *, words: str = "") -> bool:
    """Take an attempt; False where it is taken already. With `words`, it is taken so that nobody runs it."""
    pid = os.getpid()
    facts = {"pid": pid, "start_ticks": tree.start_ticks(pid), "boot_id": tree.boot_id(), "words": words}
    new = f"{directory}/.claim.{pid}"
    _write(new, json.dumps(facts).encode())
    try:
        os.link(new, f"{directory}/{CLAIM}")  # whole or not at all, and once
    except FileExistsError:
        return False
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
        _write(f"{self._directory}/{STARTED}", b"")
        points.hit("attempt-beginning")
        self._began, self._began_at = time.monotonic(), time.time()
        fault = self._start()
        points.hit("attempt-running")
        if not fault:
            self._follow(wakeups)
        points.hit("attempt-ended")
        left = self._end_tree()
        self._drain()
        for capture in self._captures.values():
            capture.close()
        out_of_memory = tree.was_out_of_memory(self._groups)
        tree.remove_groups(self._groups)
        self._write_result(fault, left=left, out_of_memory=out_of_memory)

    def _listen(self) -> int:
        """Let signals wake the poll; return the descriptor that becomes readable."""
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_stop)
        self._poll.register(reading, select.POLLIN)
        return reading

    def _on_stop(self, *_: object) -> None:
        self._stop("stopped")

    def _start(self) -> dict[str, Any] | None:
        """Fork the command; return why it could not be started."""
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in STREAMS]
        fault_read, fault_write = os.pipe2(os.O_CLOEXEC)
        pid = os.getpid()
        self._child = os.fork()
        if not self._child:
            _become(self._order, self._groups, [writing for _, writing in pipes], fault_write, pid)
        os.close(fault_write)
        for name, (reading, writing) in zip(STREAMS, pipes, strict=True):
            os.close(writing)
            os.set_blocking(reading, False)
            self._captures[reading] = self._capture(name)
            self._poll.register(reading, select.POLLIN)
        told = b""
        while piece := os.read(fault_read, 4096):  # ends as the command is executed
            told += piece
        os.close(fault_read)
        found: dict[str, Any] | None = json.loads(told) if told else None
        return found

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
        status = self._status
        is_exit = status is not None and os.WIFEXITED(status)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = {
            "attempt": self._order["attempt"],
            "exit_status": os.WEXITSTATUS(status) if status is not None and is_exit and not fault else None,
            "signal": os.WTERMSIG(status) if status is not None and not is_exit else None,
            "why": "memory" if out_of_memory and not self._why else self._why,
            "fault": fault,
            "left_behind": left,
            "started_at": self._began_at,
            "run_time_s": time.monotonic() - self._began,
            "cpu_s": used.ru_utime + used.ru_stime,
            "memory_bytes": used.ru_maxrss * 1024,
        }
        points.hit("result-writing")
        write_durably(self._directory, RESULT, json.dumps(result).encode())
        points.hit("result-written")


def _become(order: dict[str, Any], groups: list[str], outputs: list[int], fault_pipe: int, parent: int) -> None:
    """Turn this forked process into the command; never returns."""
    what = "start"
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGPIPE, signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        tree.enter(groups)
        os.dup2(_exports(order["environment"]) if order["door"] else os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(outputs[0], 1)
        os.dup2(outputs[1], 2)
        os.umask(0o027)
        _limit_resources(order, groups)
        if order["uid"] is not None:
            what = "account"
            os.initgroups(order["account"], order["gid"])
            os.setresgid(order["gid"], order["gid"], order["gid"])
            os.setresuid(order["uid"], order["uid"], order["uid"])
        tree.die_with_parent()
        if os.getppid() != parent:
            os._exit(125)
        what = "directory"
        os.chdir(order["cwd"])
        what = "command"
        environment = {} if order["door"] else order["environment"]
        os.execve(order["argv"][0], order["argv"], environment)  # noqa: S606 - the shell, or the door, is argv[0]
    except BaseException as error:
        code = getattr(error, "strerror", None) or str(error)
        os.write(fault_pipe, json.dumps({"what": what, "error": code}).encode())
    os._exit(126)


def _exports(environment: dict[str, str]) -> int:
    """Return an input in which the shell behind a door finds its environment: in memory, and read once."""
    text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    descriptor = os.memfd_create("environment", os.MFD_CLOEXEC)
    with open(os.dup(descriptor), "wb") as file:
        file.write(os.fsencode(text))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _limit_resources(order: dict[str, Any], groups: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if order["file_bytes"]:
        _lower(resource.RLIMIT_FSIZE, order["file_bytes"])
    if order["memory_bytes"] and not any("/memory/" in path for path in groups):
        _lower(resource.RLIMIT_AS, order["memory_bytes"])


def _lower(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


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


def write_durably(directory: str, name: str, data: bytes) -> None:
    """Write a file whole or not at all, so that neither a crash nor a power cut can take it back."""
    new = f"{directory}/{name}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(new, f"{directory}/{name}")
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
