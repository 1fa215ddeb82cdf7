"""Live pages go on whatever goes wrong, and end with the login."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from beamkeeper.client import Client
from beamkeeper.client.logins import Logins
from beamkeeper.domain.errors import UnavailableError
from beamkeeper.domain.status import Service, Status
from beamkeeper.domain.users import Role
from beamkeeper.portal.live import Lookout
from beamkeeper.testing.portal import PASSWORD, Site
from beamkeeper.testing.servers import free_port


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
        lookout = Lookout(lambda: nullcontext(client))  # type: ignore[arg-type, return-value]
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
