"""Starts services without waiting for Python: one process imports everything once, and forks for each start.

What runs is what `python -m beamkeeper.serve run` runs, in a session of its own and with an environment of its own.
Campaigns that kill the services a few hundred times would spend most of their time on imports otherwise.
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
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

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
    """The process that forks; to be used from one thread."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "beamkeeper.testing.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(environ or {})},
            start_new_session=True,
        )

    def spawn(self, arguments: Sequence[str], environ: Mapping[str, str], log: Path) -> Child:
        """Start `python -m beamkeeper.serve run ARGUMENTS`."""
        answer = self.ask({"run": list(arguments), "environ": dict(environ), "log": str(log)})
        return Child(self, answer["pid"])

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and return the answer."""
        writing, reading = self._pipes()
        writing.write(json.dumps(request).encode() + b"\n")
        writing.flush()
        line = reading.readline()
        assert line, "the nursery is gone"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def close(self) -> None:
        """End it, and by that every process that it started."""
        for pipe in self._pipes():
            pipe.close()
        self._process.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def main() -> int:
    """Import, then answer requests until the input ends."""
    for name in PRELOADED:
        importlib.import_module(name)
    children: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if "run" in request:
            pid = os.fork()
            if pid == 0:
                _become(request)
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


def _become(request: Mapping[str, Any]) -> None:
    """Be the services in this fork, and never return."""
    from beamkeeper.config import failpoints
    from beamkeeper.serve.__main__ import main as serve

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    os.setsid()
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
