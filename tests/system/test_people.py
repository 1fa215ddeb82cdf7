"""Somebody of the facility, from its databases to the files and out again: real services, PostgreSQL and OpenLDAP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest

from beamkeeper.cli.app import EXIT_CODES
from beamkeeper.client import Client
from beamkeeper.domain.acquisition import NewUpload, State
from beamkeeper.domain.errors import DmError, NotAuthenticatedError, NotFoundError
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.file_rights import Way
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.people import SyncKind, SyncState
from beamkeeper.domain.permissions import WalkMode, WalkState
from beamkeeper.testing.accounts import Person
from beamkeeper.testing.servers import PostgresServer, fresh_database
from beamkeeper.testing.slapd import Slapd, ssha
from beamkeeper.testing.station import Station, station, until

PASSWORD = "correct horse"
FIRST_GID = 70000
NOT_FOUND = EXIT_CODES["not_found"]
DM = [sys.executable, "-c", "from beamkeeper.cli.app import main; main()"]
"""`dm`, as this environment has it."""

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
            "people": {
                **{"directory": "sql", "proposals": "sql", "authenticators": ["ldap"], "accounts": "ldap"},
                **{"groups": "ldap", "first_gid": FIRST_GID},
            },
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
    walk = admin.permissions.start(made.uid, WalkMode.REPAIR)  # in nobody's way
    assert admin.uploads.wait(upload.uid, timeout_s=60).state is State.DONE
    assert admin.permissions.wait(walk.uid).state is WalkState.DONE
    return made


def refused(ask: Callable[[], object], error: type[DmError]) -> bool:
    """Whether this is refused in this way."""
    try:
        ask()
    except error:
        return True
    return False


def posix(server: Slapd, username: str) -> Person:
    """Return somebody as a host has them that asks the directory server: with the groups that it gives at a login."""
    import ldap

    entry = server.read(server.dn_of(username))
    found = server.connect().search_s(server.groups_dn, ldap.SCOPE_SUBTREE, f"(memberUid={username})", ["gidNumber"])
    groups = [int(group["gidNumber"][0]) for _, group in found]
    return Person(int(entry["uidNumber"][0]), int(entry["gidNumber"][0]), tuple(groups))


def logged_in_by_dm(url: str, username: str, home: Path) -> dict[str, str]:
    """Log in by `dm`, as people do; return the environment in which that login counts."""
    home.mkdir()
    secret = home / "password"
    secret.touch(mode=0o600)
    secret.write_text(PASSWORD)
    environ = {**os.environ, "XDG_CONFIG_HOME": str(home)}
    subprocess.run([*DM, "--url", url, "login", username, "--password-file", str(secret)], env=environ, check=True)
    return environ


def downloaded(environ: dict[str, str], experiment: str, to: Path) -> tuple[int, set[bytes]]:
    """Download an experiment by `dm`; return how that ended, and what was brought."""
    done = subprocess.run([*DM, "--station", "TEST", "download", experiment, "--to", str(to)], env=environ, check=False)
    return done.returncode, {path.read_bytes() for path in to.rglob("*") if path.is_file()} if to.exists() else set()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be other people")
def test_somebody_comes_and_goes_with_the_facility_s_databases(
    office: Office, directory_server: Slapd, ext4_directory: Path, tmp_path: Path
) -> None:
    for login, badge in (("ada", 1), ("bob", 2)):
        office("INSERT INTO people VALUES (%s, %s, %s, %s)", login, badge, ssha(PASSWORD), 40000 + badge)
        office("INSERT INTO papers VALUES ('gup', %s, 'Coffee', %s, true)", 12340 + badge, badge)
    with station(ext4_directory, settings=office.settings(directory_server)) as place:
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
            environ = logged_in_by_dm(admin.url, "ada", tmp_path / "ada")
            assert downloaded(environ, "coffee", tmp_path / "mine") == (0, {b"coffee"})
            assert downloaded(environ, "tea", tmp_path / "theirs") == (NOT_FOUND, set())

            tops = [place.storage / one.directory for one in (coffee, tea)]
            on_disk, others = [next(top.glob("data/**/frame.tif")) for top in tops]
            until(lambda: posix(directory_server, "ada").may_read(on_disk), "ada reads it on the disk", 20)
            walk = admin.permissions.wait(admin.permissions.start(coffee.uid).uid)
            assert (walk.way, walk.differing) == (Way.OWNED, 0), walk.faults
            host_ada = posix(directory_server, "ada")
            assert not host_ada.may_write(on_disk)
            hidden_ones = (others, tops[1], tops[1].parent, tops[0] / ".dm")
            assert [path for path in hidden_ones if host_ada.may_read(path)] == []
            assert not posix(directory_server, "bob").may_read(on_disk)

            office("DELETE FROM papers WHERE badge = 1")
            office("INSERT INTO papers VALUES ('gup', 12341, 'Coffee', 2, true)")
            sync(admin)
            assert refused(lambda: ada.experiments.by_uid(coffee.uid), NotFoundError)
            assert refused(lambda: list(ada.downloads.read(file)), NotFoundError)
            asked = partial(refused, partial(ada.files.get, file.uid), NotFoundError)
            until(asked, "the station's catalogue hears of it", AT_A_STATION_S)
            until(lambda: not posix(directory_server, "ada").may_read(on_disk), "the directory hears of it", 20)
            until(lambda: posix(directory_server, "bob").may_read(on_disk), "the directory hears of the other", 20)

            office("DELETE FROM people WHERE login = 'ada'")
            sync(admin)
            assert refused(ada.sessions.whoami, NotAuthenticatedError)
            asked = partial(refused, lambda: list(ada.daqs.list()), NotAuthenticatedError)
            until(asked, "the station hears of it", AT_A_STATION_S)
            assert refused(lambda: ada.sessions.login("ada", PASSWORD), NotAuthenticatedError)
        with logged_in(place, admin, "bob") as bob:
            assert {one.name for one in bob.experiments.list()} == {"coffee", "tea"}
