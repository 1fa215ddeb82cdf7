"""Somebody of the facility, from its databases to the files and out again: real services, PostgreSQL and OpenLDAP."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import NewUpload, State
from beamkeeper.domain.errors import DmError, NotAuthenticatedError, NotFoundError
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.people import SyncKind, SyncState
from beamkeeper.testing.servers import PostgresServer, fresh_database
from beamkeeper.testing.slapd import Slapd, ssha
from beamkeeper.testing.station import Station, station, until

PASSWORD = "correct horse"
AT_A_STATION_S = 5.0
"""So soon a connected station hears that somebody's membership has ended."""


class Office:
    """The facility's database of people and proposals."""

    def __init__(self, server: PostgresServer) -> None:
        self.url = fresh_database(server)
        self._connection = psycopg.connect(self.url.replace("+psycopg", ""), autocommit=True)
        self("CREATE TABLE people (login text, badge integer, hash text, posix integer)")
        self("CREATE TABLE papers (kind text, number integer, title text, badge integer, pi boolean)")

    def __call__(self, statement: str, *values: object) -> None:
        self._connection.execute(statement, values)

    def close(self) -> None:
        self._connection.close()

    def settings(self, server: Slapd) -> str:
        """Return what the storage service is told of the facility."""
        people = "SELECT login AS username, badge, hash AS password_hash, posix AS uid_number FROM people"
        tables: dict[str, dict[str, object]] = {
            "people": {"directory": "sql", "proposals": "sql", "authenticators": ["ldap"], "accounts": "ldap"},
            "facility.sql": {"url": self.url, "query": people},
            "proposals.sql": {"url": self.url, "query": "SELECT kind, number, title, badge, pi AS is_pi FROM papers"},
            "facility.ldap": server.options(),
        }
        return "".join(
            f"[{table}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in options.items())
            for table, options in tables.items()
        )


@pytest.fixture
def office(postgres_server: PostgresServer) -> Iterator[Office]:
    made = Office(postgres_server)
    yield made
    made.close()


@contextmanager
def logged_in(place: Station, admin: Client, username: str) -> Iterator[Client]:
    """Log in with the password of the directory server."""
    with Client(admin.url, logins=place.logins, station="TEST") as client:
        client.sessions.login(username, PASSWORD)
        yield client


def sync(admin: Client) -> None:
    """Take over what the office has now."""
    for kind in SyncKind:
        done = admin.syncs.run(kind, to_ldap=kind is SyncKind.USERS)
        assert done.state is SyncState.DONE, done.message


def filled(admin: Client, directory: Path, name: str, proposal: str) -> Experiment:
    """Make an experiment of a proposal, with a file that is stored and catalogued."""
    source = directory / name
    source.mkdir()
    (source / "frame.tif").write_bytes(name.encode())
    made = admin.experiments.create(NewExperiment(name=name, station="TEST", proposal=proposal))
    at = path_fields(os.fsencode(source)[1:])["path_b64"]
    upload = admin.uploads.start(NewUpload(experiment_uid=made.uid, path_b64=at))
    assert admin.uploads.wait(upload.uid, timeout_s=60).state is State.DONE
    return made


def refused(ask: Callable[[], object], error: type[DmError]) -> bool:
    """Whether this is refused in this way."""
    try:
        ask()
    except error:
        return True
    return False


def test_somebody_comes_and_goes_with_the_facility_s_databases(
    office: Office, directory_server: Slapd, tmp_path: Path
) -> None:
    for login, badge in (("ada", 1), ("bob", 2)):
        office("INSERT INTO people VALUES (%s, %s, %s, %s)", login, badge, ssha(PASSWORD), 40000 + badge)
        office("INSERT INTO papers VALUES ('gup', %s, 'Coffee', %s, true)", 12340 + badge, badge)
    with station(tmp_path, settings=office.settings(directory_server)) as place:
        admin = place.start()
        sync(admin)
        coffee, tea = filled(admin, tmp_path, "coffee", "12341"), filled(admin, tmp_path, "tea", "12342")
        assert coffee.pi == "ada"
        with logged_in(place, admin, "ada") as ada:
            assert [one.name for one in ada.experiments.list()] == ["coffee"]
            [file] = ada.files.find(FileQuery(experiment_uid=coffee.uid))
            assert b"".join(ada.downloads.read(file)) == b"coffee"
            for hidden in (lambda: ada.experiments.by_uid(tea.uid), lambda: ada.files.summary(tea.uid)):
                assert refused(hidden, NotFoundError)

            office("DELETE FROM papers WHERE badge = 1")
            office("INSERT INTO papers VALUES ('gup', 12341, 'Coffee', 2, true)")
            sync(admin)
            assert refused(lambda: ada.experiments.by_uid(coffee.uid), NotFoundError)
            assert refused(lambda: list(ada.downloads.read(file)), NotFoundError)
            asked = partial(refused, partial(ada.files.get, file.uid), NotFoundError)
            until(asked, "the station's catalogue hears of it", AT_A_STATION_S)

            office("DELETE FROM people WHERE login = 'ada'")
            sync(admin)
            assert refused(ada.sessions.whoami, NotAuthenticatedError)
            asked = partial(refused, lambda: list(ada.daqs.list()), NotAuthenticatedError)
            until(asked, "the station hears of it", AT_A_STATION_S)
            assert refused(lambda: ada.sessions.login("ada", PASSWORD), NotAuthenticatedError)
        with logged_in(place, admin, "bob") as bob:
            assert {one.name for one in bob.experiments.list()} == {"coffee", "tea"}
