"""Outside programs: run without a shell, watched for signs of life, and ended with all that they started."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from beamkeeper.domain.errors import DestinationError, InvalidError

PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "HOME", "TZ", "LD_LIBRARY_PATH")
"""What a program gets of our environment: nothing that may be a secret of somebody else's."""

_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._:-]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]*")

LOOK_S = 0.1
OUTPUT_BYTES = 64 * 1024


class ProgramStoppedError(Exception):
    """It was to end, and did."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that ended by itself."""

    code: int
    output: str
    complaint: str


def environment(**more: str) -> dict[str, str]:
    """Return the environment that an outside program gets; messages in English, for we read them."""
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**kept, "LC_ALL": "C", **more}


def dies_with_us() -> list[str]:
    """Return the prefix that makes the kernel end a program when the thread that started it ends."""
    return ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


def require(program: str, package: str) -> str:
    """Return where a program is; DestinationError that names its package where it is not here."""
    found = shutil.which(program)
    if found is None:
        raise DestinationError(f'"{program}" is not installed here: install {package}', code="failed")
    return found


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    stop: Callable[[], bool] = lambda: False,
    stall_s: float,
    given: bytes = b"",
) -> Ended:
    """Run a program to its end. Its progress, the bytes that it moves, is a sign of life and is passed on by `stop`.

    DestinationError `hanging` where it moves nothing for `stall_s`, ProgramStoppedError where `stop` says so: it and
    what it started are ended then.
    """
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaint:
        told.write(given)
        told.seek(0)
        process = subprocess.Popen(
            [*dies_with_us(), *argv], env=dict(env), stdin=told, stdout=output, stderr=complaint, start_new_session=True
        )
        try:
            _wait(process, stop, stall_s, argv[0])
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return Ended(process.returncode, _end_of(output.fileno()), _end_of(complaint.fileno()))


def _wait(process: subprocess.Popen[bytes], stop: Callable[[], bool], stall_s: float, name: str) -> None:
    moved, moved_at = _moved(process.pid), time.monotonic()
    with _Waiter(process) as waiter:
        while not waiter.wait(LOOK_S):
            now = _moved(process.pid)
            if now != moved:
                moved, moved_at = now, time.monotonic()
                if stop():
                    raise ProgramStoppedError
            elif time.monotonic() - moved_at > stall_s:
                raise DestinationError(
                    f"{os.path.basename(name)} has moved nothing for {stall_s:g} s: the far side does not answer",
                    code="hanging",
                )


class _Waiter:
    """Waits for the end of a process without looking again and again, where the kernel lets us."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._descriptor = -1
        with suppress(OSError, AttributeError):
            self._descriptor = os.pidfd_open(process.pid)

    def wait(self, timeout_s: float) -> bool:
        if self._descriptor >= 0:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLIN)
            return bool(poll.poll(timeout_s * 1000))
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self._process.poll() is not None

    def __enter__(self) -> _Waiter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _moved(pid: int) -> bytes:
    """Return what the kernel counts of a process's reading and writing."""
    try:
        with open(f"/proc/{pid}/io", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _end_of(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    content = os.pread(descriptor, OUTPUT_BYTES, max(0, size - OUTPUT_BYTES))
    return content.decode("utf-8", "backslashreplace")


def parts_of(address: str) -> SplitResult:
    """Return the parts of an address of another host; InvalidError where one is none that a program may be given.

    A user or host that begins with a dash is an option to it, and a password would be read by everybody.
    """
    try:
        parts = urlsplit(address)
        is_plain = parts.port is None or parts.port > 0
    except ValueError:  # of a port, or of brackets
        parts, is_plain = SplitResult("", "", "", "", ""), False
    host, user = parts.hostname or "", unquote(parts.username or "")
    if parts.password is not None:
        raise InvalidError("an address of a storage area has no password: name a file with it in the transfer's table")
    if not is_plain or not _HOST.fullmatch(host) or (user and not _USER.fullmatch(user)):
        shown = address if "@" not in address else f"{address.partition('://')[0]}:"  # a password may be what is wrong
        raise InvalidError(f'"{shown}" is no address of a storage area: use SCHEME://USER@HOST:PORT/PATH, plainly')
    return parts


def version_of(text: str) -> tuple[int, ...]:
    """Return the first version number in a text; empty where there is none."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
