"""`dm experiment permissions`: what it says of the rights of files, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from beamkeeper.cli.app import EXIT_WANTING, run
from beamkeeper.client.logins import DEFAULT, Logins, Profile
from beamkeeper.domain.experiments import NewExperiment
from beamkeeper.engine.permission_lanes import PermissionLanes
from beamkeeper.testing.services import running


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Path]:
    """The directory of an experiment, at a site where the administrator is logged in."""
    with running(directory=tmp_path) as services:
        first = services.bootstrap.operator
        token = SecretStr(first.token)
        Logins().put(DEFAULT, Profile(url=services.client.url, username=first.session.username, token=token))
        loop = PermissionLanes(services.database, report=lambda _: None)
        loop.start()
        made = services.client.experiments.create(NewExperiment(name="coffee", station=services.settings.station.name))
        yield services.area / made.directory
        loop.stop()
        loop.join()


def dm(capsys: pytest.CaptureFixture[str], *words: str, expect: int = 0) -> str:
    """Run `dm` and return what it printed."""
    status = run(words)
    out, err = capsys.readouterr()
    assert status == expect, f"{out}{err}"
    return out + err


def test_what_differs_is_listed_and_put_right(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("plain", "with\nnewline\x1b[31m")
    for name in names:
        (top / "data" / name).write_bytes(b"x")
        (top / "data" / name).chmod(0o444)
    shown = dm(capsys, "experiment", "permissions", "check", "coffee", expect=EXIT_WANTING)
    assert "everybody may read it" in shown
    assert r"data/with\x0anewline\x1b[31m" in shown
    asked = json.loads(dm(capsys, "experiment", "permissions", "check", "coffee", "--no-wait", "--json"))
    assert dm(capsys, "experiment", "permissions", "stop", asked["uid"])
    shown = json.loads(dm(capsys, "experiment", "permissions", "show", asked["uid"], "--json"))
    assert (shown["uid"], shown["mode"]) == (asked["uid"], "check")
    repaired = json.loads(dm(capsys, "experiment", "permissions", "repair", "coffee", "--json"))
    assert repaired["repaired"] == 2
    dm(capsys, "experiment", "permissions", "check", "coffee")
    assert (top / "data/plain").stat().st_mode & 0o777 == 0o440
