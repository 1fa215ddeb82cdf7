"""Running attempts on this machine: orders to the spawner, and one thread that waits for runners to end."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beamkeeper.engine.jobs import runner, tree
from beamkeeper.engine.jobs.hands import LENGTH
from beamkeeper.engine.jobs.orders import ATTEMPT_MODE
from beamkeeper.engine.jobs.spawning import Spawning

logger = logging.getLogger(__name__)

_POLL_S = 0.2

PATIENCE_S, AGAIN_S = 1.0, 1.0
"""So long the end of what a killed runner left is awaited, and then it is left alone: others wait meanwhile."""

TORN: Mapping[str, Any] = {"pid": 0, "start_ticks": -1, "boot_id": "", "words": "", "place": None}
"""A claim that is there and cannot be read, as after a power cut: the attempt was taken, and nobody knows where."""


@dataclass(frozen=True, slots=True)
class Over:
    """An attempt that is over here: with its result, or with what is known without one."""

    attempt: str
    result: Mapping[str, Any] | None
    has_begun: bool = True


@dataclass
class _Watched:
    """An attempt that was ordered; its runner, once that is known."""

    directory: Path
    door: Sequence[str] = ()
    pid: int = 0
    start_ticks: int = 0
    descriptor: int = -1
    is_ordered: bool = True
    is_to_stop: bool = False
    is_of_this_boot: bool = True
    """Else the machine went down since it was ordered: what its directory lacks may have been lost with it."""
    again_at: float = 0.0
    """When it is looked at again, where it could not be decided what it is."""


class LocalRuns:
    """Attempts on this machine. `news` is called, in another thread, when one is over; `warn` where one is stuck."""

    def __init__(
        self, news: Callable[[], None], warn: Callable[[str], None] = logger.warning, *, slots: int = 100
    ) -> None:
        self._news, self._warn = news, warn
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._watched: dict[str, _Watched] = {}
        self._over: list[Over] = []
        self._spawning = Spawning(slots, self._spawner_has_begun)
        self._poll = select.epoll()
        self._by_descriptor: dict[int, str] = {}
        self._answers = b""
        self._thread: threading.Thread | None = None
        self._is_closing = False
        self.groups = tree.group_roots()

    def expect(self, order: Mapping[str, Any]) -> None:
        """Take note of an attempt that is ordered by and by, unless it is stopped or forgotten before."""
        with self._lock:
            watched = _Watched(Path(order["directory"]), order["door"], is_ordered=False)
            self._watched[order["attempt"]] = watched
            self._begin_thread()

    def start(self, order: Mapping[str, Any]) -> None:
        """Order an attempt that is expected; its directory is there."""
        with self._lock:
            watched = self._watched.get(order["attempt"])
            if watched is None or watched.is_ordered:
                return
            watched.is_ordered = True
        spawner = self._spawning.running()
        if spawner is not None:  # else we end, and the next process finds an attempt that never began
            self._tell(spawner, order)

    def warm(self) -> None:
        """Get ready for orders that will come."""
        self._spawning.warm()

    def _tell(self, spawner: subprocess.Popen[bytes], order: Mapping[str, Any]) -> None:
        data = json.dumps(order).encode()
        try:
            with self._writing:
                _write_all(spawner, LENGTH.pack(len(data)) + data)
        except OSError:
            self._spawner_is_gone(spawner)

    def attach(self, order: Mapping[str, Any], *, boot_id: str) -> None:
        """Find an attempt that a process before this one ordered: it runs, is over, or never began."""
        attempt = order["attempt"]
        with self._lock:
            watched = _Watched(Path(order["directory"]), order["door"], is_of_this_boot=boot_id == tree.boot_id())
            self._watched[attempt] = watched
            self._begin_thread()
        self._examine(attempt)

    def stop(self, attempt: str) -> None:
        """Ask an attempt to end, with everything that it started."""
        with self._lock:
            watched = self._watched.get(attempt)
            if watched is None:
                return
            watched.is_to_stop = True
            if watched.pid:
                _signal(watched)
            spawner = self._spawning.present
            if not watched.is_ordered:
                del self._watched[attempt]
                self._over.append(Over(attempt, None, has_begun=False))
        if not watched.is_ordered:
            self._news()
        elif not watched.pid and spawner is not None:
            self._tell(spawner, {"drop": attempt})  # it may be held until there is room

    def take_over(self) -> list[Over]:
        """Return the attempts that are over since the last time."""
        with self._lock:
            found, self._over = self._over, []
        return found

    @property
    def has_news(self) -> bool:
        """Whether an attempt is over that nobody has taken."""
        return bool(self._over)

    def refuse(self, attempt: str, result: Mapping[str, Any] | None) -> None:
        """Say that an attempt is over that was never ordered here."""
        with self._lock:
            self._watched.pop(attempt, None)
            self._over.append(Over(attempt, result))
        self._news()

    def forget(self) -> None:
        """Forget every attempt, to be given them anew; runners go on."""
        with self._lock:
            for watched in self._watched.values():
                self._unwatch(watched)
            self._watched.clear()
            self._over.clear()

    def rest(self) -> None:
        """End the spawner where it has had nothing to do for a while."""
        if self._spawning.is_idle and not self._watched and (spawner := self._spawning.part_with()) is not None:
            self._part_with(spawner)

    def close(self) -> None:
        """Let runners go on, and watch them no more."""
        self._is_closing = True
        spawner = self._spawning.close()
        if self._thread is not None:
            self._thread.join(timeout=5)
        if spawner is not None:
            self._part_with(spawner)
        self.forget()
        self._poll.close()

    def _part_with(self, spawner: subprocess.Popen[bytes]) -> None:
        """End a spawner: it ends with its input."""
        for pipe in (spawner.stdin, spawner.stdout):
            if pipe is None:
                continue
            with suppress(OSError, ValueError):
                self._poll.unregister(pipe.fileno())
            with suppress(OSError):
                pipe.close()
        spawner.wait(timeout=10)

    def _spawner_has_begun(self, spawner: subprocess.Popen[bytes]) -> None:
        """Listen to a new spawner."""
        self._answers = b""
        if spawner.stdout is not None:
            os.set_blocking(spawner.stdout.fileno(), False)
            self._poll.register(spawner.stdout.fileno(), select.EPOLLIN | select.EPOLLHUP)

    def _begin_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="runners", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        while not self._is_closing:
            try:
                for descriptor, _ in self._poll.poll(_POLL_S):
                    attempt = self._by_descriptor.get(descriptor)
                    if attempt is not None:
                        self._examine(attempt)
                    else:
                        self._hear(descriptor)
                self._look_at_unwatchable()
            except Exception as error:  # without this thread no job would end any more
                self._warn(f"attempts could not be looked at: {type(error).__name__}: {error}")
                time.sleep(AGAIN_S)

    def _look_at_unwatchable(self) -> None:
        """See after runners of which there is no descriptor, as on kernels before 5.3, and what was left undecided."""
        now = time.monotonic()
        with self._lock:
            unwatched = {name: one for name, one in self._watched.items() if one.descriptor < 0}
            blind = [name for name, one in unwatched.items() if (one.pid or one.again_at) and one.again_at <= now]
        for attempt in blind:
            self._examine(attempt)

    def _hear(self, descriptor: int) -> None:
        """Take the spawner's answers."""
        spawner = self._spawning.present
        try:
            piece = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            if spawner is not None and spawner.stdout is not None and spawner.stdout.fileno() == descriptor:
                self._spawner_is_gone(spawner)
            return
        *lines, self._answers = (self._answers + piece).split(b"\n")
        for line in lines:
            facts = json.loads(line)
            if "pid" in facts and facts["start_ticks"] is not None:
                self._follow(facts["attempt"], int(facts["pid"]), int(facts["start_ticks"]))
            else:
                self._examine(facts["attempt"])

    def _spawner_is_gone(self, spawner: subprocess.Popen[bytes]) -> None:
        """Find out what became of the orders that a spawner took with it."""
        if self._spawning.part_with(spawner) is None:
            return
        with self._lock:
            unknown = [name for name, one in self._watched.items() if not one.pid]
        with suppress(OSError):
            spawner.kill()
        self._part_with(spawner)
        logger.warning("the spawner of jobs ended, and is started again when needed")
        for attempt in unknown:
            self._examine(attempt)

    def _follow(self, attempt: str, pid: int, start_ticks: int) -> None:
        """Wait for a runner's end."""
        with self._lock:
            watched = self._watched.get(attempt)
            if watched is None:
                return
            watched.pid, watched.start_ticks = pid, start_ticks
            try:
                watched.descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                watched.descriptor = -1
            except OSError:
                watched.descriptor = -1
            else:
                self._by_descriptor[watched.descriptor] = attempt
                self._poll.register(watched.descriptor, select.EPOLLIN)
            if watched.is_to_stop:
                _signal(watched)
        if tree.start_ticks(pid) != start_ticks:
            self._examine(attempt)

    def _examine(self, attempt: str) -> None:
        """Decide what an attempt is, or look again later."""
        with self._lock:
            watched = self._watched.get(attempt)
        if watched is None:
            return
        try:
            self._decide(attempt, watched)
        except OSError as error:
            self._look_again(attempt, watched, f"its directory cannot be used: {error}")

    def _look_again(self, attempt: str, watched: _Watched, why: str) -> None:
        if not watched.again_at:
            self._warn(f"it cannot be told yet what became of an attempt: {why} ({watched.directory})")
        with self._lock:
            watched.again_at = time.monotonic() + AGAIN_S
            self._unwatch(watched)

    def _unwatch(self, watched: _Watched) -> None:
        """Wait for a runner's end no more."""
        if watched.descriptor >= 0:
            self._by_descriptor.pop(watched.descriptor, None)
            with suppress(OSError):
                self._poll.unregister(watched.descriptor)
            os.close(watched.descriptor)
            watched.descriptor = -1

    def _decide(self, attempt: str, watched: _Watched) -> None:
        """Decide what an attempt is from its directory and the process that took it."""
        found = read_result(watched.directory)
        if found is not None:
            self._is_over(Over(attempt, found))
            return
        claim = read_claim(watched.directory)
        if claim is None:
            if watched.pid and tree.start_ticks(watched.pid) == watched.start_ticks:
                return  # a runner that is about to take it
            claim = take_away(watched.directory)
        if claim is None or claim["words"]:
            is_certain = claim is not None or watched.is_of_this_boot
            self._is_over(Over(attempt, None, has_begun=not is_certain))
            return
        pid, ticks = int(claim["pid"]), int(claim["start_ticks"])
        if claim["boot_id"] == tree.boot_id() and tree.start_ticks(pid) == ticks:
            if watched.descriptor < 0 and not watched.pid:
                self._follow(attempt, pid, ticks)
            return
        found = read_result(watched.directory)  # it may have been written since we looked
        is_left = found is None and claim["boot_id"] == tree.boot_id()
        if is_left and not tree.end_left(self.groups, attempt, watched.door, PATIENCE_S):
            self._look_again(attempt, watched, "what it left behind does not end")
            return
        is_known = found is not None or not watched.is_of_this_boot
        has_begun = is_known or (watched.directory / runner.STARTED).exists()
        self._is_over(Over(attempt, found, has_begun=has_begun))

    def _is_over(self, over: Over) -> None:
        with self._lock:
            watched = self._watched.pop(over.attempt, None)
            if watched is None:
                return
            self._unwatch(watched)
            self._over.append(over)
        self._news()


