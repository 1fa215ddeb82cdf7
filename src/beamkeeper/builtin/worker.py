"""The extraction process as seen from the service: started when needed, ended when idle, replaced when it dies."""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from typing import cast

from pydantic import JsonValue

from beamkeeper.builtin.formats import Format
from beamkeeper.builtin.values import ExtractionError

MEMORY_BYTES = 2 * 1024**3
START_S = 60.0
"""How long the process may take to import its readers, on a machine that is busy."""

_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_SET = {
    "OPENBLAS_NUM_THREADS": "1",  # its stacks for every core would count as memory
    "HDF5_PLUGIN_PRELOAD": "::",  # a file must not choose which libraries are loaded
}


class ExtractionWorker:
    """One process, one file at a time; may be called from several threads."""

    def __init__(
        self, *, timeout_s: float, idle_s: float, max_answer_bytes: int, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self._timeout_s = timeout_s
        self._idle_s = idle_s
        self._max_answer_bytes = max_answer_bytes
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._used_at = 0.0
        self._timer: threading.Timer | None = None
        self._finalizer: weakref.finalize[..., ExtractionWorker] | None = None

    @property
    def pid(self) -> int | None:
        """The number of the process; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def extract(self, known: Format, path: bytes) -> dict[str, JsonValue]:
        """Return the metadata of a file; what goes wrong, the end of the process included, is an ExtractionError."""
        request = {"format": known.value, "path": base64.b64encode(path).decode()}
        with self._lock:
            try:
                process = self._running()
                found = self._ask(process, json.dumps(request).encode() + b"\n", self._timeout_s)
            except BaseException:
                self._end()  # what it would answer later must not be taken for the next file's
                raise
            self._used_at = time.monotonic()
        if "error" in found:
            raise ExtractionError(str(found["error"]))
        return cast("dict[str, JsonValue]", found["metadata"])

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        limits = [str(self._memory_bytes), str(int(self._timeout_s) + 60)]
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "beamkeeper.builtin.extract", *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ} | _SET,
            start_new_session=True,  # Ctrl-C at the service's terminal is not meant for it
        )
        self._process = process
        self._finalizer = weakref.finalize(self, _kill, process)
        self._ask(process, b"", START_S)
        self._used_at = time.monotonic()
        self._watch(self._idle_s)
        return process

    def _ask(self, process: subprocess.Popen[bytes], request: bytes, timeout_s: float) -> dict[str, object]:
        """Send a line and return the answer; an empty line only waits for the process to be ready."""
        if process.stdin is None or process.stdout is None:
            raise ExtractionError("the extraction process has no pipes")
        deadline = time.monotonic() + timeout_s
        with suppress(BrokenPipeError):  # what is read next tells how it ended
            process.stdin.write(request)
            process.stdin.flush()
        taken = bytearray()
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        while not taken.endswith(b"\n"):
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise ExtractionError(f"reading the file took longer than {timeout_s:g} s")
            piece = os.read(process.stdout.fileno(), 65536)
            if not piece:
                raise ExtractionError(f"the extraction process ended on this file: {_how(process)}")
            taken.extend(piece)
            if len(taken) > self._max_answer_bytes:
                raise ExtractionError(f"the file's metadata are larger than {self._max_answer_bytes} bytes")
        return cast("dict[str, object]", json.loads(taken))

    def _end(self) -> None:
        if self._finalizer is not None:
            self._finalizer()
        if self._timer is not None:
            self._timer.cancel()
        self._process = self._finalizer = self._timer = None

    def _watch(self, after_s: float) -> None:
        """Look after a while whether the process is still needed."""
        self._timer = threading.Timer(after_s, self._end_if_idle)
        self._timer.daemon = True
        self._timer.start()

    def _end_if_idle(self) -> None:
        with self._lock:
            if self._process is None:
                return
            left_s = self._used_at + self._idle_s - time.monotonic()
            if left_s > 0:
                self._watch(left_s)
            else:
                self._end()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process that has nothing to lose; called at the interpreter's exit as well."""
    process.kill()
    with suppress(BrokenPipeError), process:
        pass


def _how(process: subprocess.Popen[bytes]) -> str:
    """Say how a process ended whose output has ended."""
    with suppress(subprocess.TimeoutExpired):
        status = process.wait(5.0)
        return signal.Signals(-status).name if status < 0 else f"status {status}"
    return "it closed its output"
