"""An attempt on another machine: the same runner as at home, started by whatever worker an executor has there."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from typing import Any

from beamkeeper.engine.jobs import far, runner, tree
from beamkeeper.engine.jobs.hands import LENGTH

LOOK_S = 1.0
"""So often it is looked whether the attempt is asked to end, by a file: no signal reaches another machine."""

_SCHEDULERS = {"SLURM_JOB_ID": "slurm", "JOB_ID": "sge"}


class TakenElsewhereError(Exception):
    """What came of the attempt is not ours to tell."""


def run(order: dict[str, Any]) -> None:
    """Run one attempt to its end, in a process beside this one; TakenElsewhereError where another has taken it."""
    directory = order["directory"]
    if "staged" in order:
        if os.path.exists(f"{directory}/{runner.RESULT}"):
            far.gather(order)
            return
        if _claim(directory) is None:
            far.arrange(order)
    told = {**order, "place": place(order)}
    if ends_at := os.environ.get("SLURM_JOB_END_TIME"):
        told["ends_at"] = float(ends_at)
    pid = _hand.run(told)
    if (claim := _claim(directory)) is None or claim["pid"] != pid or claim["place"] != told["place"]:
        raise TakenElsewhereError
    if not os.path.exists(f"{directory}/{runner.RESULT}"):
        tree.end_left({}, order["attempt"], order["door"])
    elif "staged" in order:
        far.gather(order)


def _claim(directory: str) -> dict[str, Any] | None:
    """Return who has taken an attempt; None where nobody has."""
    try:
        with open(f"{directory}/{runner.CLAIM}", "rb") as file:
            found: dict[str, Any] = json.load(file)
    except (FileNotFoundError, ValueError):
        return None
    return found


def place(order: dict[str, Any]) -> dict[str, str]:
    """Return where this is: by this the scheduler can be asked later whether anything may still run here."""
    variable = next((name for name in _SCHEDULERS if os.environ.get(name)), "")
    return {
        "executor": order["executor"],
        "host": socket.gethostname(),
        "scheduler": _SCHEDULERS.get(variable, ""),
        "id": os.environ.get(variable, ""),
    }


class _Hand:
    """The process that runs attempts for this worker."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, order: dict[str, Any]) -> int:
        """Run an attempt to its end, and return the number of the process that had it."""
        data = json.dumps(order).encode()
        try:
            process = self._given(LENGTH.pack(len(data)) + data)
        except BrokenPipeError:  # it has run enough
            process = self._given(LENGTH.pack(len(data)) + data)
        self._wait(process, order["directory"])
        return process.pid

    def _given(self, message: bytes) -> subprocess.Popen[bytes]:
        process = self._process
        if process is None:
            process = self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "beamkeeper.engine.jobs.nodehand", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
            )
        if process.stdin is not None:
            try:
                while message:
                    message = message[os.write(process.stdin.fileno(), message) :]
            except BrokenPipeError:
                self._part_with(process)
                raise
        return process

    def _wait(self, process: subprocess.Popen[bytes], directory: str) -> None:
        """Wait until an attempt has ended, and pass on the wish that it end."""
        if process.stdout is None:
            return
        while not select.select([process.stdout], [], [], LOOK_S)[0]:
            if os.path.exists(f"{directory}/{runner.STOP}"):
                process.send_signal(signal.SIGTERM)
        if not os.read(process.stdout.fileno(), 64):
            self._part_with(process)

    def _part_with(self, process: subprocess.Popen[bytes]) -> None:
        self._process = None
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.wait()


_hand = _Hand()
"""Kept from one task of this worker to the next: a function that is called by its name has no other place for it."""
