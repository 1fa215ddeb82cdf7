"""Running attempts elsewhere: orders to the host of an executor, and what became of them by evidence alone.

What an executor tells is a reason to look, never an answer. An attempt is over when its result lies in its directory.
One that nobody has taken may be ordered again, since it can be taken once; one that was taken and has no result is
unknown as soon as its scheduler says that nothing of its place is left, and not before.
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beamkeeper.engine.jobs import runner
from beamkeeper.engine.jobs.bell import Bell
from beamkeeper.engine.jobs.hands import LENGTH
from beamkeeper.engine.jobs.local import Over, read_claim, read_result, take_away
from beamkeeper.engine.jobs.passing import passed_on
from beamkeeper.engine.jobs.word import Word
from beamkeeper.engine.worker import Report

if TYPE_CHECKING:
    from beamkeeper.engine.jobs.carrying import Staging

logger = logging.getLogger(__name__)

POLL_S, LOOK_S = 0.5, 2.0
REST_S = 0.005
"""Orders and answers come in swarms: those of so short a time share a look."""

SHOWN_S = 30.0
"""A result that its runner has written is waited for so long: a shared file system may show it late."""

UNHEARD_S = 10.0
"""So often what an executor has in hand is looked at, though it tells of ends by itself."""

TRIES = 5
"""An attempt that an executor took and lost so often, without that it began, cannot be begun there."""

TAKES_S = 300.0
"""A host that takes nothing of an order for so long, and tells nothing, hangs; its executor may start slowly."""

LONGEST_PAUSE_S = 60.0
IDLE_S = 600.0


@dataclass(frozen=True, slots=True)
class ExecutorSpec:
    """An executor of the settings: the plugin, its options, and how many commands it takes at once."""

    plugin: str
    options: Mapping[str, Any]
    directory: Path
    slots: int
    staging: Staging | None = None
    """None where its nodes see our storage."""


@dataclass
class Sent:
    """An attempt that is somewhere else, or is to be."""

    directory: Path
    about: Mapping[str, Any]
    """Its order, or where a process before this one ordered it what we would order now."""
    order: Mapping[str, Any] | None = None
    """None where a process before this one ordered it."""
    is_expected: bool = False
    """It was announced, and will be ordered."""
    is_fresh: bool = False
    """It was never ordered, so that nobody can have taken it."""
    is_with_host: bool = False
    is_to_stop: bool = False
    returned_at: float = 0.0
    look_at: float = 0.0
    tries: int = 0
    why: str = ""


class RemoteRuns:
    """The attempts of one executor. `news` is called, in another thread, when one is over."""

    def __init__(self, name: str, spec: ExecutorSpec | None, news: Callable[[], None], report: Report) -> None:
        self._name, self._spec, self._news, self._report = name, spec, news, report
        self._lock = threading.RLock()
        self._sent: dict[str, Sent] = {}
        self._over: list[Over] = []
        self._host: subprocess.Popen[bytes] | None = None
        self._answers = b""
        self._start_at = 0.0
        self._failures = 0
        self._used = time.monotonic()
        self._word = Word()
        self._thread: threading.Thread | None = None
        self._bell = Bell()
        self._is_closing = False

    def expect(self, order: Mapping[str, Any]) -> None:
        """Take note of an attempt that is ordered by and by, unless it is stopped or forgotten before."""
        self._add(order["attempt"], Sent(Path(order["directory"]), order, is_expected=True))

    def start(self, order: Mapping[str, Any]) -> None:
        """Order an attempt that is expected; its directory is there."""
        with self._lock:
            sent = self._sent.get(order["attempt"])
            if sent is None or not sent.is_expected:
                return
            sent.order = sent.about = order
            sent.is_expected, sent.is_fresh, sent.look_at = False, True, 0.0
        self._bell.ring()

    def attach(self, order: Mapping[str, Any]) -> None:
        """Find an attempt that a process before this one ordered."""
        self._add(order["attempt"], Sent(Path(order["directory"]), order))

    def _add(self, attempt: str, sent: Sent) -> None:
        with self._lock:
            self._sent[attempt] = sent
            self._used = time.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name=f"executor {self._name}", daemon=True)
                self._thread.start()
        self._bell.ring()

    def stop(self, attempt: str) -> None:
        """Ask an attempt to end, with everything that it started; one that nobody took is over at once."""
        with self._lock:
            sent = self._sent.get(attempt)
            if sent is not None:
                sent.is_to_stop, sent.look_at = True, 0.0
        self._bell.ring()

    def drop(self, attempt: str) -> None:
        """Forget an attempt that was never ordered."""
        with self._lock:
            self._sent.pop(attempt, None)

    def look_at(self, attempt: str) -> None:
        """Look at an attempt now; called from any thread."""
        with self._lock:
            if (sent := self._sent.get(attempt)) is not None:
                sent.look_at = 0.0
        self._bell.ring()

    def take_over(self) -> list[Over]:
        """Return the attempts that are over since the last time."""
        with self._lock:
            found, self._over = self._over, []
        return found

    @property
    def has_news(self) -> bool:
        """Whether an attempt is over that nobody has taken."""
        return bool(self._over)

    def forget(self) -> None:
        """Forget every attempt, to be given them anew; what has begun goes on."""
        with self._lock:
            self._sent.clear()
            self._over.clear()

    def rest(self) -> None:
        """End the host where it has had nothing to do for long."""
        with self._lock:
            if self._host is not None and not self._sent and time.monotonic() - self._used > IDLE_S:
                self._part_with()

    def close(self) -> None:
        """Let what has begun go on, under a host that ends with the last of it."""
        self._is_closing = True
        self._bell.ring()
        if self._thread is not None:
            self._thread.join(timeout=10)
        with self._lock:
            self._part_with()
        self.forget()
        if self._thread is None or not self._thread.is_alive():
            self._bell.close()

    def _watch(self) -> None:
        while not self._is_closing:
            try:
                self._hear()
                self._look()
                self._pause()
            except Exception as error:  # such as of a shared file system that is away: nothing is concluded
                self._report(f"executor {self._name}: {type(error).__name__}: {error}")
                time.sleep(LOOK_S)

    def _pause(self) -> None:
        """Wait for the host's next word, or for ours."""
        host = self._host
        time.sleep(REST_S)
        self._bell.wait(POLL_S, *([] if host is None or host.stdout is None else [host.stdout.fileno()]))

    def _look(self) -> None:
        now = time.monotonic()
        with self._lock:
            due = [(name, one) for name, one in self._sent.items() if one.look_at <= now]
        for attempt, sent in due:
            sent.look_at = now + LOOK_S
            try:
                self._look_at(attempt, sent)
            except Exception as error:  # of one, which keeps no other back
                self._report(f"executor {self._name}: {type(error).__name__}: {error}")

    def _look_at(self, attempt: str, sent: Sent) -> None:
        is_fresh, sent.is_fresh = sent.is_fresh, False
        if is_fresh and not sent.is_to_stop:
            self.send(attempt, sent)
        elif sent.is_to_stop or not (sent.is_with_host or sent.is_expected):
            self._decide(attempt, sent)
        elif sent.is_with_host:
            self._ended_unheard(attempt, sent)

    def _decide(self, attempt: str, sent: Sent) -> None:
        """Decide what an attempt is from its directory, and from its scheduler's word."""
        found = read_result(sent.directory) if sent.returned_at else None
        claim = None if found is not None else read_claim(sent.directory)
        found = found or read_result(sent.directory)
        if found is not None:
            self.returned(attempt, sent, found)
        elif claim is None:
            self._not_taken(attempt, sent)
        elif claim["words"]:
            self._is_over(Over(attempt, None, has_begun=False))
        else:
            self._taken(attempt, sent, claim)

    def _ended_unheard(self, attempt: str, sent: Sent) -> None:
        """See whether what an executor has in hand has a result: one whose workers were killed may never tell."""
        sent.look_at += UNHEARD_S
        if (found := read_result(sent.directory)) is not None:
            self.returned(attempt, sent, found)

    def _not_taken(self, attempt: str, sent: Sent) -> None:
        """Order it again; or take it, where it is to end, where we have no order, or where it cannot be begun."""
        is_hopeless = sent.tries >= TRIES
        if sent.order is None or sent.is_to_stop or is_hopeless or self._spec is None:
            if take_away(sent.directory) is None:
                fault = {"what": "executor", "error": f'"{self._name}" could not begin it: {sent.why}'}
                result = {"fault": fault, "why": "", "exit_status": None, "signal": None}
                self._is_over(Over(attempt, result if is_hopeless else None, has_begun=is_hopeless))
        elif not sent.is_with_host:
            self.send(attempt, sent)

    def returned(self, attempt: str, sent: Sent, found: Mapping[str, Any]) -> None:
        """Say that an attempt is over, which has a result."""
        self._is_over(Over(attempt, found))

    def was_lost(self, attempt: str) -> None:
        """Take note that an executor has lost an attempt."""

    def _taken(self, attempt: str, sent: Sent, claim: Mapping[str, Any]) -> None:
        """Wait for its result as long as there may be one; then it is unknown, or never began."""
        if sent.is_to_stop:
            (sent.directory / runner.STOP).touch()
        if sent.is_with_host:
            return
        if sent.returned_at:
            is_there = time.monotonic() - sent.returned_at < SHOWN_S
        else:
            is_there = self._word.may_run(claim, sent.directory)
            if not is_there:
                sent.returned_at = time.monotonic() - SHOWN_S + LOOK_S  # one more look, for what was just written
                return
        if not is_there:
            self._is_over(Over(attempt, None, has_begun=(sent.directory / runner.STARTED).exists()))

    def _is_over(self, over: Over) -> None:
        with self._lock:
            if self._sent.pop(over.attempt, None) is None:
                return
            self._over.append(over)
            self._used = time.monotonic()
        self._news()

    def send(self, attempt: str, sent: Sent) -> None:
        """Order an attempt that nobody has taken."""
        self.give(sent, sent.about)

    def give(self, sent: Sent, order: Mapping[str, Any]) -> None:
        """Give an order to the host."""
        host = self._running_host()
        if host is None:
            return
        sent.is_with_host = True
        try:
            self._write(host, order)
        except OSError:
            self._host_is_gone("it takes no orders")

    def _running_host(self) -> subprocess.Popen[bytes] | None:
        """Return the host, started anew where it is time."""
        if self._host is not None or self._spec is None or time.monotonic() < self._start_at:
            return self._host
        self._spec.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._spec.directory / "log").open("ab") as log:
            self._host = subprocess.Popen(
                [sys.executable, "-P", "-m", "beamkeeper.engine.jobs.host"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                cwd=self._spec.directory,
                start_new_session=True,  # who kills our group does not mean what runs
                env=passed_on(),
            )
        if self._host.stdin is not None:
            os.set_blocking(self._host.stdin.fileno(), False)
        self._answers = b""
        first = {"plugin": self._spec.plugin, "options": self._spec.options, "directory": str(self._spec.directory)}
        try:
            self._write(self._host, first)
        except OSError:
            self._host_is_gone("it did not start")
        return self._host

    def _write(self, host: subprocess.Popen[bytes], message: object) -> None:
        """Send a message, and hear meanwhile what the host tells: before that is heard it may take nothing more."""
        if host.stdin is None or host.stdout is None:
            raise OSError("the host has no pipes")
        data = json.dumps(message).encode()
        view = memoryview(LENGTH.pack(len(data)) + data)
        while view and host is self._host:
            has_told, takes, _ = select.select([host.stdout], [host.stdin], [], TAKES_S)
            if has_told:
                self._hear()
            elif takes:
                with suppress(BlockingIOError):
                    view = view[os.write(host.stdin.fileno(), view) :]
            else:
                raise OSError("the host takes nothing")

    def _hear(self) -> None:
        """Take what the host tells."""
        host = self._host
        while host is not None and host is self._host and host.stdout is not None:
            if not select.select([host.stdout], [], [], 0)[0]:
                return
            piece = os.read(host.stdout.fileno(), 1 << 16)
            if not piece:
                self._host_is_gone("see its log")
                return
            *lines, self._answers = (self._answers + piece).split(b"\n")
            for line in lines:
                self._told(json.loads(line))

    def _told(self, facts: Mapping[str, str]) -> None:
        if "fault" in facts:
            with self._lock:  # it lost everything for that, which says nothing of any attempt
                for each in self._sent.values():
                    each.tries = 0
            self._host_is_gone(facts["fault"])  # at once: it may take long to end
            return
        with self._lock:
            sent = self._sent.get(facts["attempt"])
        if sent is None:
            return
        sent.is_with_host, sent.why, sent.tries = False, facts["lost"], sent.tries + 1
        now = time.monotonic()
        if sent.why:
            self.was_lost(facts["attempt"])
            logger.warning("an executor lost an attempt", extra={"attempt": facts["attempt"], "why": sent.why})
            sent.look_at = now + min(2.0 ** (sent.tries - 1), LONGEST_PAUSE_S)
        else:
            self._failures, sent.returned_at, sent.look_at = 0, now, 0.0

    def _host_is_gone(self, why: str) -> None:
        """Let everything be looked at, and start another host after a while."""
        with self._lock:
            self._part_with()
            self._failures += 1
            pause = min(2.0 ** min(self._failures, 10), LONGEST_PAUSE_S)
            self._start_at = time.monotonic() + pause
            for sent in self._sent.values():
                if sent.is_with_host:
                    sent.is_with_host, sent.tries = False, 0
        self._report(f"executor {self._name} ended and is started again in {pause:g} s: {why}")

    def _part_with(self) -> None:
        """Let the host end in its own time; one that hangs is nobody's business but its own."""
        host, self._host = self._host, None
        if host is None:
            return
        for pipe in (host.stdin, host.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        threading.Thread(target=host.wait, name="ended executor", daemon=True).start()
