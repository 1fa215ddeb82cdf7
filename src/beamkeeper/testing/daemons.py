"""Starting a server that a test uses: in the foreground, on loopback, and ended by its process."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from beamkeeper.testing.servers import ServerNotAvailableError

START_S = 30.0
STOP_S = 10.0
SYSTEM_DIRECTORIES = ("/usr/sbin", "/usr/local/sbin", "/sbin")


def program(name: str, package: str) -> str:
    """Return where a program is; ServerNotAvailableError that names its package where it is not here."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *SYSTEM_DIRECTORIES])
    found = shutil.which(name, path=path)
    if found is None:
        raise ServerNotAvailableError(f"no {name} here: apt-get install {package}")
    return found


@contextmanager
def daemon(
    argv: Sequence[str],
    log: Path,
    is_up: Callable[[], bool],
    *,
    env: Mapping[str, str] | None = None,
    timeout_s: float = START_S,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server while the block lasts; it ends with us, should we be killed."""
    dies_with_us = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*dies_with_us, *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + timeout_s
        while not is_up():
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServerNotAvailableError(f"{argv[0]} did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether somebody takes connections there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0


def account() -> str:
    """Return the name of our account."""
    return pwd.getpwuid(os.geteuid()).pw_name


def servant() -> pwd.struct_passwd:
    """Return an account that servers may act as which refuse root; our own where we are not root."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
