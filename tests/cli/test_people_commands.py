"""`dm key` and `dm auth`, against a real service."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from beamkeeper.cli.app import run
from beamkeeper.client.logins import DEFAULT, Logins, Profile
from beamkeeper.core.authenticators import Authenticators
from beamkeeper.domain.status import Service
from beamkeeper.engine.sync import Facility, SyncLoop
from beamkeeper.plugins import load
from beamkeeper.plugins.people import AUTHENTICATORS, DIRECTORIES
from beamkeeper.testing.services import Running, running
from beamkeeper.testing.slapd import Slapd


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Running]:
    """A site where the administrator is logged in, as after `dm up`."""
    with running(directory=tmp_path) as services:
        first = services.bootstrap.operator
        token = SecretStr(first.token)
        Logins().put(DEFAULT, Profile(url=services.client.url, username=first.session.username, token=token))
        yield services


def dm(capsys: pytest.CaptureFixture[str], *words: str, expect: int = 0) -> str:
    """Run `dm` and return what it printed."""
    status = run(words)
    out, err = capsys.readouterr()
    assert status == expect, f"{out}{err}"
    return out + err


def test_a_key_is_made_used_and_taken_back(
    site: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "robot.key"
    made = dm(capsys, "key", "create", "robot", "--scope", "read", "--scope", "acquire", "--file", str(file))
    token = file.read_text().strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "acquire read" in made
    assert token not in made
    assert "cannot make" in dm(capsys, "key", "create", "other", "--scope", "read", "--file", str(file), expect=2)
    assert [one["name"] for one in json.loads(dm(capsys, "key", "list", "--json"))] == ["robot"]
    with monkeypatch.context() as used:
        used.setenv("BEAMKEEPER_TOKEN", token)
        assert site.bootstrap.operator.session.username in dm(capsys, "whoami")
        assert "may not" in dm(capsys, "user", "list", expect=5)
        assert "key revoke" in dm(capsys, "logout", expect=5)
    dm(capsys, "key", "revoke", "robot")
    monkeypatch.setenv("BEAMKEEPER_TOKEN", token)
    dm(capsys, "whoami", expect=4)


def test_a_key_without_a_file_is_shown_once(site: Running, capsys: pytest.CaptureFixture[str]) -> None:
    shown = dm(capsys, "key", "create", "robot", "--scope", "read", "--expires", "2099-01-01", expect=2)
    assert "ends within" in shown
    shown = dm(capsys, "key", "create", "robot", "--scope", "read")
    token = next(line.split()[-1] for line in shown.splitlines() if line.startswith("key:"))
    assert site.as_(token).sessions.whoami().user is not None
    assert token not in dm(capsys, "key", "list")


def test_the_connection_to_a_directory_is_told_of_in_words(
    site: Running, directory_server: Slapd, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "here alone" in dm(capsys, "auth", "check")
    plugin = load.build(AUTHENTICATORS, "ldap", directory_server.options(timeout_s=0.5))
    site.contexts[Service.STORAGE].authenticators = Authenticators({"ldap": plugin})
    assert "nobody" in dm(capsys, "auth", "check", expect=10)
    directory_server.add_person("ada", "correct horse", number=1)
    told = json.loads(dm(capsys, "auth", "check", "ada", "--json"))
    assert all(step["is_good"] for step in told)
    assert directory_server.dn_of("ada") in told[-1]["words"]
    directory_server.stop()
    assert "does not answer" in dm(capsys, "auth", "check", expect=10).replace("\n", " ")


def test_people_are_taken_over_and_what_was_done_is_told(
    site: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "people.csv"
    file.write_text("username,badge\nada,1\nNot A Name,2\n")
    plugin = load.build(DIRECTORIES, "file", {"path": str(file)})
    loop = SyncLoop(site.database, Facility(source="file", directory=plugin, may_leave=0), report=lambda _: None)
    loop.start()
    try:
        told = dm(capsys, "sync", "users")
        assert "added" in told
        assert "refused: row 2 (Not A Name)" in told
        file.write_text("username,badge\n")
        assert "--may-leave" in dm(capsys, "sync", "users", expect=10)
        assert json.loads(dm(capsys, "sync", "users", "--may-leave", "1", "--json"))["report"]["deactivated"] == 1
        assert "people.proposals" in dm(capsys, "sync", "proposals", expect=10).replace("\n", " ")
    finally:
        loop.stop()
        loop.join()
