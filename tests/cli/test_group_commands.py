"""`dm experiment groups`: what it says of groups in a real directory server, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from beamkeeper.cli.app import EXIT_WANTING, run
from beamkeeper.client.logins import DEFAULT, Logins, Profile
from beamkeeper.domain.experiments import NewExperiment
from beamkeeper.domain.users import NewUser
from beamkeeper.engine.groups import GroupLoop, Keeping
from beamkeeper.plugins import load
from beamkeeper.plugins.people import GROUP_KEEPERS
from beamkeeper.testing.services import Running, running
from beamkeeper.testing.slapd import Slapd
from beamkeeper.testing.station import until


@pytest.fixture
def site(directory_server: Slapd, tmp_path: Path) -> Iterator[Running]:
    """A site that keeps groups, with ada in one, where the administrator is logged in."""
    directory_server.add_person("ada", "correct horse", number=50001)
    keeper = load.build(GROUP_KEEPERS, "ldap", directory_server.options())
    with running(directory=tmp_path) as services:
        first = services.bootstrap.operator
        token = SecretStr(first.token)
        Logins().put(DEFAULT, Profile(url=services.client.url, username=first.session.username, token=token))
        loop = GroupLoop(services.database, Keeping(keeper, "bk-{experiment}", 70000), report=lambda _: None)
        loop.start()
        services.client.users.create(NewUser(username="ada"))
        made = services.client.experiments.create(NewExperiment(name="coffee", station=services.settings.station.name))
        services.client.experiments.add_user(made.uid, "ada")
        until(lambda: list(services.client.groups.list()), "a group")
        yield services
        loop.stop()
        loop.join()


def dm(capsys: pytest.CaptureFixture[str], *words: str, expect: int = 0) -> str:
    """Run `dm` and return what it printed."""
    status = run(words)
    out, err = capsys.readouterr()
    assert status == expect, f"{out}{err}"
    return out + err


@pytest.mark.usefixtures("site")
def test_a_check_tells_who_is_foreign_and_a_repair_takes_them_out(
    directory_server: Slapd, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = dm(capsys, "experiment", "groups", "check", "coffee")
    assert "bk-coffee" in shown
    assert "the storage host knows no group 70000" in shown
    directory_server.change(f"cn=bk-coffee,{directory_server.groups_dn}", memberUid=["ada", "globus"])
    [listed] = json.loads(dm(capsys, "experiment", "groups", "check", "--json", expect=EXIT_WANTING))
    assert listed["difference"]["foreign"] == ["globus"]
    assert "globus" in dm(capsys, "experiment", "groups", "check", "coffee", expect=EXIT_WANTING)
    dm(capsys, "experiment", "groups", "check", "coffee", "--repair")
    assert directory_server.read(f"cn=bk-coffee,{directory_server.groups_dn}")["memberUid"] == ["ada"]
    assert "nothing differs" in dm(capsys, "experiment", "groups", "check")
