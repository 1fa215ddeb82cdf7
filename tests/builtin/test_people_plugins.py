"""People and proposals of a file, a database, a REST service and a directory server, each a real one."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from beamkeeper.domain.errors import SettingsError, UnavailableError
from beamkeeper.domain.people import DirectoryAccount, Person, Refused
from beamkeeper.plugins import load
from beamkeeper.plugins.people import ACCOUNTS, DIRECTORIES, PROPOSALS, ProposalSource, UserDirectory
from beamkeeper.testing.conformance_people import ProposalSourceConformance, UserDirectoryConformance
from beamkeeper.testing.slapd import Slapd

ADA = {
    "login": "ada",
    "full_name": "Ada Lovelace",
    "email": "ada@example.org",
    "badge": 12345,
    "institution": "Analytical Engines",
}
PEOPLE: list[dict[str, Any]] = [ADA, {**dict.fromkeys(ADA, ""), "login": "bob"}, {**ADA, "login": "Not A Name"}]
GUP = {
    "kind": "GUP",
    "gup": 12345,
    "title": "Coffee under pressure",
    "starts_at": "2026-03-01",
    "ends_at": "2026-03-04",
}
NONE = {"kind": "gup", "gup": "", "title": "", "starts_at": None, "ends_at": None, "username": "eve", "is_pi": "N"}
PAPERS: list[dict[str, Any]] = [
    {**GUP, "username": "ada", "is_pi": "Y"},
    {**GUP, "username": "bob", "is_pi": "N"},
    {**GUP, "kind": "esaf", "gup": 271828, "title": "", "username": "bob", "is_pi": "N"},
    NONE,
]
COLUMNS = {"username": "login"}
NUMBERS = {"number": "gup"}


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


def stored(url: str, table: str, rows: list[dict[str, Any]]) -> None:
    """Fill a table of the facility's database."""
    engine = sa.create_engine(url)
    columns = [sa.Column(name, sa.Text) for name in rows[0]]
    made = sa.Table(table, sa.MetaData(), *columns)
    with engine.begin() as connection:
        made.create(connection)
        connection.execute(made.insert(), [{k: None if v is None else str(v) for k, v in row.items()} for row in rows])
    engine.dispose()


