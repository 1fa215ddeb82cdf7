"""Keeping one process alive: starting it again when it dies, stopping it in good order, telling whether it runs.

What is here imports neither pydantic nor anything else that is large: the supervisor lives as long as the
beamline does, and should cost next to nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from beamkeeper.domain.errors import ConflictError, NotPermittedError, UnavailableError
from beamkeeper.engine.processes import SUPERVISOR_VARIABLE, Process

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
STEADY_S = 60.0
"""A process that lived this long is started again at once, as if it had never died."""

GRACE_S = 20.0
"""How long a process may take to end after SIGTERM, before SIGKILL."""

REFUSED = 78
"""Exit status (EX_CONFIG of sysexits.h) of a process that will not run as things are: trying again would not help."""

LARGEST_LOG = 10_000_000
KEPT_LOGS = 5
_POLL_S = 0.02
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Running:
    """A supervisor that runs: what it was told, since when, and how often its process had to be started again."""

    process: Process
    argv: Sequence[str]
    started_at: str
    restarts: int
    child: Process | None


def run_file(data_dir: Path) -> Path:
    """Return the file in which a supervisor says that it runs."""
    return data_dir / "run" / "supervisor.json"


def log_file(data_dir: Path) -> Path:
    """Return the file that takes what the services write."""
    return data_dir / "log" / "beamkeeper.log"


def next_pause(before: float | None, lived_s: float) -> float:
    """Return how long to wait before a process is started again: longer each time that it dies young."""
    if before is None or lived_s >= STEADY_S:
        return FIRST_PAUSE_S
    return min(before * 2, LONGEST_PAUSE_S)


def supervise(argv: Sequence[str], data_dir: Path, *, log: Path | None = None, grace_s: float = GRACE_S) -> int:
    """Keep `argv` running until SIGTERM, SIGINT or SIGHUP; return the exit status for this process.

    `log` takes its output; without, it writes where we do. The status is REFUSED where the process ended so.
    Raises ConflictError where another supervisor has this data directory. Leaves the working directory.
    """
    data_dir = data_dir.absolute()
    run_file(data_dir).parent.mkdir(parents=True, exist_ok=True)
    os.chdir("/")  # a file system must not be kept busy by where we were started
    with _only_one(data_dir):
        if (before := _read(data_dir)) and before.child:
            _end(before.child, grace_s)  # its supervisor was killed, so it is on its way out or deaf
        supervisor = _Supervisor(argv, data_dir, log=log, grace_s=grace_s)
        try:
            return supervisor.run()
        finally:
            run_file(data_dir).unlink(missing_ok=True)


def find_running(data_dir: Path) -> Running | None:
    """Return the supervisor of a data directory, if it lives."""
    found = _read(data_dir)
    return found if found and found.process.is_alive else None


def start_detached(argv: Sequence[str], data_dir: Path, *, timeout_s: float = GRACE_S + 10) -> Running:
    """Start a supervisor's command in a session of its own, and return when it has taken the data directory.

    Returns the one that runs already, if there is one. Raises UnavailableError where the command ends or hangs.
    """
    if running := find_running(data_dir):
        return running
    with _opened_log(log_file(data_dir)) as log:
        process = subprocess.Popen(
            list(argv), cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        has_ended = process.poll() is not None
        if running := find_running(data_dir):
            process.returncode = process.returncode or 0  # it outlives us, which Popen would warn of
            return running
        if has_ended:
            raise UnavailableError(f"the supervisor ended at once: {log_file(data_dir)} says why")
        time.sleep(_POLL_S)
    process.kill()
    process.wait()
    raise UnavailableError(f"the supervisor did not start within {timeout_s:g} s: see {log_file(data_dir)}")


def stop_running(data_dir: Path, timeout_s: float = GRACE_S + 5) -> bool:
    """Stop what runs on a data directory, by force after `timeout_s`; tell whether anything did run."""
    found = _read(data_dir)
    if found is None:
        return False
    # The supervisor first: it stops its child. What outlived a killed supervisor is ended by ourselves.
    was_running = _end(found.process, timeout_s)
    was_left = found.child is not None and _end(found.child, timeout_s)
    return was_running or was_left


class _Supervisor:
    """Starts a process, waits for its end or a signal, and starts it again."""

    def __init__(self, argv: Sequence[str], data_dir: Path, *, log: Path | None, grace_s: float) -> None:
        self._argv = list(argv)
        self._data_dir = data_dir
        self._log = log
        self._grace_s = grace_s
        self._stops = 0
        self._restarts = 0
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")

    def run(self) -> int:
        pause: float | None = None
        with _signals(self._on_signal) as self._wakeups:
            self._write_run_file(None)
            while not self._stops:
                begun = time.monotonic()
                status = self._run_once()
                if status == REFUSED:
                    return REFUSED
                if not self._stops:
                    pause = next_pause(pause, time.monotonic() - begun)
                    self._say(f"process ended with status {status}, starting it again in {pause:g} s")
                    self._rest(pause)
                    self._restarts += 1
        return 0

    def _run_once(self) -> int:
        """Start the process and return its exit status once it has ended, by itself or because we are to stop."""
        with _opened_log(self._log) as output:
            try:
                child = subprocess.Popen(
                    self._argv,
                    cwd="/",
                    # glibc would give each of our threads a heap of its own, in which little is ever freed.
                    env={"MALLOC_ARENA_MAX": "1", **os.environ, SUPERVISOR_VARIABLE: str(os.getpid())},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            except OSError as error:
                self._say(f"cannot start {self._argv[0]}: {error.strerror}")
                return -1
        try:
            self._write_run_file(child.pid)
        except OSError as error:
            self._say(f"cannot write {run_file(self._data_dir)}: {error.strerror}")  # a full disk must not end us
        self._watch(child)
        _kill_group(child.pid)
        return child.wait()

    def _watch(self, child: subprocess.Popen[bytes]) -> None:
        """Return when a process has ended; make it end when we are to stop, at once when told twice."""
        deadline: float | None = None
        while not _has_ended(child.pid):
            if self._stops and deadline is None:
                os.kill(
                    child.pid, signal.SIGTERM
                )  # not by Popen, which may reap it, and its group must be killed first
                deadline = time.monotonic() + self._grace_s
            left = None if deadline is None else deadline - time.monotonic()
            if self._stops > 1 or (left is not None and left <= 0):
                self._say("process did not end when told, so it is killed")
                os.kill(child.pid, signal.SIGKILL)
                return
            self._wait_for_signal(left)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number in _STOP_SIGNALS:
            self._stops += 1

    def _wait_for_signal(self, timeout_s: float | None) -> None:
        if select.select([self._wakeups], [], [], timeout_s)[0]:
            os.read(self._wakeups, 512)

    def _rest(self, pause_s: float) -> None:
        """Let a pause pass, unless we are to stop."""
        deadline = time.monotonic() + pause_s
        while not self._stops and (left := deadline - time.monotonic()) > 0:
            self._wait_for_signal(left)

    def _write_run_file(self, child_pid: int | None) -> None:
        this, child = Process.this(), Process.of(child_pid) if child_pid else None
        facts = {
            "pid": this.pid,
            "start_ticks": this.start_ticks,
            "host": this.host,
            "boot_id": this.boot_id,
            "argv": self._argv,
            "started_at": self._started_at,
            "restarts": self._restarts,
            "child": {"pid": child.pid, "start_ticks": child.start_ticks} if child else None,
        }
        path = run_file(self._data_dir)
        path.with_suffix(".new").write_text(json.dumps(facts))
        path.with_suffix(".new").replace(path)

    def _say(self, sentence: str) -> None:
        line = f"{datetime.now(UTC).isoformat(timespec='milliseconds')} supervisor: {sentence}\n"
        with suppress(OSError), _opened_log(self._log) as output:
            os.write(output, line.encode())


@contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """Hold the lock of a data directory; the kernel gives it back however we end."""
    with (data_dir / "run" / "supervisor.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            running = find_running(data_dir)
            who = f" (process {running.process.pid})" if running else ""
            raise ConflictError(f"a beamline runs already on {data_dir}{who}: `dm down` stops it") from None
        yield


@contextmanager
def _signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[int]:
    """Handle signals, and give a descriptor that becomes readable with each; all is put back at the end."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    previous_fd = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    previous = {number: signal.signal(number, handler) for number in (*_STOP_SIGNALS, signal.SIGCHLD)}
    try:
        yield reading
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
        signal.set_wakeup_fd(previous_fd)
        os.close(reading)
        os.close(writing)


