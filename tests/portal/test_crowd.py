"""Many who look at once: pages wait for services of the same process, and leave them the threads to answer with."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import httpx2

from beamkeeper.domain.status import PORTAL
from beamkeeper.domain.users import Role
from beamkeeper.testing.portal import PASSWORD, Site
from beamkeeper.testing.station import until

CROWD = 50
"""More than an event loop has threads."""


def logged_in(site: Site) -> str:
    """Return the cookie of one more browser."""
    with httpx2.Client(base_url=site.url, trust_env=False, timeout=60) as opened:
        given = {"username": "crowd", "password": PASSWORD}
        # Where others have failed to log in from here, everybody waits for a while.
        until(lambda: opened.post("/login", data=given).status_code == 303, "a login")
        return "; ".join(f"{name}={value}" for name, value in opened.cookies.items())


async def is_drawn(port: int, cookie: str) -> bool:
    """Open a live page, and wait until it is drawn."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /station/live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n\r\n".encode())
    try:
        while line := await reader.readline():
            if line.startswith(b"event: sight"):
                return True
    finally:
        writer.close()
    return False


def test_more_live_pages_than_there_are_threads_are_all_drawn(site: Site) -> None:
    site.person("crowd", role=Role.STATION_VIEWER)

    async def crowd() -> list[bool]:
        async with asyncio.timeout(30):
            return await asyncio.gather(*(is_drawn(site.station.port(PORTAL), cookie) for cookie in cookies))

    with ThreadPoolExecutor(4) as apart:  # a browser may have an event loop in this thread
        cookies = list(apart.map(logged_in, [site] * CROWD))
        assert apart.submit(asyncio.run, crowd()).result() == [True] * CROWD
