"""Starts services without waiting for Python: one process imports everything once, and forks for each start.

What runs is what `python -m beamkeeper.serve run` runs, in a session of its own and with an environment of its own.
Tests that start the services a few hundred times would spend most of their time on imports otherwise.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

from beamkeeper.testing.station import Started, popen

PRELOADED = (
    "beamkeeper.serve.run",
    "beamkeeper.builtin.copying",
    "beamkeeper.builtin.catalogue",
    "beamkeeper.builtin.metadata",
    "beamkeeper.db.upgrade",
    "alembic.command",
    "alembic.config",
    "anyio._backends._asyncio",
    "h5py",
    "psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "sqlalchemy.dialects.postgresql.psycopg",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "uvicorn.lifespan.on",
)
_PR_SET_PDEATHSIG = 1


class Child:
    """A process that the nursery started: the part of subprocess.Popen that a station needs."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._nursery = nursery

    def poll(self) -> int | None:
        """Return how it ended; None while it runs."""
        if self.returncode is None:
            self.returncode = self._nursery.ask({"poll": self.pid})["status"]
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait for its end."""
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("services", timeout)
            time.sleep(0.01)
        return status


class Nursery:
    """The process that forks, started when it is first needed."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = dict(environ or {})
        self._environ_at_start = {**os.environ, **self._environ}
        self._started: subprocess.Popen[bytes] | None = None
        self._alone = threading.Lock()

    def spawn(self, arguments: Sequence[str], environ: Mapping[str, str], log: Path) -> Child:
        """Start `python -m beamkeeper.serve run ARGUMENTS`."""
        request = {"run": list(arguments), "environ": dict(environ), "log": str(log.absolute()), "in": os.getcwd()}
        return Child(self, self.ask(request)["pid"])

    def spawn_where_alike(self, arguments: Sequence[str], environ: Mapping[str, str], log: Path) -> Started:
        """Start them in this way, unless an interpreter of their own would read something else as it starts."""
        if _read_at_start(environ) != _read_at_start(self._environ_at_start):
            return popen(arguments, environ, log)
        return self.spawn(arguments, environ, log)

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and return the answer."""
        with self._alone:
            writing, reading = self._pipes()
            writing.write(json.dumps(request).encode() + b"\n")
            writing.flush()
            line = reading.readline()
        assert line, "the nursery is gone"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._started is None:
            self._started = subprocess.Popen(
                [sys.executable, "-m", "beamkeeper.testing.nursery"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self._environ_at_start,
                cwd="/",  # a test's own directory goes away
                start_new_session=True,
            )
        assert self._started.stdin is not None
        assert self._started.stdout is not None
        return self._started.stdin, self._started.stdout

    def close(self) -> None:
        """End it, and by that every process that it started."""
        if self._started is not None:
            for pipe in self._pipes():
                pipe.close()
            self._started.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _read_at_start(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what of an environment counts only while a process starts: where packages are, and what is preloaded."""
    return {name: value for name, value in environ.items() if name.startswith(("PYTHON", "LD_", "MALLOC_"))}


def main() -> int:
    """Import, then answer requests until the input ends."""
    for name in PRELOADED:
        importlib.import_module(name)
    children: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if "run" in request:
            pid = _forked(request)
            children.add(pid)
            answer: dict[str, Any] = {"pid": pid}
        else:
            ended, status = os.waitpid(request["poll"], os.WNOHANG)
            children.discard(ended)
            answer = {"status": os.waitstatus_to_exitcode(status) if ended else None}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    return 0


def _forked(request: Mapping[str, Any]) -> int:
    """Fork; when this returns, the fork leads a session of its own, and can be killed as a group."""
    waits, tells = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.close(waits)
        os.close(tells)
        _become(request)
    os.close(tells)
    os.read(waits, 1)
    os.close(waits)
    return pid


def _become(request: Mapping[str, Any]) -> None:
    """Be the services in this fork, and never return."""
    from beamkeeper.config import failpoints
    from beamkeeper.serve.__main__ import main as serve

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    os.chdir(request["in"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    status = 1
    try:
        os.environ.clear()
        os.environ.update(request["environ"])
        random.seed()
        failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))
        sys.argv = ["beamkeeper.serve", "run", *request["run"]]
        status = serve(sys.argv[1:])
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
