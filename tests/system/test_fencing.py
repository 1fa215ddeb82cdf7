"""F34: a worker is stopped beyond its lease, another one does its work, and then the first goes on."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest

from beamkeeper.client import Client
from beamkeeper.config.failpoints import VARIABLE, FailPoint
from beamkeeper.db import AcquisitionTransaction, Database, open_database
from beamkeeper.domain.acquisition import JournalState, NewUpload, State
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.status import Service
from beamkeeper.testing.servers import free_port
from beamkeeper.testing.station import Started, Station, experiment, station, until

J = JournalState
FILES = 6

EVERY = (
    FailPoint.CLAIMED,
    FailPoint.COPIED,
    FailPoint.STAGED_WRITTEN,
    FailPoint.PUBLISH_ASKING,
    FailPoint.PUBLISH_ASKED,
    FailPoint.STORED_WRITTEN,
    FailPoint.PROCESSING,
    FailPoint.REGISTERED,
    FailPoint.PROCESSED,
)
"""Where a worker holds files; the four that stand for a state each are tried with every run of the tests."""


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Station]:
    with station(tmp_path, settings="lease_s = 1.0\nbatch_files = 4\n") as found:
        yield found


@pytest.mark.parametrize(
    "point",
    [
        FailPoint.COPYING,
        FailPoint.STAGED_WRITING,
        FailPoint.STORED_WRITING,
        FailPoint.AVAILABLE_WRITING,
        *(pytest.param(point, marks=pytest.mark.long) for point in EVERY),
    ],
)
def test_f34_a_worker_that_wakes_up_beyond_its_lease_changes_nothing(
    made: Station, tmp_path: Path, point: FailPoint
) -> None:
    source = tmp_path / "detector"
    source.mkdir()
    wanted = {b"data/%d.dat" % number: os.urandom(150_000) for number in range(FILES)}
    for path, content in wanted.items():
        (source / os.fsdecode(path[len(b"data/") :])).write_bytes(content)
    made.launch(Service.STORAGE)
    until((made.data / "first-session.json").exists, "the storage service")
    made.launch(Service.CATALOG)
    first = made.launch(Service.ACQUISITION, environ={VARIABLE: f"{point}:stop"})
    client = made.client()
    of = experiment(client)
    new = NewUpload(experiment_uid=of.uid, path_b64=path_fields(os.fsencode(source)[1:])["path_b64"])
    upload = client.uploads.start(new)
    until(lambda: state_of(first) == "T", f"the stop at {point}")
    was_held_up = not holds_no_lock(first, made.data / "acquisition.db")
    until(partial(holds_no_lock, first, made.data / "acquisition.db"), "a stop outside of any transaction")

    second = made.launch(Service.ACQUISITION, environ=other_host())
    with closing(open_database(f"sqlite:///{made.data / 'acquisition.db'}", Service.ACQUISITION)) as database:
        until(partial(are_available, database, upload.uid), "the other worker")
        os.kill(first.pid, signal.SIGCONT)
        ended = client.uploads.wait(upload.uid, timeout_s=30)
        assert (ended.state, ended.count(J.AVAILABLE)) == (State.DONE, FILES), ended
        until(partial(is_tidy, database), "the end of every staging directory")
    assert second.poll() is None
    assert was_held_up or "what was done here is dropped" in made.log.read_text()
    check_stored_once(made, client, of.directory, wanted)


def other_host() -> dict[str, str]:
    """The environment of a second acquisition service on the same database, whose disks are other ones."""
    address = f"127.0.0.1:{free_port()}"
    return {"BEAMKEEPER_ACQUISITION__LISTEN": address, "BEAMKEEPER_STATION__AGENT": "other-pc"}


def state_of(process: Started) -> str:
    """The state of a process as ps shows it (proc(5))."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def holds_no_lock(stopped: Started, database: Path) -> bool:
    """Whether others can write; another thread of the stopped process may be in a transaction: let it go on a little.

    Who is stopped there holds up everybody, and nothing is lost by it: but there is no second worker to be seen.
    """
    with closing(sqlite3.connect(database, timeout=0.2, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            os.kill(stopped.pid, signal.SIGCONT)
            time.sleep(0.001)
            os.kill(stopped.pid, signal.SIGSTOP)
            until(lambda: state_of(stopped) == "T", "the stop")
            return False
        connection.execute("ROLLBACK")
    return True


def are_available(database: Database[AcquisitionTransaction], uid: UUID) -> bool:
    with database.read() as tx:
        tallies = tx.journal.tallies(uid)
    return {tally.state: tally.files for tally in tallies} == {J.AVAILABLE: FILES}


def is_tidy(database: Database[AcquisitionTransaction]) -> bool:
    with database.read() as tx:
        return not tx.stagings.left_over()


def check_stored_once(made: Station, client: Client, directory: str, wanted: dict[bytes, bytes]) -> None:
    root = made.storage / directory
    for path, content in wanted.items():
        assert (root / os.fsdecode(path)).read_bytes() == content
    files = list(client.files.find(FileQuery()))
    assert {bytes(file.relpath) for file in files} == set(wanted)
    assert {file.version for file in files} == {1}
    assert client.files.summary(files[0].experiment_uid).versions == FILES
    until(lambda: not list((root / ".dm" / "staging").iterdir()), "an empty staging")
