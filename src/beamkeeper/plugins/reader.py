"""The inside of a process that reads files made by others: its limits, and the loop that answers.

Questions are lines of JSON, each with an open file or none; an answer is a line of JSON, and as many bytes after it
as its `bytes` says.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

Answer = Callable[[dict[str, object], int | None], tuple[dict[str, object], bytes | memoryview]]

_LINE_BYTES = 1024 * 1024


def serve(answer: Answer) -> None:
    """Answer until the other side closes the connection; the arguments say where it is, and the limits."""
    descriptor, memory_bytes, seconds, nice = map(int, sys.argv[1:5])
    _yield_to_others(nice)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with socket.socket(fileno=descriptor) as talk:
        os.set_inheritable(descriptor, False)
        talk.sendall(b"{}\n")
        while (question := _question(talk)) is not None:
            request, file = question
            _limit(seconds)
            try:
                header, payload = answer(request, file)
            finally:
                if file is not None:
                    os.close(file)
            signal.alarm(0)
            header["bytes"] = len(payload)
            with suppress(BrokenPipeError, ConnectionResetError):  # nobody waits for it any more
                talk.sendall(json.dumps(header, allow_nan=False).encode() + b"\n")
                talk.sendall(payload)


def _yield_to_others(nice: int) -> None:
    """Be so nice; the kernel may weigh this session as a whole against others (autogroup), and is told alike."""
    if nice:
        os.nice(nice)
        with suppress(OSError), open("/proc/self/autogroup", "w") as group:
            group.write(str(nice))


def _limit(seconds: int) -> None:
    """Let one answer take so long, on the clock and of the processor: a file that never ends must not outlive us."""
    signal.alarm(seconds)
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    limit = int(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _question(talk: socket.socket) -> tuple[dict[str, object], int | None] | None:
    """Return the next question with the file that came with it; None where the other side is gone."""
    line, files = bytearray(), list[int]()
    while not line.endswith(b"\n"):
        piece, given, _, _ = socket.recv_fds(talk, _LINE_BYTES, 4)
        files += given
        if not piece or len(line) > _LINE_BYTES:
            return None
        line += piece
    return json.loads(line), files[0] if files else None
