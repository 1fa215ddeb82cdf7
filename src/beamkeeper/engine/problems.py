"""Problems are told at once to the log and the status, and to the site's own command, which is never waited for."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from beamkeeper.domain.acquisition import Acquisition
from beamkeeper.domain.names import Uid, show_path
from beamkeeper.domain.problems import Problem, ProblemKind
from beamkeeper.engine.worker import Loop, Report

logger = logging.getLogger(__name__)

Tell = Callable[[Problem], None]
"""Takes a problem; returns at once."""

GATHER_S = 60.0
"""After a problem was told, more of the same kind of the same DAQ are gathered so long, and told as one."""

MOST_PATHS, LONGEST_PATH, LONGEST_MESSAGE = 20, 200, 1000
"""So that the facts always fit into a pipe: a command that does not read them holds nobody up."""

PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ")
"""All that the command gets of our environment: what else is in there is nobody else's."""


def about(kind: ProblemKind, acquisition: Acquisition | None, message: str, paths: Sequence[bytes] = ()) -> Problem:
    """Return a problem of a DAQ or upload, or of none."""
    where: dict[str, Any] = {}
    if acquisition is not None:
        directory = "/" + show_path(acquisition.relpath)
        where = {"acquisition_uid": acquisition.uid, "experiment": acquisition.experiment, "directory": directory}
    shown = tuple(show_path(path)[:LONGEST_PATH] for path in paths[:MOST_PATHS])
    count, at = max(1, len(paths)), datetime.now(UTC)
    return Problem(kind=kind, message=message[:LONGEST_MESSAGE], at=at, count=count, paths=shown, **where)


@dataclass(slots=True)
class _Gathered:
    waiting: Problem | None
    tell_at: float


class Problems(Loop):
    """Tells problems to the command of the setting `acquisition.on_problem`, one at a time, in a thread of its own.

    The command is an argv list and no shell; it gets the facts as JSON on its standard input, and the plain ones as
    DM_PROBLEM_* in its environment. One that runs longer than `timeout_s` is ended. It may fail: that is told too.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        station: str,
        report: Report,
        timeout_s: float = 30.0,
        gather_s: float = GATHER_S,
    ) -> None:
        super().__init__("problems", report=report, idle_s=30.0)
        self._command = list(command)
        self._station = station
        self._timeout_s = timeout_s
        self._gather_s = gather_s
        self._lock = threading.Lock()
        self._gathered: dict[tuple[ProblemKind, Uid | None], _Gathered] = {}

    def tell(self, problem: Problem) -> None:
        """Take a problem, and return at once; may be called from every thread."""
        key = (problem.kind, problem.acquisition_uid)
        now = time.monotonic()
        with self._lock:
            known = self._gathered.get(key)
            if known is None:
                self._gathered[key] = _Gathered(problem, now)
            else:
                known.waiting = problem if known.waiting is None else _merged(known.waiting, problem)
        if known is None:
            where = f" (experiment {problem.experiment}, {problem.directory})" if problem.experiment else ""
            self._report(f"{problem.message}{where}")
            logger.warning(
                "problem", extra={"kind": str(problem.kind), "why": problem.message, "at": problem.directory}
            )
        self.wake()

    def step(self) -> bool:
        """Tell what is due, and forget what has been quiet."""
        now = time.monotonic()
        due: list[Problem] = []
        with self._lock:
            for key, gathered in list(self._gathered.items()):
                if gathered.tell_at > now:
                    continue
                if gathered.waiting is None:
                    del self._gathered[key]
                else:
                    due.append(gathered.waiting)
                    gathered.waiting, gathered.tell_at = None, now + self._gather_s
            times = [gathered.tell_at for gathered in self._gathered.values()]
        for problem in due:
            if self._command and not self.is_stopping:
                self._run(problem)
        self._idle_s = max(0.05, min(times, default=now + 30.0) - time.monotonic())
        return False

    def _run(self, problem: Problem) -> None:
        facts = {**problem.model_dump(mode="json"), "station": self._station}
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(facts),
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            self._report(f"on_problem: {self._command[0]} cannot be run: {os.strerror(error.errno or 0).lower()}")
            return
        try:
            self._await(process, json.dumps(facts).encode())
        finally:
            # Itself and what it started, while its number is still its own.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _await(self, process: subprocess.Popen[bytes], facts: bytes) -> None:
        deadline = time.monotonic() + self._timeout_s
        if process.stdin is not None:
            with suppress(BrokenPipeError), process.stdin:  # not everybody reads it; it fits into the pipe
                process.stdin.write(facts)
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > deadline or self._stopping.wait(0.02):
                self._report(f"on_problem: {self._command[0]} took longer than {self._timeout_s:g} s, and was ended")
                return
        result = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if result is not None and result.si_status != 0:
            self._report(f"on_problem: {self._command[0]} ended with status {result.si_status}: run it by hand to see")


def _merged(first: Problem, last: Problem) -> Problem:
    paths = tuple(dict.fromkeys((*first.paths, *last.paths)))[:MOST_PATHS]
    changed = {"message": last.message, "count": first.count + last.count, "paths": paths}
    return first.model_copy(update=changed)


def _environment(facts: dict[str, object]) -> dict[str, str]:
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    told = ("kind", "message", "station", "experiment", "directory", "acquisition_uid", "count")
    return passed | {f"DM_PROBLEM_{name.upper()}": str(facts[name] or "") for name in told}
