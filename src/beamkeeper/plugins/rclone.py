"""rclone as a servant: one process that is asked over a socket of ours, and gone when nobody has asked for a while."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unicodedata
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

from pydantic import Field, ValidationError

from beamkeeper.domain.errors import DestinationError, InvalidError, SettingsError
from beamkeeper.domain.names import RelPath
from beamkeeper.plugins import programs
from beamkeeper.plugins.api import Options

OLDEST = (1, 71)
"""The first release that can tell the BLAKE3 of what it reads."""

START_S = 15.0
IDLE_S = 60.0
LOOK_S = 5.0
BLOCK = 1024 * 1024
READ_S = 60.0
"""So long a part of an object may be silent that is being read."""

_REMOTE = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN = re.compile(r"[^\x00-\x1f\x7f%\\\ud800-\udfff]")
_KNOWN = {
    r"access ?denied|invalidaccesskeyid|signaturedoesnotmatch|unauthorized|status ?code: 40[13]|forbidden|expiredtoken|"
    r"unable to authenticate": ("credential", "see the remote's keys in the configuration of rclone"),
    r"x509|certificate": ("certificate", "see the CA that rclone trusts"),
    r"knownhosts|host key": ("host_key", "compare its key with the host's administrator"),
    r"no space left|quota|status ?code: 507|entitytoolarge.*storage": ("full", "free space or quota there"),
    r"read-only|readonly": ("read_only", "make it writable"),
    r"nosuchbucket|directory not found|connection refused|no such host|i/o timeout|no route to host|unreachable|"
    r"didn't find section|connection reset|deadline exceeded|status ?code: 50[0-9]|\beof\b": (
        "unreachable",
        "see that it is up, has room and may be written, that the bucket is there, and rclone's configuration names it",
    ),
}


class RcloneOptions(Options):
    """How rclone is run; on the station and where the storage service is. Secrets stand in its own configuration."""

    program: str = Field(default="rclone", description="The program, 1.71 or newer: pip install 'beamkeeper[rclone]'.")
    config: Path | None = Field(
        default=None, description="Its configuration with the remotes and their keys; its owner's only."
    )
    transfers: int = Field(default=4, ge=1, le=64, description="How many files move at once.")
    bytes_s: int | None = Field(default=None, ge=1024, description="At most so many bytes a second, of all files.")
    timeout_s: float = Field(default=20.0, ge=1, le=600, description="So long it waits for an answer of the far side.")


def rclone_options(tables: Mapping[str, Mapping[str, object]]) -> RcloneOptions:
    """Return how the storage service runs rclone: by the same table of settings as the transfer."""
    given = tables.get("rclone", {})
    known = {key: value for key, value in given.items() if key in RcloneOptions.model_fields}
    try:
        return RcloneOptions.model_validate(known)
    except ValidationError as error:
        raise SettingsError(f"[transfer.rclone] is wrong: {error.errors()[0]['msg']}") from error


class Refused(Exception):  # noqa: N818 - an answer, which its caller weighs
    """rclone says that it could not do something."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.message = message
        self.is_absent = status == http.HTTPStatus.NOT_FOUND or "not found" in message.lower()

    def fault(self, what: str) -> DestinationError:
        """Return it as the fault of a place."""
        for pattern, (code, hint) in _KNOWN.items():
            if re.search(pattern, self.message, re.IGNORECASE):
                return DestinationError(f"{what}: {self.message[:400]}; {hint}", code=code)
        return DestinationError(f"{what}: {self.message[:400]}", code="failed")


class _Socket(http.client.HTTPConnection):
    """HTTP over a socket in a directory of ours."""

    def __init__(self, path: str) -> None:
        super().__init__("rclone")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


