"""A process that reads files made by others: started when needed, ended when idle, replaced when it dies.

A file that makes a library crash, hang or use all memory does so there. The other side is `beamkeeper.plugins.reader`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import cast

MEMORY_BYTES = 2 * 1024**3
LAST = 19
"""How nice the least urgent process is; the kernel lets it read from disks after the others too."""

START_S = 60.0
"""How long the process may take to import its readers, on a machine that is busy."""

_PIECE = 256 * 1024
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_SET = {
    "OPENBLAS_NUM_THREADS": "1",  # its stacks for every core would count as memory
    "HDF5_PLUGIN_PRELOAD": "::",  # a file must not choose which libraries are loaded
}


class ReadingError(Exception):
    """The process took too long, ended, or answered more than is wanted; it has been ended."""


class ReadingProcess:
    """One process that runs a module, one question at a time; may be called from several threads."""

    def __init__(
        self,
        module: str,
        *,
        timeout_s: float,
        idle_s: float,
        max_answer_bytes: int,
        memory_bytes: int = MEMORY_BYTES,
        is_last: bool = False,
    ) -> None:
        """Describe the process; one that `is_last` runs only while no other wants the processor."""
        self._module = module
        self._nice = LAST if is_last else 0
        self._timeout_s = timeout_s
        self._idle_s = idle_s
        self._max_answer_bytes = max_answer_bytes
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._used_at = 0.0
        self._timer: threading.Timer | None = None
        self._finalizer: weakref.finalize[..., ReadingProcess] | None = None

    @property
    def pid(self) -> int | None:
        """The number of the process; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def ask(self, request: Mapping[str, object], descriptor: int | None = None) -> tuple[dict[str, object], memoryview]:
        """Return the answer to a question and the bytes that come with it; an open file may go with the question."""
        with self._lock:
            try:
                process, talk = self._running()
                line = json.dumps(request).encode() + b"\n"
                with suppress(BrokenPipeError, ConnectionResetError):  # what is read next tells how it ended
                    socket.send_fds(talk, [line], [] if descriptor is None else [descriptor])
                found = self._answer(process, talk, self._timeout_s)
            except BaseException:
                self._end()  # what it would answer later must not be taken for the next file's
                raise
            self._used_at = time.monotonic()
        return found

    def close(self) -> None:
        """End the process; who waits for an answer of it is told, and holds nothing up."""
        process = self._process
        if process is not None:
            process.kill()
        with self._lock:
            self._end()

    def _running(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        if self._process is not None and self._socket is not None and self._process.poll() is None:
            return self._process, self._socket
        self._end()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", self._module, *map(str, self._limits(theirs))],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,  # what a library prints is for nobody
                    stderr=subprocess.DEVNULL,
                    env={name: os.environ[name] for name in _PASSED_ON if name in os.environ} | _SET,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl-C at the service's terminal is not meant for it
                )
            except BaseException:
                ours.close()
                raise
        self._process, self._socket = process, ours
        self._finalizer = weakref.finalize(self, _kill, process, ours)
        self._answer(process, ours, START_S)
        self._used_at = time.monotonic()
        self._watch(self._idle_s)
        return process, ours

    def _limits(self, theirs: socket.socket) -> tuple[int, int, int, int]:
        return theirs.fileno(), self._memory_bytes, int(self._timeout_s) + 60, self._nice

    def _answer(
        self, process: subprocess.Popen[bytes], talk: socket.socket, timeout_s: float
    ) -> tuple[dict[str, object], memoryview]:
        """Return the next answer: a line of JSON, and as many bytes after it as it says."""
        deadline = time.monotonic() + timeout_s
        taken = bytearray()
        while (end := taken.find(b"\n", max(0, len(taken) - _PIECE))) < 0:
            taken += self._piece(process, talk, deadline)
            if len(taken) > max(self._max_answer_bytes, 4096) + _PIECE:
                raise ReadingError(f"the answer is larger than {self._max_answer_bytes} bytes")
        header, size = _header(bytes(taken[:end]))
        if end + size > self._max_answer_bytes:
            raise ReadingError(f"the answer is larger than {self._max_answer_bytes} bytes")
        payload, at = memoryview(bytearray(size)), len(taken) - end - 1
        if at > size:
            raise ReadingError("the reading process answered what was not asked")
        payload[:at] = taken[end + 1 :]
        while at < size:
            self._await(talk, deadline)
            if not (count := _received(talk, payload[at:])):
                raise ReadingError(f"the reading process ended on this file: {_how(process)}")
            at += count
        return header, payload

    def _piece(self, process: subprocess.Popen[bytes], talk: socket.socket, deadline: float) -> bytes:
        """Return some bytes of an answer."""
        self._await(talk, deadline)
        piece = bytearray(_PIECE)
        if not (count := _received(talk, memoryview(piece))):
            raise ReadingError(f"the reading process ended on this file: {_how(process)}")
        return bytes(piece[:count])

    def _await(self, talk: socket.socket, deadline: float) -> None:
        """Wait until there is something to read; the end of the process is something too."""
        poll = select.poll()
        poll.register(talk, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise ReadingError(f"reading the file took longer than {self._timeout_s:g} s")

    def _end(self) -> None:
        if self._finalizer is not None:
            self._finalizer()
        if self._timer is not None:
            self._timer.cancel()
        self._process = self._socket = self._finalizer = self._timer = None

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


def _header(line: bytes) -> tuple[dict[str, object], int]:
    """Return an answer's JSON, and how many bytes come after it."""
    try:
        header = cast("dict[str, object]", json.loads(line))
        size = int(str(header.get("bytes", 0)))
    except (ValueError, AttributeError) as error:
        raise ReadingError("the reading process answered what is no answer") from error
    if size < 0:
        raise ReadingError("the reading process answered what is no answer")
    return header, size


def _received(talk: socket.socket, buffer: memoryview) -> int:
    """Return how many bytes were received; none where the other side is gone."""
    try:
        return talk.recv_into(buffer)
    except ConnectionResetError:
        return 0


def _kill(process: subprocess.Popen[bytes], talk: socket.socket) -> None:
    """End a process that has nothing to lose; called at the interpreter's exit as well."""
    talk.close()
    process.kill()
    process.wait()


def _how(process: subprocess.Popen[bytes]) -> str:
    """Say how a process ended whose output has ended."""
    with suppress(subprocess.TimeoutExpired):
        status = process.wait(5.0)
        return signal.Signals(-status).name if status < 0 else f"status {status}"
    return "it closed its output"
