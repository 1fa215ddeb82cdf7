"""The stream of events: in order, from a cursor, and only what one may see."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.requests import Request

from beamkeeper.client import Client
from beamkeeper.core.sessions import authenticate
from beamkeeper.domain.acquisition import JournalState, NewUpload, State
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewUser, Role
from beamkeeper.server.stream import Bell, Stream
from beamkeeper.testing.listening import Listener
from beamkeeper.testing.services import running
from beamkeeper.testing.station import experiment, station, until


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with station(tmp_path_factory.mktemp("station")) as made:
        yield made.start()


def listener(client: Client, token: str, after: str | None = None) -> Listener:
    return Listener(client.http(Service.CATALOG).url, token, after)


def deliver(client: Client, directory: Path, name: str) -> str:
    directory.mkdir()
    (directory / "a.tif").write_bytes(os.urandom(100))
    of = experiment(client, name)
    new = NewUpload.model_validate({"experiment_uid": of.uid, **path_fields(os.fsencode(directory)[1:])})
    ended = client.uploads.wait(client.uploads.start(new).uid, timeout_s=60)
    assert (ended.state, ended.count(JournalState.AVAILABLE)) == (State.DONE, 1)
    return str(of.uid)


def test_a_listener_hears_only_of_what_it_may_see_and_nothing_after_its_session(client: Client, tmp_path: Path) -> None:
    client.users.create(NewUser(username="maria", password="a long password", is_administrator=False))
    hers = experiment(client, "hers")
    client.experiments.add_user(hers.uid, "maria", Role.USER)
    with Client(client.url, username="maria", password="a long password", logins=client.logins) as maria:
        token = maria.sessions.login("maria", "a long password").token
        maria.files.summary(hers.uid)  # the catalogue has heard of her now
        everything = listener(client, str(client.credentials.token))
        something = listener(client, token)
        other = deliver(client, tmp_path / "one", "others")
        until(lambda: [e for e in everything.events if e["kind"] == "files.available"], "the administrator's event")
        assert {e["experiment_uid"] for e in everything.events if e["kind"] == "files.available"} == {other}
        assert not something.events
        maria.sessions.logout()
    assert something.is_over.wait(20)


def test_a_listener_that_comes_back_misses_nothing_and_hears_nothing_twice(client: Client, tmp_path: Path) -> None:
    token = str(client.credentials.token)
    first = listener(client, token)
    deliver(client, tmp_path / "one", "first")
    until(lambda: [e for e in first.events if e["kind"] == "files.available"], "the first event")
    at = first.ids[-1]
    second_uid = deliver(client, tmp_path / "two", "second")
    again = listener(client, token, after=at)
    until(lambda: [e for e in again.events if e["experiment_uid"] == second_uid], "the missed event")
    numbers = [int(i.rpartition(".")[2]) for i in again.ids]
    assert numbers == sorted(set(numbers))
    assert numbers[0] > int(at.rpartition(".")[2])


def test_a_long_poll_answers_as_soon_as_there_is_something(client: Client, tmp_path: Path) -> None:
    feed = client.events(Service.CATALOG)
    here = feed.after(None)
    found: list[Any] = []
    waiter = threading.Thread(target=lambda: found.append(feed.after(here.next, wait_s=30)))
    waiter.start()
    deliver(client, tmp_path / "one", "third")
    waiter.join(timeout=25)
    assert found
    assert found[0].items


def test_a_cursor_that_is_kept_no_more_is_answered_before_a_stream_begins(client: Client) -> None:
    headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {client.credentials.token}"}
    url = client.http(Service.CATALOG).url + "/api/v1/events"
    answer = httpx2.get(url, headers={**headers, "Last-Event-ID": "elsewhere.7"}, trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (410, "gone")


def test_who_is_logged_out_while_told_what_was_missed_is_told_no_more_of_it(tmp_path: Path) -> None:
    with running(directory=tmp_path) as site:
        context = site.contexts[Service.STORAGE]
        context.recheck_s = 0.0
        token = site.bootstrap.operator.token
        with context.database.read() as tx:
            begin, caller = tx.events.cursor(), authenticate(tx, token)
        for number in range(9):
            site.client.users.create(NewUser(username=f"u{number}"))

        async def told() -> list[str]:
            stream = Stream(context, Bell(context.database))
            lines = stream.lines(Request({"type": "http"}), caller, begin)
            found = [await anext(lines) for _ in range(4)]
            site.client.sessions.logout()
            found += [line async for line in lines]
            await stream.close()
            return [line for line in found if line.startswith("id: ")]

        assert len(asyncio.run(told())) == 3
