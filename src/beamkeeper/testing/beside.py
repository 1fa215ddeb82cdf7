"""The simplest executor: each task in a process beside us, for tests of what every executor is used for."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

from beamkeeper.plugins.api import Options
from beamkeeper.plugins.executors import EXECUTORS, RETURNED, Task, Told

NAME = "beside"
_CALL = """
import importlib, json, sys
module, _, name = sys.argv[1].partition(":")
getattr(importlib.import_module(module), name)(json.load(sys.stdin))
"""


class BesideExecutor:
    """Tasks in processes of this machine, some at once."""

    options: ClassVar[type[Options]] = Options
    summary: ClassVar[str] = "Runs stages in processes of this machine."

    def __init__(self, options: Options, directory: Path) -> None:
        self._pool = ThreadPoolExecutor(4)

    def start(self, task: Task, told: Told) -> None:
        """Take a task."""
        self._pool.submit(self._run, task, told)

    def _run(self, task: Task, told: Told) -> None:
        ran = subprocess.run(
            [sys.executable, "-c", _CALL, task.entry],
            input=json.dumps(task.order),
            capture_output=True,
            text=True,
            check=False,
        )
        told(RETURNED if not ran.returncode else (ran.stderr.strip().splitlines() or [f"state {ran.returncode}"])[-1])

    def fault(self) -> str:
        """Return nothing: it works."""
        return ""

    def close(self) -> None:
        """Wait for what runs."""
        self._pool.shutdown()


def install(place: Path) -> Path:
    """Make the executor known to every process that has a directory in its PYTHONPATH, and return the directory."""
    about = place / "beside" / "beamkeeper_beside-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: beamkeeper-beside\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[{EXECUTORS}]\n{NAME} = beamkeeper.testing.beside:BesideExecutor\n")
    return about.parent