def read_result(directory: Path) -> Mapping[str, Any] | None:
    """Return the result of an attempt; None where there is none that is whole."""
    try:
        with open(f"{directory}/{runner.RESULT}", "rb", buffering=0) as file:
            found = json.loads(file.read())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and "exit_status" in found else None


def read_claim(directory: Path) -> Mapping[str, Any] | None:
    """Return who has taken an attempt; None where nobody has, and TORN where nobody can say any more who has."""
    try:
        with open(f"{directory}/{runner.CLAIM}", "rb", buffering=0) as file:
            found: Mapping[str, Any] = json.loads(file.read())
    except FileNotFoundError:
        return None
    except ValueError:
        return TORN
    return found


def take_away(directory: Path) -> Mapping[str, Any] | None:
    """Take an attempt so that no runner can, and return who has it: None where it is us."""
    # A process that was only stopped may yet go on, make the directory, and order the attempt.
    directory.mkdir(mode=ATTEMPT_MODE, parents=True, exist_ok=True)
    return None if runner.take(str(directory), words="taken away") else read_claim(directory)


def _signal(watched: _Watched) -> None:
    """Tell a runner to end an attempt: by a file, since by now it may have another one, which nobody means."""
    if tree.start_ticks(watched.pid) == watched.start_ticks:
        with suppress(ProcessLookupError, PermissionError, FileNotFoundError):
            (watched.directory / runner.STOP).touch(0o600)
            os.kill(watched.pid, signal.SIGTERM)


def _write_all(spawner: subprocess.Popen[bytes], data: bytes) -> None:
    if spawner.stdin is None:
        raise OSError("the spawner has no input")
    view = memoryview(data)
    while view:
        view = view[os.write(spawner.stdin.fileno(), view) :]
