"""Making an experiment of a proposal and a form of the facility, in the browser."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, expect
from pydantic import SecretStr

from beamkeeper.domain.people import SyncKind, SyncState
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewGrant, NewUser, Role
from beamkeeper.engine.sync import Facility, SyncLoop
from beamkeeper.plugins import load
from beamkeeper.plugins.people import PROPOSALS
from beamkeeper.portal.app import Portal, app_of
from beamkeeper.testing.portal import CANARY, PASSWORD, PHONE, Look
from beamkeeper.testing.servers import free_port
from beamkeeper.testing.services import Running, running
from beamkeeper.testing.station import until

PEOPLE = [{"username": "petra", "is_pi": True}, {"username": "uwe"}]
PAPERS: list[dict[str, object]] = [
    {"kind": "gup", "number": "90210", "title": f"Rings {CANARY}", "starts_at": "2026-03-01", "ends_at": "2026-03-04"},
    {"kind": "esaf", "number": "271828", "title": "Safe rings", "people": [{"username": "fran"}]},
]


@dataclass(frozen=True)
class Office:
    """A site with a facility whose proposals it knows, and its portal."""

    services: Running
    url: str


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    (tmp_path / "papers.json").write_text(json.dumps([{**PAPERS[0], "people": PEOPLE}, PAPERS[1]]))
    source = load.build(PROPOSALS, "file", {"path": str(tmp_path / "papers.json")})
    port = free_port()
    with running(*Service, directory=tmp_path, settings={"portal": {"listen": f"127.0.0.1:{port}"}}) as services:
        loop = SyncLoop(services.database, Facility(source="file", proposals=source), report=lambda _: None)
        loop.start()
        try:
            assert services.client.syncs.run(SyncKind.PROPOSALS).state is SyncState.DONE
            with serving(services, port):
                yield Office(services, f"http://127.0.0.1:{port}")
        finally:
            loop.stop()
            loop.join()


@contextmanager
def serving(services: Running, port: int) -> Iterator[None]:
    """Serve the portal of a site in this process."""
    portal = Portal(services.settings, asyncio.Event())
    options = uvicorn.Config(app_of(portal), port=port, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(options)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started, "the portal")
        yield
    finally:
        server.should_exit = True
        thread.join()
        portal.clients.close()


def test_an_experiment_is_made_of_a_proposal_and_an_esaf_with_their_people(browser: Browser, office: Office) -> None:
    client, name = office.services.client, office.services.settings.station.name
    for username in ("petra", "uwe", "fran", "bob"):
        client.users.create(NewUser(username=username, password=SecretStr(PASSWORD)))
    station = client.stations.get(name)
    client.users.grant(NewGrant(username="bob", role=Role.STATION_MANAGER, station_uid=station.uid))
    seen = Look(browser, office, viewport=PHONE)
    seen.log_in("bob")
    page = seen.go("/experiments/new")
    page.get_by_label("Find a proposal").fill("9021")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="GUP 90210").press("Enter")
    expect(page.get_by_label("Title")).to_have_value(f"Rings {CANARY}")
    page.get_by_label("Find a proposal").fill("safe")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="ESAF 271828").press("Enter")
    expect(page.get_by_label("Last day")).to_have_value("2026-03-04")
    expect(page.get_by_label("Principal investigator")).to_have_value("petra")
    expect(page.get_by_text("petra (PI), uwe, fran")).to_be_visible()
    seen.check()
    page.get_by_label("Name", exact=True).fill("of-papers")
    page.keyboard.press("Enter")
    page.wait_for_url("**/experiments/*-*")
    made = client.experiments.get("of-papers")
    assert (made.title, made.proposal, made.esaf, made.pi) == (f"Rings {CANARY}", "90210", "271828", "petra")
    assert (str(made.starts_at)[:10], str(made.ends_at)[:10]) == ("2026-03-01", "2026-03-04")
    roles = {one.username: one.role for one in client.experiments.people(made.uid)}
    assert roles == {"petra": Role.PI, "uwe": Role.USER, "fran": Role.USER}
    seen.close()
