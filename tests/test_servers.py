"""The test servers themselves: what they promise to every other test."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from beamkeeper.testing.servers import ACCOUNT, PostgresServer, drop_database, fresh_database

ENDED_BY_FORCE = """
import time
from beamkeeper.testing.servers import postgres
with postgres() as server:
    print(server.log.parent, flush=True)
    time.sleep(100)
"""


def test_a_fresh_database_is_empty_and_compares_text_by_bytes(postgres_server: PostgresServer) -> None:
    url = fresh_database(postgres_server)
    with postgres_server.connect(url.rpartition("/")[2]) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM pg_tables WHERE schemaname = 'public'),"
            " pg_encoding_to_char(encoding), datcollate FROM pg_database WHERE datname = current_database()"
        ).fetchone()
    drop_database(postgres_server, url)
    assert row == (0, "UTF8", "C")


def test_a_dropped_database_is_gone_even_while_somebody_uses_it(postgres_server: PostgresServer) -> None:
    url = fresh_database(postgres_server)
    name = url.rpartition("/")[2]
    user = postgres_server.connect(name)
    drop_database(postgres_server, url)
    with pytest.raises(psycopg.OperationalError):
        user.execute("SELECT 1")
    user.close()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        postgres_server.connect(name)


def test_the_server_lets_nobody_in_without_the_password(postgres_server: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(
            host=postgres_server.host, port=postgres_server.port, user=ACCOUNT, password="wrong", dbname="postgres"
        )
    assert postgres_server.password not in repr(postgres_server)


@pytest.mark.usefixtures("postgres_server")
def test_a_killed_test_run_leaves_no_server_behind() -> None:
    with subprocess.Popen([sys.executable, "-c", ENDED_BY_FORCE], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        directory = run.stdout.readline().strip()
        server_pid = int((Path(directory) / "data" / "postmaster.pid").read_text().split()[0])
        pidfd = os.pidfd_open(server_pid)
        run.send_signal(signal.SIGKILL)
        run.wait()
    try:
        assert has_ended(pidfd, timeout_s=30)
    finally:
        os.close(pidfd)
        shutil.rmtree(directory)


def has_ended(pidfd: int, *, timeout_s: float) -> bool:
    """Wait for a process that is not our child."""
    ready, _, _ = select.select([pidfd], [], [], timeout_s)
    return bool(ready)