class Rclone:
    """Asks rclone; may be used from several threads."""

    def __init__(self, options: RcloneOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._place: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._asking = 0
        self._asked_at = 0.0

    def call(self, method: str, **given: Any) -> Any:
        """Have something done, and return what it answers; Refused where it was not."""
        with self._asked() as connection:
            try:
                headers = {"Content-Type": "application/json"}
                connection.request("POST", f"/{method}", body=json.dumps(given), headers=headers)
                response = connection.getresponse()
                answer = json.loads(response.read() or b"{}")
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise _ended(error) from error
        if response.status != http.HTTPStatus.OK:
            raise Refused(str(answer.get("error", "it failed")), response.status)
        return answer

    def read(self, place: str, key: str, begin: int, end: int) -> Generator[bytes]:
        """Yield a part of an object; Refused where it is not there or not so long."""
        with self._asked() as connection:
            try:
                connection.connect()
                connection.sock.settimeout(READ_S)
                told = {"Range": f"bytes={begin}-{end - 1}"}
                connection.request("GET", f"/{quote(f'[{place}]', safe='')}/{quote(key)}", headers=told)
                response = connection.getresponse()
                if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                    raise Refused(response.read(programs.OUTPUT_BYTES).decode("utf-8", "replace"), response.status)
                left = end - begin
                while left and (block := response.read(min(BLOCK, left))):
                    left -= len(block)
                    yield block
            except (OSError, http.client.HTTPException) as error:
                raise _ended(error) from error
        if left:
            raise Refused(f"{left} bytes of it are missing", http.HTTPStatus.BAD_GATEWAY)

    @contextmanager
    def _asked(self) -> Iterator[_Socket]:
        """Give a connection to its process, which goes on while that is in use."""
        with self._lock:
            connection = _Socket(self._running())
            self._asking += 1
        try:
            yield connection
        finally:
            connection.close()
            with self._lock:
                self._asking -= 1
                self._asked_at = time.monotonic()

    def close(self) -> None:
        """End its process; the next question starts another."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
            self._place = None

    def _running(self) -> str:
        """Return the socket of a process that runs, started where there is none."""
        if self._place is None:
            self._asked_at = time.monotonic()
            started: list[str | DestinationError] = []
            is_up = threading.Event()
            # The kernel ends it when the thread that started it ends: so that is one which does nothing else.
            threading.Thread(target=self._keep, args=(started, is_up), name="rclone", daemon=True).start()
            is_up.wait(START_S + LOOK_S)
            found = started[0] if started else DestinationError("rclone does not start", code="failed")
            if isinstance(found, DestinationError):
                raise found
            self._place = found
        return self._place

    def _keep(self, started: list[str | DestinationError], is_up: threading.Event) -> None:
        with tempfile.TemporaryDirectory(prefix="beamkeeper-rclone-") as made:
            try:
                process = self._start(made)
            except DestinationError as error:
                started.append(error)
                is_up.set()
                return
            self._process = process
            started.append(f"{made}/socket")
            is_up.set()
            self._watch(process)

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_S)
            with self._lock:
                is_idle = not self._asking and time.monotonic() - self._asked_at > IDLE_S
                if process.returncode is not None or is_idle:
                    if self._process is process:
                        self._place = self._process = None
                    break
        process.kill()
        process.wait()

    def _start(self, place: str) -> subprocess.Popen[bytes]:
        program = find_program(self._options.program)
        said = programs.run([program, "version"], env=programs.environment(), stall_s=START_S).output
        if programs.version_of(said) < OLDEST:
            raise DestinationError(f"rclone 1.71 or newer is needed, and {program} says {said[:40]!r}", code="failed")
        log = Path(place) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *programs.dies_with_us(),
                    program,
                    "rcd",
                    "--rc-serve",
                    "--rc-no-auth",
                    "--rc-addr",
                    f"unix://{place}/socket",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment(),
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while not _answers(f"{place}/socket"):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise DestinationError(f"rclone did not start: {log.read_text(errors='replace')[-400:]}", code="failed")
            time.sleep(0.02)
        return process

    def _environment(self) -> dict[str, str]:
        options = self._options
        timeout = f"{options.timeout_s:g}s"
        more = {"RCLONE_RETRIES": "1", "RCLONE_LOW_LEVEL_RETRIES": "3", "RCLONE_TIMEOUT": timeout}
        more |= {"RCLONE_CONTIMEOUT": "10s", "RCLONE_CONFIG": str(options.config or os.devnull)}
        if options.bytes_s:
            more["RCLONE_BWLIMIT"] = f"{options.bytes_s}B"
        return programs.environment(**more)


def _ended(error: Exception) -> DestinationError:
    return DestinationError(f"rclone ended while it was asked: {error}", code="unreachable")


def _answers(place: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(place) == 0


def find_program(name: str) -> str:
    """Return where rclone is: on the path, or beside the interpreter, where pip puts it."""
    found = shutil.which(name) or shutil.which(name, path=os.path.dirname(sys.executable))
    if found is None:
        raise DestinationError(f"\"{name}\" is not installed here: pip install 'beamkeeper[rclone]'", code="failed")
    return found


def place_of(url: str) -> str:
    """Return rclone's own name of a place: `rclone://REMOTE/BUCKET/PREFIX` is `REMOTE:BUCKET/PREFIX/`.

    With the slash at its end rclone does not look first whether it is a file; it takes a refusal for a yes.
    """
    parts = urlsplit(url)
    path = unquote(parts.path).strip("/")
    if parts.scheme != "rclone" or not _REMOTE.fullmatch(parts.netloc) or not path or ".." in path.split("/"):
        raise InvalidError(f'"{url}" is no place of rclone: use rclone://REMOTE/BUCKET/PREFIX')
    return f"{parts.netloc}:{path}/"


def key_of(path: RelPath) -> str:
    """Return the name that an object has for a path: the same, but for what an object store cannot take.

    Bytes that are no text, controls, backslash and the percent sign are percent-encoded, and accents of their own where
    some stores would join them with their letters: one name for each path.
    """
    text = path.decode("utf-8", "surrogateescape")
    is_joined = unicodedata.is_normalized("NFC", text)
    return "".join(
        char
        if _PLAIN.match(char) and (is_joined or not unicodedata.combining(char))
        else "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))
        for char in text
    )


def path_of(key: str) -> RelPath:
    """Return the path of an object."""
    return RelPath(unquote_to_bytes(key))
