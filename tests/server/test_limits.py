"""What every answer carries, and that nobody who sends too much, too slowly or too often hinders anybody else."""

from __future__ import annotations

import asyncio
import http.client
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Semaphore

import httpx2
import pytest
import uvicorn
from pydantic import SecretStr
from starlette.types import Receive, Scope, Send

from beamkeeper.core.authenticators import Authenticators
from beamkeeper.core.tokens import new_token
from beamkeeper.domain.people import Finding
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewUser, UserChange
from beamkeeper.server import limits
from beamkeeper.server.crowd import Crowd
from beamkeeper.server.direct import Protocol
from beamkeeper.testing.listening import Listener
from beamkeeper.testing.services import Running, running
from beamkeeper.testing.station import until

PASSWORD = "correct horse battery"
ALWAYS = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(directory=tmp_path_factory.mktemp("limits")) as made:
        yield made


@pytest.fixture
def bob(site: Running) -> str:
    """The session of somebody who is never there before."""
    name = f"bob{new_token()[-8:].lower().replace('_', 'x').replace('-', 'x')}"
    site.client.users.create(NewUser(username=name, password=SecretStr(PASSWORD)))
    return site.as_().sessions.login(name, PASSWORD).token


def ask(site: Running, method: str, path: str, token: str | None = None, body: bytes | None = None) -> httpx2.Response:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    url = site.urls[Service.STORAGE] + path
    return httpx2.request(method, url, headers=headers, content=body, trust_env=False, timeout=30)


def test_every_kind_of_answer_carries_the_headers(site: Running, bob: str) -> None:
    site.contexts[Service.STORAGE].authenticators = Authenticators({"broken": Broken()})
    kinds = {
        200: ask(site, "GET", "/api/v1/whoami", bob),
        401: ask(site, "GET", "/api/v1/whoami"),
        404: ask(site, "GET", "/nowhere"),
        405: ask(site, "PUT", "/health"),
        413: ask(site, "POST", "/api/v1/sessions", body=b"x" * (limits.NOBODYS_LIMIT + 1)),
        422: ask(site, "POST", "/api/v1/sessions", body=b"{"),
        500: ask(site, "POST", "/api/v1/sessions", body=b'{"username": "eve", "password": "x"}'),
    }
    for status, found in kinds.items():
        assert (found.status_code, {k: found.headers.get(k) for k in ALWAYS}) == (status, ALWAYS)


def test_the_page_of_the_interface_has_every_route_and_loads_nothing(site: Running) -> None:
    found = ask(site, "GET", "/api/v1/docs")
    assert {k: found.headers.get(k) for k in ALWAYS} == ALWAYS
    for path in ask(site, "GET", "/api/v1/openapi.json").json()["paths"]:
        assert f" {path}</code>" in found.text
    assert not re.search(r"<(script|link|img|style)|src=|https?://", found.text.partition("<h2>")[0])
    assert not re.search(r"<(script|link|img|style)", found.text)


class Broken:
    """Meets what nobody expected."""

    def is_right(self, username: str | None, password: SecretStr) -> bool:
        raise ZeroDivisionError

    def findings(self, username: str | None) -> Iterator[Finding]:
        raise ZeroDivisionError


def test_an_address_is_written_in_one_way_and_leads_nowhere_else(site: Running, bob: str) -> None:
    for path in ("/api/v1/whoami/", "/api/v1//whoami", "/API/v1/whoami", "/api/v1/./whoami", "/api/v1/whoami;a=b"):
        found = exactly(site, path, bob)
        assert (found.status, found.getheader("location")) == (404, None), path


def exactly(site: Running, path: str, token: str | None = None, method: str = "GET") -> http.client.HTTPResponse:
    """Ask for a path as it is written, which other clients put right."""
    host, port = site.urls[Service.STORAGE].removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def test_who_names_no_session_sends_little(site: Running, bob: str) -> None:
    large = b'{"username": "' + b"x" * limits.NOBODYS_LIMIT + b'"}'
    assert ask(site, "POST", "/api/v1/sessions", body=large).status_code == 413
    assert ask(site, "POST", "/api/v1/keys", bob, body=large).status_code == 422

    def chunks() -> Iterator[bytes]:
        for _ in range(limits.NOBODYS_LIMIT // 10_000 + 1):
            yield b" " * 10_000

    url = site.urls[Service.STORAGE] + "/api/v1/sessions"
    assert httpx2.post(url, content=chunks(), trust_env=False).status_code == 413


def connected(site: Running) -> socket.socket:
    host, port = site.urls[Service.STORAGE].removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def test_a_body_that_does_not_come_is_waited_for_so_long(site: Running) -> None:
    site.contexts[Service.STORAGE].body_stall_s = 0.2
    head = b"POST /api/v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
    try:
        with closing(connected(site)) as slow:
            slow.sendall(head)
            assert slow.recv(100).startswith(b"HTTP/1.1 408 ")
    finally:
        site.contexts[Service.STORAGE].body_stall_s = 30.0


class Hasty(Protocol):
    """Waits for no head."""

    head_s = 0.2


def test_a_head_that_does_not_come_is_waited_for_so_long() -> None:
    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.5)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with closing(socket.create_server(("127.0.0.1", 0))) as listening, ExitStack() as stack:
        server = uvicorn.Server(uvicorn.Config(answering, http=Hasty, log_config=None, lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        silent, begun, whole = (
            stack.enter_context(closing(socket.create_connection(listening.getsockname(), timeout=30)))
            for _ in range(3)
        )
        begun.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        whole.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert silent.recv(100) == begun.recv(100) == b""
        assert b" 204 " in whole.recv(100), "an answer takes as long as it takes"
        server.should_exit = True
        thread.join(30)


def test_one_account_that_opens_too_much_is_refused_and_others_are_not(site: Running, bob: str) -> None:
    context, url = site.contexts[Service.STORAGE], site.urls[Service.STORAGE]
    context.crowd = Crowd(most=3)
    open_ones = [Listener(url, bob) for _ in range(3)]
    refused = ask(site, "GET", "/api/v1/whoami", bob)
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert refused.headers["retry-after"] == "1"
    assert site.client.sessions.whoami().user is not None
    assert site.as_service().sessions.whoami().is_service
    site.client.users.change(refused.json()["message"].split('"')[1], UserChange(is_enabled=False))
    assert all(one.is_over.wait(20) for one in open_ones)
    until(lambda: len(context.crowd) == 0, "each gives its place back")


def is_taken(room: Semaphore) -> bool:
    if room.acquire(blocking=False):
        room.release()
        return False
    return True


def test_nobody_holds_up_a_service_by_what_it_has_not_heard_of(tmp_path: Path) -> None:
    with running(Service.CATALOG, directory=tmp_path) as site, ThreadPoolExecutor() as pool:
        context, url = site.contexts[Service.CATALOG], site.urls[Service.CATALOG] + "/api/v1/status"
        context.waiting_room, context.mirror_patience_s = Semaphore(1), 60.0
        with site.database.read() as tx:
            here = tx.events.cursor()

        def asked(number: int) -> int:
            headers = {"Authorization": "Bearer none", "Beamkeeper-Mirror": f"{here.epoch}.{number}"}
            return httpx2.get(url, headers=headers, trust_env=False, timeout=90).status_code

        first = pool.submit(asked, here.number + 1)
        until(lambda: is_taken(context.waiting_room), "that it waits")
        assert [asked(here.number + n) for n in (2, 3)] == [503, 503]
        assert asked(here.number) == 401
        site.client.users.create(NewUser(username="news"))
        assert first.result() == 401
