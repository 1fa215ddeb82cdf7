"""Whatever is open when a right ends is over within seconds: long polls, streams of events and downloads."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator

import httpx2
import pytest

from beamkeeper.db.base import new_uid
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import UserChange
from beamkeeper.testing.services import running
from beamkeeper.testing.world import API, World, settings

PATIENCE_S = 5.0
"""What the design promises."""
LONG_S = 30


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The site with everybody and everything in it."""
    directory = tmp_path_factory.mktemp("endings")
    with running(*Service, directory=directory, settings=settings(directory)) as services:
        made = World(services)
        yield made
        made.close()


class Open:
    """A request that goes on in a thread of its own."""

    def __init__(self, world: World, service: Service, path: str, token: str) -> None:
        self.statuses: list[int] = []
        self.lines: list[str] = []
        self.is_begun = threading.Event()
        self._world, self._service, self._path, self._token = world, service, path, token
        self._ended = math.inf
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        url = self._world.running.urls[self._service] + API + self._path
        headers = {"Authorization": f"Bearer {self._token}"}
        if "wait=" not in self._path:
            headers["Accept"] = "text/event-stream"
        else:
            self.is_begun.set()
        with httpx2.stream("GET", url, headers=headers, timeout=60) as answer:
            for line in answer.iter_lines():
                self.is_begun.set()
                self.lines.append(line)
            self.statuses.append(answer.status_code)
        self._ended = time.monotonic()

    def ended_at(self) -> float:
        """Return when it ended."""
        self._thread.join(LONG_S)
        return self._ended


def test_what_is_open_ends_with_the_session_or_the_account_on_every_service(world: World) -> None:
    tokens = {name: world._account(name, "administrator", frozenset()) for name in ("leaves", "disabled")}
    sync = world.make(Service.STORAGE, "/syncs", {"uid": str(new_uid()), "kind": "users"})["uid"]
    for service in Service:  # the framework makes a route at its first request, and warns where several threads do so
        world.send(service, "GET", f"{API}/events", token=tokens["leaves"])
    streams = [Open(world, service, "/events", token) for service in Service for token in tokens.values()]
    polls = [Open(world, service, f"/events?wait={LONG_S}", token) for service in Service for token in tokens.values()]
    syncs = [Open(world, Service.STORAGE, f"/syncs/{sync}?wait={LONG_S}", token) for token in tokens.values()]
    assert all(each.is_begun.wait(20) for each in (*streams, *polls, *syncs))
    world.send(Service.STORAGE, "DELETE", f"{API}/sessions/current", token=tokens["leaves"])
    world.running.client.users.change("disabled", UserChange(is_enabled=False))
    ended = time.monotonic()
    assert max(each.ended_at() for each in (*streams, *polls, *syncs)) - ended < PATIENCE_S
    assert {tuple(each.statuses) for each in streams} == {(200,)}
    assert {tuple(each.statuses) for each in syncs} == {(401,)}
    assert {tuple(each.statuses) for each in polls} <= {(401,), (200,)}  # that another session ended is news to some
