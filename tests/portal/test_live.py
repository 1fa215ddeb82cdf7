"""Live pages go on whatever goes wrong, and end with the login."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from beamkeeper import config
from beamkeeper.client import Client
from beamkeeper.client.logins import Logins
from beamkeeper.config import Settings
from beamkeeper.domain.errors import NotAuthenticatedError, UnavailableError
from beamkeeper.domain.mirror import Mirror
from beamkeeper.domain.status import Service, Status
from beamkeeper.domain.users import Caller, NewGrant, Role
from beamkeeper.portal.clients import Clients
from beamkeeper.portal.live import Lookout
from beamkeeper.testing.portal import PASSWORD, Site
from beamkeeper.testing.servers import free_port
from beamkeeper.testing.station import until


@pytest.fixture
def stays_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beamkeeper.portal.live.PAUSE_S", 0.1)


def rings(lookout: Lookout) -> None:
    """Watch until there is news, and go."""

    async def comes() -> None:
        rung = asyncio.Event()
        lookout.watch(rung)
        try:
            await asyncio.wait_for(rung.wait(), 20)
        finally:
            lookout.leave(rung)

    with ThreadPoolExecutor(1) as pool:  # a browser may have a loop of its own in this thread
        pool.submit(lambda: asyncio.run(comes())).result()


@pytest.mark.usefixtures("stays_looked_at")
@pytest.mark.parametrize("error", [UnavailableError("there is no service key"), ValueError("nobody expected this")])
def test_a_live_page_goes_on_after_any_error(site: Site, error: Exception) -> None:
    failed: set[str] = set()

    def client() -> Any:
        name = threading.current_thread().name
        if name not in failed:
            failed.add(name)
            raise error
        return nullcontext(site.client)

    lookout = Lookout(client)
    rings(lookout)
    assert "portal-look" in failed
    assert lookout.sight is not None


def test_a_service_that_is_down_is_told_and_hides_nothing_else(site: Site, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with closing(
        Client(
            site.client.url,
            username="viewer-of-health",
            password=PASSWORD,
            station="TEST",
            urls={Service.ACQUISITION: nobody},
            logins=Logins(tmp_path / "none.json"),
            tries=2,
        )
    ) as client:
        site.person("viewer-of-health", role=Role.STATION_VIEWER)
        lookout = Lookout(lambda: nullcontext(client))
        lookout.look_once()
    sight = lookout.sight
    assert sight is not None
    assert "does not answer" in str(sight.services[Service.ACQUISITION])
    assert isinstance(sight.services[Service.STORAGE], Status)


def test_several_draw_different_sights_at_once(site: Site) -> None:
    lookout = Lookout(lambda: site.client)
    begin = datetime.now(UTC)

    def draw(number: int) -> None:
        for turn in range(300):
            at, shown = begin + timedelta(seconds=(turn + number) % 3), turn % 5
            text = f"{at} {shown}"
            assert lookout.draw_once(at, shown, lambda text=text: text) == text  # type: ignore[misc]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(draw, range(8)))
    calls: list[int] = []
    for _ in range(2):
        lookout.draw_once(begin - timedelta(seconds=9), 0, lambda: calls.append(1) or "drawn")  # type: ignore[func-returns-value]
    assert calls == [1]


class Counted(Clients):
    """Counts how often it is asked who somebody is."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.asked = 0

    def caller(self, token: str) -> Caller:
        before = self._callers.get(token)
        found = super().caller(token)
        self.asked += self._callers.get(token) is not before
        return found


def test_roles_are_asked_for_when_people_change_and_not_all_the_time(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beamkeeper.portal.clients.ROLES_S", 0.0)
    site.person("rosa", role=Role.STATION_VIEWER)
    station_uid = site.client.stations.get("TEST").uid
    here = {"data_dir": str(site.station.data)}
    clients = Counted(config.load(site.station.settings, overrides=here).settings)
    with closing(clients), Client(site.client.url, logins=Logins(tmp_path / "none.json"), station="TEST") as own:
        own.sessions.login("rosa", PASSWORD)
        token = str(own.credentials.token)
        clients.caller(token)
        clients.caller(token)
        assert clients.asked == 2  # nobody follows yet
        changes: list[Mirror] = []

        def changed(mirror: Mirror) -> None:
            clients.follow(mirror)
            changes.append(mirror)

        with watching(Lookout(clients.of_service, changed)):
            until(lambda: changes, "the first word of people")
            for _ in range(3):
                assert [grant.role for grant in clients.caller(token).grants] == [Role.STATION_VIEWER]
            assert clients.asked == 3
            site.client.users.revoke(NewGrant(username="rosa", role=Role.STATION_VIEWER, station_uid=station_uid))
            until(lambda: any(mirror.grants for mirror in changes), "the word of the role that is gone")
            assert clients.caller(token).grants == ()
            own.sessions.logout()
            until(lambda: any(mirror.sessions for mirror in changes), "the word of the session that is gone")
            with pytest.raises(NotAuthenticatedError):
                clients.caller(token)


@contextmanager
def watching(lookout: Lookout) -> Iterator[None]:
    """Watch meanwhile."""
    begun, ends = threading.Event(), threading.Event()

    async def watch() -> None:
        rung = asyncio.Event()
        lookout.watch(rung)
        begun.set()
        await asyncio.to_thread(ends.wait)
        lookout.leave(rung)

    with ThreadPoolExecutor(1) as pool:
        watched = pool.submit(lambda: asyncio.run(watch()))
        begun.wait(20)
        try:
            yield
        finally:
            ends.set()
            watched.result()


def test_a_live_page_ends_with_the_login_also_of_a_shells_session(site: Site, tmp_path: Path) -> None:
    site.person("shelly", role=Role.STATION_VIEWER)
    logins = Logins(tmp_path / "none.json")
    with (
        Client(site.client.url, username="shelly", password=PASSWORD, station="TEST", logins=logins) as shell,
        httpx2.Client(base_url=site.url, trust_env=False, timeout=40) as raw,
    ):
        shell.sessions.login("shelly", PASSWORD)
        assert raw.post(shell.portal_way(shell.site().portal)).status_code == 303
        told = _until_it_ends(raw, lambda: _log_out(raw))
        assert shell.sessions.whoami().user is not None
    assert "You were logged out" in told


def _log_out(raw: httpx2.Client) -> None:
    found = re.search(r'name="form_token" value="([^"]+)"', raw.get("/experiments").text)
    assert found is not None
    assert raw.post("/logout", data={"form_token": found[1]}).status_code == 303


def _until_it_ends(raw: httpx2.Client, once_begun: Callable[[], None]) -> str:
    lines: list[str] = []
    deadline = time.monotonic() + 30
    with raw.stream("GET", "/station/live") as answer:
        for line in answer.iter_lines():
            if not lines:
                once_begun()
            lines.append(line)
            assert time.monotonic() < deadline, "it is still told what the station does"
    return "\n".join(lines)
