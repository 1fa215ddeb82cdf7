"""Running a beamline's own program on one file, with limits on its time and its output."""

from __future__ import annotations

import os
import resource
import selectors
import signal
import subprocess
import time
from contextlib import suppress
from typing import IO

from beamkeeper.builtin.values import text
from beamkeeper.plugins.extractors import ExtractionError

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/"}
"""All that the program gets: what the service has in its environment is nobody else's."""

MAX_REASON = 300


def run_program(
    executable: str, path: bytes, *, timeout_s: float, max_output_bytes: int, memory_bytes: int | None = None
) -> bytes:
    """Return what `executable path` prints; raise where it fails, takes too long or prints too much."""
    try:
        process = subprocess.Popen(
            [executable, path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise ExtractionError(f"{executable} cannot be run: {os.strerror(error.errno or 0)}") from error
    with process:
        _limit(process.pid, memory_bytes, int(timeout_s) + 60)
        try:
            output, complaint = _collect(process, time.monotonic() + timeout_s, max_output_bytes)
        except ExtractionError as error:
            raise ExtractionError(
                f"{executable}: {error} (limits: {timeout_s:g} s, {max_output_bytes} bytes)"
            ) from None
        finally:
            # Itself and what it started. It has not been waited for, so that its number is no other process's.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        reason = text(complaint, MAX_REASON) or "it printed no reason"
        raise ExtractionError(f"{executable} ended with status {process.returncode}: {reason}")
    return output


def _limit(pid: int, memory_bytes: int | None, cpu_s: int) -> None:
    """Limit a program that has just begun, and what it starts: its own memory, its time, and no core files."""
    with suppress(ProcessLookupError):  # it has ended already
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        resource.prlimit(pid, resource.RLIMIT_CPU, (cpu_s, cpu_s))
        if memory_bytes is not None:
            resource.prlimit(pid, resource.RLIMIT_DATA, (memory_bytes, memory_bytes))


def _collect(process: subprocess.Popen[bytes], deadline: float, max_bytes: int) -> tuple[bytes, bytes]:
    """Return what a process prints until it ends; what is beyond the limit of errors is dropped."""
    output, complaint = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        for stream, taken in ((process.stdout, output), (process.stderr, complaint)):
            selector.register(_pipe(stream), selectors.EVENT_READ, taken)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready or time.monotonic() > deadline:
                raise ExtractionError("it took too long")
            for key, _ in ready:
                piece = os.read(key.fd, 65536)
                if not piece:
                    selector.unregister(key.fileobj)
                elif key.data is output or len(complaint) < max_bytes:
                    key.data.extend(piece)
            if len(output) > max_bytes:
                raise ExtractionError("it printed too much")
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > deadline:
            raise ExtractionError("it took too long")
        time.sleep(0.01)  # it has closed its output, and ends any moment
    return bytes(output), bytes(complaint)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ExtractionError("it has no output")
    return stream
