"""`dm login`, `dm user`, `dm station`, `dm storage`, `dm type` and `dm experiment`, against a real service."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from beamkeeper.cli.app import EXIT_CODES, EXIT_WANTING, run
from beamkeeper.client.logins import DEFAULT, Logins, Profile
from beamkeeper.domain.events import Cursor
from beamkeeper.domain.experiments import StationChange
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewUser
from beamkeeper.testing.services import Running, running

PASSWORD = "correct horse"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Running]:
    """A site where the administrator is logged in, as after `dm up`."""
    settings = {"station": {"name": "8ID", "cycle": "2026-1"}}
    with running(Service.CATALOG, directory=tmp_path, settings=settings) as services:
        first = services.bootstrap.operator
        Logins().put(
            DEFAULT,
            Profile(url=services.client.url, username=first.session.username, token=SecretStr(first.token)),
        )
        yield services


class Terminal:
    """What commands print, and how they end."""

    def __init__(self, capsys: pytest.CaptureFixture[str], directory: Path) -> None:
        self._capsys = capsys
        self._directory = directory
        self.out = self.err = ""

    def dm(self, *words: str, expect: int = 0) -> str:
        """Run `dm` and return what it printed; it must end with this status."""
        status = run(words)
        self.out, self.err = self._capsys.readouterr()
        assert status == expect, f"dm {' '.join(words)}: {status}\n{self.out}{self.err}"
        if expect:
            assert self.err.strip().count("\n") == 0, self.err
            assert "Traceback" not in self.err
        return self.out

    def json(self, *words: str) -> Any:
        """Run `dm --json` and return its answer."""
        return json.loads(self.dm(*words, "--json"))

    def secret(self, text: str, mode: int = 0o600) -> str:
        """Return the path of a file with a secret."""
        path = self._directory / f"secret-{abs(hash((text, mode)))}"
        path.write_text(text + "\n")
        path.chmod(mode)
        return str(path)


@pytest.fixture
def terminal(site: Running, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Terminal:
    return Terminal(capsys, tmp_path)


def test_one_logs_in_once_and_later_commands_go_on_with_it(
    site: Running, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.dm("user", "create", "ada", "--name", "Ada", "--password-file", terminal.secret(PASSWORD))
    monkeypatch.setenv("BEAMKEEPER_PASSWORD", PASSWORD)
    told = terminal.dm("--profile", "two", "login", "ada", "--url", site.client.url)
    assert "ada is logged in" in told
    assert [one.name for one in Logins().all()["two"].stations] == ["8ID"]  # for when the site cannot be reached
    monkeypatch.delenv("BEAMKEEPER_PASSWORD")
    assert terminal.json("whoami", "--profile", "two")["user"]["full_name"] == "Ada"
    assert stat.S_IMODE(Logins().path.stat().st_mode) == 0o600
    assert "ada is logged out" in terminal.dm("logout", "--profile", "two")
    terminal.dm("whoami", "--profile", "two", expect=EXIT_CODES["not_authenticated"])
    assert "dm login" in terminal.err
    assert terminal.json("whoami")["user"]["username"] == site.bootstrap.operator.session.username


def test_a_session_that_ended_elsewhere_says_to_log_in_again(site: Running, terminal: Terminal) -> None:
    (session,) = site.client.sessions.list()
    site.client.sessions.revoke(session.uid)
    terminal.dm("user", "list", expect=EXIT_CODES["not_authenticated"])
    assert "dm login" in terminal.err
    terminal.dm("logout")


def test_a_password_comes_from_a_private_file_or_the_environment_and_nowhere_else(
    site: Running, terminal: Terminal
) -> None:
    site.client.users.create(NewUser(username="ada", password=PASSWORD))
    terminal.dm("login", "ada", "--profile", "x", "--url", site.client.url, expect=EXIT_CODES["invalid"])
    assert "BEAMKEEPER_PASSWORD" in terminal.err
    for file, words in (
        (terminal.secret(PASSWORD, 0o644), "chmod 600"),
        ("/nowhere", "No such file"),
    ):
        status = EXIT_CODES["settings" if "chmod" in words else "invalid"]
        terminal.dm("login", "ada", "--password-file", file, expect=status)
        assert words in terminal.err
    wrong = terminal.secret("wrong")
    terminal.dm("login", "ada", "--password-file", wrong, expect=EXIT_CODES["not_authenticated"])
    assert terminal.json("whoami")["user"]["username"] != "ada"
    terminal.dm("login", "ada", "--password-file", terminal.secret(PASSWORD))
    assert terminal.json("whoami")["user"]["username"] == "ada"


def test_a_shared_account_is_told_with_every_command(site: Running, terminal: Terminal) -> None:
    site.client.users.create(NewUser(username="hutch", password=PASSWORD, is_shared=True))
    for name in ("coffee", "tea"):
        terminal.dm("experiment", "create", name)
        terminal.dm("experiment", "add-user", name, "hutch")
    terminal.dm("login", "hutch", "--password-file", terminal.secret(PASSWORD), expect=EXIT_CODES["invalid"])
    assert "--experiment" in terminal.err
    told = terminal.dm("login", "hutch", "--experiment", "coffee", "--password-file", terminal.secret(PASSWORD))
    assert "for experiment coffee only" in told
    names = [one["name"] for one in terminal.json("experiment", "list")]
    assert names == ["coffee"]
    assert "hutch, for experiment coffee only" in terminal.err
    assert "coffee" in terminal.dm("experiment", "show")
    assert run(["experiment", "use", "tea"]) == EXIT_CODES["conflict"]


def test_accounts_are_made_shown_disabled_and_given_roles(site: Running, terminal: Terminal) -> None:
    terminal.dm("user", "create", "ada", "--email", "a@b", "--no-password")
    assert "ada" in [user["username"] for user in terminal.json("user", "list")]
    terminal.dm("user", "grant", "ada", "station-manager", "--station", "8ID")
    assert "station-manager of station 8ID" in terminal.dm("user", "show", "ada")
    terminal.dm("user", "revoke", "ada", "station-manager", "--station", "8ID")
    assert terminal.json("user", "show", "ada")["grants"] == []
    terminal.dm("user", "revoke", "ada", "station-manager", "--station", "8ID", expect=EXIT_CODES["not_found"])
    terminal.dm("user", "password", "ada", "--password-file", terminal.secret("another one"))
    terminal.dm("user", "disable", "ada", "--yes")
    assert terminal.json("user", "show", "ada")["is_enabled"] is False
    terminal.dm("user", "enable", "ada")
    assert terminal.json("user", "show", "ada")["is_enabled"] is True


def test_what_cannot_be_done_is_one_sentence_and_a_status_of_its_own(site: Running, terminal: Terminal) -> None:
    secret = terminal.secret(PASSWORD)
    wrong = [
        (("user", "show", "nobody"), "not_found"),
        (("user", "create", "Not A Name", "--no-password"), "invalid"),
        (("user", "create", "ada", "--password-file", terminal.secret("short")), "invalid"),
        (("user", "grant", "nobody", "administrator"), "not_found"),
        (("user", "grant", "nobody", "station-viewer"), "invalid"),
        (("station", "show", "9ID"), "not_found"),
        (("station", "create", "8ID"), "already_exists"),
        (("station", "update", "8ID", "--layout", "{cycle}"), "invalid"),
        (("station", "update", "8ID", "--storage-area", "none"), "not_found"),
        (("storage", "check", "none"), "not_found"),
        (("storage", "add", "more", "relative"), "invalid"),
        (("experiment", "show", "none"), "not_found"),
        (("experiment", "show"), "invalid"),
        (("experiment", "create", "a b"), "invalid"),
        (("experiment", "create", "a", "--pi", "nobody"), "not_found"),
        (("experiment", "create", "a", "no-colon"), "invalid"),
        (("experiment", "create", "a", "--starts", "2026-02-01", "--ends", "2026-01-01"), "invalid"),
        (("experiment", "update", "none", "--title", "x"), "not_found"),
        (("login", "nobody", "--password-file", secret), "not_authenticated"),
        (("whoami", "--profile", "none"), "settings"),
        (("whoami", "--url", "http://127.0.0.1:1"), "not_authenticated"),
    ]
    for words, code in wrong:
        terminal.dm(*words, expect=EXIT_CODES[code])
        assert terminal.err.startswith("dm: ")


def test_storage_areas_are_added_and_checked(terminal: Terminal, site: Running, tmp_path: Path) -> None:
    shown = terminal.json("storage", "check", "main")
    assert shown["is_ok"] is True
    assert shown["total_bytes"] > 0
    away = tmp_path / "away"
    terminal.dm("storage", "add", "more", str(away), expect=EXIT_WANTING)
    assert "mounted" in terminal.err
    away.mkdir()
    assert "can be written and read" in terminal.dm("storage", "check", "more")
    assert [area["name"] for area in terminal.json("storage", "list")] == ["main", "more"]


def test_a_station_joins_with_a_token_that_never_is_an_argument(
    terminal: Terminal, site: Running, tmp_path: Path
) -> None:
    terminal.dm("station", "create", "9ID", "--title", "Nine", "--storage-area", "main")
    token = terminal.dm("station", "token", "9ID").strip()
    file = terminal.secret(token)
    data = tmp_path / "nine"
    terminal.dm("station", "join", "--token-file", file, "--data", str(data))
    key = data / "service.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert site.as_(key.read_text().strip()).sessions.whoami().is_service
    terminal.dm("station", "join", "--token-file", file, "--data", str(data), expect=EXIT_CODES["conflict"])
    other = ("station", "join", "--token-file", file, "--data", str(data), "--replace")
    kept = key.read_text()
    terminal.dm(*other, expect=EXIT_CODES["not_authenticated"])
    assert key.read_text() == kept
    assert [path.name for path in data.iterdir()] == ["service.key"]
    assert [one["name"] for one in terminal.json("station", "list")] == ["8ID", "9ID"]
    assert terminal.json("station", "update", "9ID", "--cycle", "2026-2")["cycle"] == "2026-2"
    assert "main" in terminal.dm("station", "show", "9ID")


@pytest.mark.usefixtures("site")
def test_an_experiment_lives_from_creation_to_deletion(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.dm("type", "create", "XPCS", "--description", "speckle")
    assert [kind["name"] for kind in terminal.json("type", "list")] == ["XPCS"]
    terminal.dm("user", "create", "ada", "--no-password")
    words = (
        "--title",
        "Foam [bold]",
        "--pi",
        "ada",
        "--type",
        "XPCS",
        "--ends",
        "2026-03-31",
        "sample:latte:2",
        "T:300",
    )
    made = terminal.json("experiment", "create", "coffee", *words)
    assert made["metadata"] == {"sample": "latte:2", "T": "300"}
    assert made["ends_at"].startswith("2026-0")
    changed = terminal.json("experiment", "update", "coffee", "--proposal", "P1", "T:301", "--forget", "sample")
    assert (changed["metadata"], changed["proposal"], changed["title"]) == ({"T": "301"}, "P1", "Foam [bold]")
    assert "Foam [bold]" in terminal.dm("experiment", "list", "FOAM")
    terminal.dm("experiment", "use", "coffee")
    shown = terminal.json("experiment", "show")
    assert [(one["username"], one["role"]) for one in shown["people"]] == [("ada", "pi")]
    assert shown["files"]["files"] == 0
    terminal.dm("user", "create", "bob", "--no-password")
    assert "bob" in terminal.dm("experiment", "add-user", "coffee", "bob", "ada", "--role", "manager")
    assert "bob" not in terminal.dm("experiment", "remove-user", "coffee", "bob")
    for answer, status in (("n\n", 1), ("", EXIT_CODES["invalid"])):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        assert run(["experiment", "delete", "coffee"]) == status
    assert "(0 files, 0 B)" in capsys.readouterr().err
    assert terminal.json("experiment", "show", "coffee")["deleted_at"] is None
    terminal.dm("experiment", "delete", "coffee", "--yes")
    assert terminal.json("experiment", "list") == []
    assert [one["name"] for one in terminal.json("experiment", "list", "--deleted")] == ["coffee"]


def test_an_experiment_is_shown_while_the_catalogue_is_away(terminal: Terminal, site: Running) -> None:
    terminal.dm("experiment", "create", "coffee")
    site.client.stations.update("8ID", StationChange(catalog_url="http://127.0.0.1:1"))
    assert "coffee" in terminal.dm("experiment", "show", "coffee")
    assert "files are not counted" in terminal.err


def test_the_next_command_is_told_what_this_one_changed(terminal: Terminal, site: Running) -> None:
    terminal.dm("user", "create", "ada", "--no-password")
    kept = Logins().get(DEFAULT)
    assert kept is not None
    with site.database.read() as tx:
        assert Cursor.parse(kept.mirror).number == tx.mirror.latest()


def test_a_password_that_is_typed_is_not_shown(site: Running) -> None:
    site.client.users.create(NewUser(username="ada", password=PASSWORD))
    ours, theirs = pty.openpty()
    code = "from beamkeeper.cli.app import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "login", "ada"], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        screen = b""
        while not screen.rstrip().endswith(b"Password of ada:"):
            screen += os.read(ours, 1024)
        os.write(ours, PASSWORD.encode() + b"\n")
        with contextlib.suppress(OSError):  # Linux says EIO once the other side is closed
            while chunk := os.read(ours, 1024):
                screen += chunk
        assert process.wait() == 0, screen
    os.close(ours)
    assert b"ada is logged in" in screen
    assert PASSWORD.encode() not in screen


def test_access_is_explained_on_an_experiment_and_at_a_station(terminal: Terminal) -> None:
    terminal.dm("experiment", "create", "coffee")
    terminal.dm("user", "create", "ada", "--no-password")
    said = terminal.dm("access", "explain", "ada", "coffee")
    assert 'ada on experiment "coffee"' in said
    assert "holds no role that may: administrator, station-manager, pi" in said
    [reading] = [
        one
        for one in terminal.json("access", "explain", "ada", "8ID", "--of-station")["rules"]
        if one["action"] == "station:read"
    ]
    assert not reading["is_allowed"]
    terminal.dm("access", "explain", "eve", "coffee", expect=6)


def test_the_audit_log_is_shown_and_a_log_that_was_written_anew_is_found(terminal: Terminal) -> None:
    terminal.dm("type", "create", "imaging")
    shown = terminal.json("audit-log", "list")
    assert [row["action"] for row in shown] == ["POST /experiment-types"]
    assert "experiment_types + imaging" in terminal.dm("audit-log", "list")
    said = terminal.dm("audit-log", "verify")
    kept = said.split()[-1]
    assert "1 rows fit together" in said
    terminal.dm("audit-log", "verify", "--expect", kept)
    assert "row 1 has another digest" in terminal.dm(
        "audit-log", "verify", "--expect", "1:" + "0" * 64, expect=EXIT_WANTING
    )
    terminal.dm("audit-log", "verify", "--expect", "newest", expect=EXIT_CODES["invalid"])
