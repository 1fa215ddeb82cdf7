"""Whether a station's disk may be wiped, as the kiosk says it: found anew by the engine, by the rules of every plan."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import NewUpload, State
from beamkeeper.domain.errors import NotPermittedError
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.status import PORTAL
from beamkeeper.domain.users import NewUser
from beamkeeper.domain.wipes import NewHold, Reason, Verdict
from beamkeeper.testing.station import Station, experiment, station, until

SETTINGS = "[wipe]\nmin_age_hours = 0\nglance_s = 0.8\n"
NAME = "a-secret-name"


@pytest.fixture
def beamline(tmp_path: Path) -> Iterator[tuple[Station, Client]]:
    with station(tmp_path / NAME, settings=SETTINGS, with_portal=True) as made:
        yield made, made.start()


@pytest.fixture
def kiosk(beamline: tuple[Station, Client]) -> Iterator[httpx2.Client]:
    """The screen in the hutch."""
    made = beamline[0]
    with httpx2.Client(base_url=f"http://127.0.0.1:{made.port(PORTAL)}", trust_env=False, timeout=30) as screen:
        assert screen.post("/kiosk", data={"key": (made.data / "service.key").read_text()}).status_code == 303
        yield screen


def test_yes_is_said_only_while_all_that_was_taken_is_proven(
    beamline: tuple[Station, Client], kiosk: httpx2.Client
) -> None:
    made, client = beamline
    source = made.directory / "detector"
    (source / "scan").mkdir(parents=True)
    for name in ("a.tif", "scan/b.tif"):
        (source / name).write_bytes(name.encode())
    assert client.wipes.verdict().is_safe is None
    assert "it is being looked at, or nothing was taken yet" in kiosk.get("/kiosk/part").text
    fields = path_fields(os.fsencode(source)[1:])
    new = NewUpload.model_validate({"experiment_uid": experiment(client, NAME).uid, **fields})
    assert client.uploads.wait(client.uploads.start(new).uid, timeout_s=60).state is State.DONE

    def says(is_safe: bool, *reasons: str) -> Verdict:
        def look() -> Verdict | None:
            found = client.wipes.verdict()
            return found if (found.is_safe, found.reasons) == (is_safe, reasons) else None

        return until(look, f"{is_safe} for {reasons}: {client.wipes.verdict()}", 30)

    yes = says(True)
    assert yes.as_of is not None
    assert yes.proven_files == 2

    def shows(answer: str) -> str | None:
        shown = kiosk.get("/kiosk/part").text
        assert NAME not in shown
        return shown if f">{answer}<" in shown else None

    shown = until(lambda: shows("YES"), "YES on the screen", 30)
    assert re.search(r"safe to wipe, as of <time[^>]*>\d\d:\d\d<", shown), shown
    hold = client.holds.add(NewHold.model_validate({**fields, "why": NAME}))
    says(False, Reason.HELD)
    assert "somebody holds files" in until(lambda: shows("NO"), "NO on the screen", 30)
    client.holds.remove(hold.uid)
    says(True)
    (source / "scan" / "unseen.tif").write_bytes(b"nobody has seen it")
    says(False, Reason.NEVER_SEEN)
    (source / "scan" / "unseen.tif").unlink()
    says(True)
    (source / "a.tif").touch()  # a plan would read it; a glance does not
    says(False, Reason.CHANGED)
    source.rename(made.directory / "elsewhere")
    says(False)
    assert list(client.wipes.list()) == []
    client.users.create(NewUser.model_validate({"username": "nobody", "password": "a long password"}))
    with (
        Client(client.url, username="nobody", password="a long password", station="TEST", logins=made.logins) as them,
        pytest.raises(NotPermittedError),
    ):
        them.wipes.verdict()