@contextmanager
def _opened_log(path: Path | None) -> Iterator[int]:
    """Open a log to append to, after moving a large one aside; without a path, give our own output."""
    if path is None:
        yield sys.stderr.fileno()
        return
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        if path.stat().st_size > LARGEST_LOG:
            for number in range(KEPT_LOGS, 0, -1):
                older = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
                with suppress(FileNotFoundError):
                    older.replace(path.with_name(f"{path.name}.{number}"))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _has_ended(pid: int) -> bool:
    """Whether a child has ended; it stays a zombie, so that its pid still names its process group."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_group(pid: int) -> None:
    """Kill what a process has left behind in its group: two generations of it must not work side by side."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _end(process: Process, grace_s: float) -> bool:
    """End a process that is no child of ours: SIGTERM, then SIGKILL. Tell whether it lived."""
    if not process.is_alive:
        return False
    for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, GRACE_S)):
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return True
        except PermissionError as error:
            raise NotPermittedError(
                f"process {process.pid} runs under another account: stop the beamline as that account"
            ) from error
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if not process.is_alive:
                return True
            time.sleep(_POLL_S)
    raise UnavailableError(f"process {process.pid} does not end even when killed: does it wait for a dead disk?")


def _read(data_dir: Path) -> Running | None:
    """Return what the run file says, true or no longer; None where there is none that can be read."""
    try:
        facts = json.loads(run_file(data_dir).read_text())
        host, boot_id = str(facts["host"]), str(facts["boot_id"])
        child = facts["child"]
        return Running(
            process=Process(host, boot_id, int(facts["pid"]), int(facts["start_ticks"])),
            argv=[str(word) for word in facts["argv"]],
            started_at=str(facts["started_at"]),
            restarts=int(facts["restarts"]),
            child=Process(host, boot_id, int(child["pid"]), int(child["start_ticks"])) if child else None,
        )
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