@contextmanager
def serving(pages: Mapping[str, object]) -> Iterator[str]:
    """Serve JSON documents by their paths, to who has the token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers["Authorization"] == "Bearer hush"
            body = json.dumps(pages.get(self.path)).encode()
            self.send_response(200 if allowed and self.path in pages else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text("hush\n")
    return str(path)


@pytest.fixture(params=["csv", "json", "sql", "rest"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def options_of(kind: str, tmp_path: Path, rows: list[dict[str, Any]], columns: Mapping[str, str]) -> dict[str, Any]:
    if kind in ("csv", "json"):
        return {"path": written(tmp_path / f"rows.{kind}", rows), "columns": columns}
    url = f"sqlite:///{tmp_path / 'facility.db'}"
    stored(url, "rows", rows)
    return {"url": url, "query": "SELECT * FROM rows", "columns": columns}


class TestDirectories(UserDirectoryConformance):
    @pytest.fixture
    def directory(self, kind: str, tmp_path: Path, token_file: str) -> Iterator[UserDirectory]:
        if kind != "rest":
            name = "sql" if kind == "sql" else "file"
            yield load.build(DIRECTORIES, name, options_of(kind, tmp_path, PEOPLE, COLUMNS))
            return
        first = {"data": {"people": PEOPLE[:2]}, "links": {"next": "/people?page=2"}}
        pages = {"/people": first, "/people?page=2": {"data": {"people": PEOPLE[2:]}, "links": {}}}
        with serving(pages) as url:
            options = {"url": f"{url}/people", "items": "data.people", "next": "links.next", "token_file": token_file}
            yield load.build(DIRECTORIES, "rest", {**options, "columns": COLUMNS})


class TestProposals(ProposalSourceConformance):
    @pytest.fixture
    def source(self, kind: str, tmp_path: Path, token_file: str) -> Iterator[ProposalSource]:
        if kind != "rest":
            name = "sql" if kind == "sql" else "file"
            yield load.build(PROPOSALS, name, options_of(kind, tmp_path, PAPERS, NUMBERS))
            return
        people = [{"username": "ada", "is_pi": True}, {"username": "bob", "is_pi": False}]
        papers = [{**GUP, "people": people}, {**GUP, "kind": "esaf", "gup": 271828, "people": people[1:]}, NONE]
        with serving({"/proposals": papers}) as url:
            options = {"url": f"{url}/proposals", "token_file": token_file, "columns": NUMBERS}
            yield load.build(PROPOSALS, "rest", options)


class TestLdap(UserDirectoryConformance):
    @pytest.fixture
    def directory(self, directory_server: Slapd) -> UserDirectory:
        given = {"cn": "Ada Lovelace", "mail": "ada@example.org", "o": "Analytical Engines", "employeeNumber": "12345"}
        directory_server.add_person("ada", "x", number=1, **given)
        directory_server.add_person("bob", "x", number=2)
        directory_server.add_person("Not A Name", "x", number=3)
        plugin: UserDirectory = load.build(DIRECTORIES, "ldap", directory_server.options())
        return plugin


def test_a_source_that_breaks_off_gives_nobody(tmp_path: Path, token_file: str) -> None:
    cut = tmp_path / "cut.csv"
    cut.write_text('login,full_name\nada,Ada\nbob,"Bo')
    for path in (cut, tmp_path / "none.csv"):
        with pytest.raises(UnavailableError, match="cannot be read"):
            list(load.build(DIRECTORIES, "file", {"path": str(path), "columns": COLUMNS}).people())
    short = tmp_path / "short.csv"
    short.write_text("login,full_name\nada\n")
    with pytest.raises(UnavailableError, match="another length"):
        list(load.build(DIRECTORIES, "file", {"path": str(short), "columns": COLUMNS}).people())
    with pytest.raises(UnavailableError, match="query"):
        list(load.build(DIRECTORIES, "sql", {"url": "sqlite://", "query": "SELECT * FROM nowhere"}).people())
    with serving({"/a": {"items": [ADA], "next": "http://127.0.0.1:1/b"}}) as url:
        options = {"url": f"{url}/a", "items": "items", "next": "next", "token_file": token_file, "columns": COLUMNS}
        with pytest.raises(UnavailableError, match="another host"):
            list(load.build(DIRECTORIES, "rest", options).people())
        with pytest.raises(UnavailableError, match="does not give"):
            list(load.build(DIRECTORIES, "rest", {**options, "token_file": None}).people())
    Path(token_file).chmod(0o644)
    with pytest.raises(SettingsError, match="private"):
        list(load.build(DIRECTORIES, "rest", {"url": "http://127.0.0.1:1/", "token_file": token_file}).people())


def test_a_line_in_a_file_ends_where_the_line_ends_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text('login,full_name\nada,Ada\u2028Lovelace\nbob,"Bob\nB"\n')
    found = list(load.build(DIRECTORIES, "file", {"path": str(path), "columns": COLUMNS}).people())
    assert [person.full_name for person in found] == ["Ada\u2028Lovelace", "Bob\nB"]


def test_odd_people_and_dates_of_a_proposal_hinder_no_other(tmp_path: Path) -> None:
    odd = {"number": "1", "people": ["ada", {"username": "bob"}], "ends_at": "9999-12-31"}
    rows = [odd, {"number": "2", "people": [{"username": "x\0y"}]}, {"number": "3", "people": [{"badge": 7}]}]
    options = {"path": written(tmp_path / "papers.json", rows), "kind": "gup"}
    found = list(load.build(PROPOSALS, "file", options).proposals())
    assert sorted(one.what for one in found if isinstance(one, Refused)) == ["gup 1", "gup 2"]
    taken = {one.number: one for one in found if not isinstance(one, Refused)}
    assert [one.username for one in taken["1"].people] == ["bob"]
    assert (taken["1"].ends_at.year, taken["3"].people[0].badge) == (9999, "7")


def test_accounts_of_a_directory_server_are_added_updated_and_closed_and_never_in_clear(
    directory_server: Slapd,
) -> None:
    hashed = "{SSHA}W6kL0Yz4Dn8HJ6cJq6k6Xl4dZ2ZzYWx0"
    keeper = load.build(ACCOUNTS, "ldap", directory_server.options())
    person = Person(username="ada", password_hash=hashed, uid_number=4711)
    ada = DirectoryAccount(username="ada", number=7, badge="1", full_name="Ada L", password_hash=person.password_hash)
    bob = DirectoryAccount(username="bob", number=8)
    assert keeper.keep([ada, bob]).added == 2
    assert keeper.keep([DirectoryAccount(username="eve", number=9, full_name=" ")]).added == 1
    found = directory_server.read(directory_server.dn_of("ada"))
    assert (found["userPassword"], found["uidNumber"], found["employeeNumber"]) == ([hashed], ["100007"], ["1"])
    assert "userPassword" not in directory_server.read(directory_server.dn_of("bob"))
    assert keeper.keep([ada, bob]) == keeper.keep([]), "what is as it should be is left alone"
    moved = ada.model_copy(update={"email": "ada@b", "uid_number": person.uid_number, "password_hash": None})
    assert keeper.keep([moved]).updated == 1
    found = directory_server.read(directory_server.dn_of("ada"))
    assert (found["userPassword"], found["uidNumber"], found["mail"]) == ([hashed], ["4711"], ["ada@b"])
    assert keeper.keep([moved.model_copy(update={"is_enabled": False})]).closed == 1
    assert directory_server.read(directory_server.dn_of("ada"))["userPassword"] == ["{CRYPT}*"]
    directory_server.stop()
    with pytest.raises(UnavailableError):
        keeper.keep([ada])
