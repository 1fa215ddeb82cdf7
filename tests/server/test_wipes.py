"""Wipes, holds, scrubs, audits and the ledger's view over HTTP: the real client on real services, on both databases."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest

from beamkeeper.client import Client
from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.db.base import new_uid
from beamkeeper.db.inspections import NewFinding
from beamkeeper.db.wipe_entries import NewEntry
from beamkeeper.domain.errors import ConflictError, InvalidError, NotFoundError, NotPermittedError
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.inspections import (
    FindingKind,
    InspectionKind,
    InspectionState,
    NewAudit,
    NewScrub,
)
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewUser, Role
from beamkeeper.domain.wipes import EntryState, NewHold, NewWipe, Wipe, WipeState
from beamkeeper.testing.servers import PostgresServer, drop_database, fresh_database
from beamkeeper.testing.services import Running, running

NUMBERS = count()
OWNER = new_uid()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    server: PostgresServer | None = None
    url = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        url = fresh_database(server)
    with running(Service.ACQUISITION, directory=tmp_path_factory.mktemp("site"), url=url) as beamline:
        with database(beamline).write() as tx:
            tx.workers.add(OWNER, host="h", boot_id="b", pid=1, start_ticks=1)
        yield beamline
    if server is not None and url is not None:
        drop_database(server, url)


def database(site: Running) -> Database[AcquisitionTransaction]:
    return site.contexts[Service.ACQUISITION].database


@pytest.fixture
def client(site: Running) -> Client:
    return site.client


@pytest.fixture
def coffee(site: Running) -> Experiment:
    new = NewExperiment(name=f"e{next(NUMBERS)}", station=site.settings.station.name)
    return site.client.experiments.create(new)


def at(directory: Path, **more: object) -> dict[str, Any]:
    return {"path_b64": path_fields(os.fsencode(directory)[1:])["path_b64"], **more}


def plan(site: Running, directory: Path, entries: int = 0) -> Wipe:
    """Return a plan as the engine leaves it, which says yes."""
    wipe = site.client.wipes.plan(NewWipe.model_validate(at(directory)))
    with database(site).write() as tx:
        assert tx.wipes.claim(wipe.agent, OWNER) is not None
        tx.wipes.step(wipe.uid, OWNER, WipeState.PLANNING)
        key = tx.wipes.key(wipe.uid, OWNER)
        tx.wipe_entries.write(key, [NewEntry(b"a/%04d" % i, None, None) for i in range(entries)])
        tx.wipes.step(wipe.uid, OWNER, WipeState.PLANNED, is_safe=True, proven_files=entries)
    return site.client.wipes.get(wipe.uid, wait_s=5)


def test_a_plan_is_made_shown_and_carried_out_once(site: Running, client: Client, tmp_path: Path) -> None:
    found = plan(site, tmp_path, entries=3)
    assert (found.state, found.is_safe, found.proven_files) == (WipeState.PLANNED, True, 3)
    assert b"/" + found.relpath == os.fsencode(tmp_path)
    with pytest.raises(ConflictError):
        client.wipes.run(found.model_copy(update={"proven_files": 4}))
    asked = client.wipes.run(found, remove_directories=True)
    assert (asked.state, asked.remove_directories) == (WipeState.ASKED, True)
    assert client.wipes.run(found) == asked
    with database(site).write() as tx:
        assert tx.wipes.claim(found.agent, OWNER) is not None
        tx.wipes.step(found.uid, OWNER, WipeState.RUNNING)
        tx.wipes.step(found.uid, OWNER, WipeState.DONE)
    seen: list[Wipe] = []
    assert client.wipes.wait(found.uid, on_change=seen.append).state is WipeState.DONE
    assert [wipe.state for wipe in seen] == [WipeState.DONE]


def test_entries_come_by_pages(site: Running, client: Client, tmp_path: Path) -> None:
    found = plan(site, tmp_path, entries=1203)
    assert [entry.path for entry in client.wipes.entries(found.uid)] == [f"a/{i:04}" for i in range(1203)]
    assert list(client.wipes.entries(found.uid, EntryState.NOT_PROVEN)) == []
    assert next(iter(client.wipes.list())).uid == found.uid
    with pytest.raises(NotFoundError):
        client.wipes.get(new_uid())


def test_holds_are_added_listed_and_removed(client: Client, tmp_path: Path) -> None:
    hold = client.holds.add(NewHold.model_validate(at(tmp_path, why="mine")))
    assert hold in client.holds.list()
    client.holds.remove(hold.uid)
    assert hold not in client.holds.list()
    with pytest.raises(NotFoundError):
        client.holds.remove(hold.uid)


def test_a_scrub_and_an_audit_are_followed_to_their_end(site: Running, client: Client, coffee: Experiment) -> None:
    scrub = client.scrubs.start(NewScrub(experiment_uid=coffee.uid, older_than_s=60))
    audit = client.audits.start(NewAudit(experiment_uid=coffee.uid))
    assert (scrub.experiment, scrub.older_than_s, audit.experiment) == (coffee.name, 60, coffee.name)
    assert [one.uid for one in client.scrubs.list(active=True)][:1] == [scrub.uid]
    assert client.scrubs.stop(scrub.uid).stop_requested_at is not None
    found = [NewFinding(FindingKind.DARK, coffee.uid, b"data/%04d" % i, "why") for i in range(1001)]
    with database(site).write() as tx:
        while (work := tx.inspections.claim(InspectionKind.AUDIT, OWNER)) is not None:
            tx.inspections.progress(work.uid, OWNER, {"dark": 1001}, None, found)
            tx.inspections.end(work.uid, OWNER, InspectionState.DONE, "done")
        while (work := tx.inspections.claim(InspectionKind.SCRUB, OWNER)) is not None:
            tx.inspections.end(work.uid, OWNER, InspectionState.STOPPED)
    ended = client.audits.wait(audit.uid)
    assert (ended.state, ended.dark, ended.message) == (InspectionState.DONE, 1001, "done")
    assert len(list(client.audits.findings(audit.uid))) == 1001
    assert client.scrubs.wait(scrub.uid).state is InspectionState.STOPPED
    with pytest.raises(NotFoundError):
        client.scrubs.get(audit.uid)


def test_members_may_neither_wipe_nor_inspect(
    site: Running, client: Client, coffee: Experiment, tmp_path: Path
) -> None:
    username = f"u{next(NUMBERS)}"
    client.users.create(NewUser.model_validate({"username": username, "password": "correct horse"}))
    client.experiments.add_user(coffee.uid, username, Role.PI)
    pi = site.as_(username=username, password="correct horse")
    for ask in (
        lambda: pi.wipes.plan(NewWipe.model_validate(at(tmp_path))),
        lambda: list(pi.wipes.list()),
        lambda: pi.scrubs.start(NewScrub()),
        lambda: list(pi.scrubs.list()),
        lambda: pi.audits.start(NewAudit(experiment_uid=coffee.uid)),
    ):
        with pytest.raises(NotPermittedError):
            ask()
    assert pi.holds.list() == []
    assert list(pi.arrivals.directories(coffee.uid)) == []


def test_the_storage_is_never_the_source(site: Running, client: Client) -> None:
    with pytest.raises(InvalidError, match="only directories at the source"):
        client.wipes.plan(NewWipe.model_validate(at(site.area)))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("wipes", {}),
        ("wipes", {"path": "/etc"}),
        ("wipes", {"path": "a/../b"}),
        ("wipes", {"path": "a", "min_age_hours": -1}),
        ("wipes", {"path": "a", "min_age_hours": 1e9}),
        ("wipes", {"path": "a", "force": True}),
        (f"wipes/{new_uid()}:run", {}),
        ("holds", {"path": "\0"}),
        ("scrubs", {"rate_bytes_s": 0}),
        ("scrubs", {"older_than_s": -1}),
        ("audits", {}),
    ],
)
def test_what_makes_no_sense_is_refused(site: Running, path: str, body: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {site.bootstrap.operator.token}"}
    url = f"{site.urls[Service.ACQUISITION]}/api/v1/{path}"
    answer = httpx2.post(url, json=body, headers=headers, trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), answer.text
    assert httpx2.post(url, json=body, trust_env=False).status_code == 401
