"""F69, questions to outside: whatever is answered, nothing and no token goes to a host that nobody named."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from beamkeeper.builtin.oidc_http import Wire
from beamkeeper.client.http import Credentials, Http
from beamkeeper.domain.errors import DmError, SettingsError, UnavailableError
from beamkeeper.plugins import load
from beamkeeper.plugins.people import DIRECTORIES, PROPOSALS


class Server:
    """Answers every request alike, and keeps what it was asked."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[str] = []


@contextmanager
def serving(status: int = 200, body: str = "[]", headers: Mapping[str, str] | None = None) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            content = body.replace("OWN", str(made.port)).encode()
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Server(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def canary() -> Iterator[Server]:
    with ExitStack() as stack:
        made = stack.enter_context(serving())
        yield made
        assert made.asked == []


def options(tmp_path: Path, url: str, **more: Any) -> dict[str, Any]:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("hush")
    return {"url": url, "token_file": str(token), **more}


def all_ask(tmp_path: Path, url: str) -> None:
    """Ask a server by everything of ours that asks by HTTP."""
    asks = (
        lambda: list(load.build(DIRECTORIES, "rest", options(tmp_path, url)).people()),
        lambda: list(load.build(PROPOSALS, "rest", options(tmp_path, url)).proposals()),
        lambda: Wire(timeout_s=5, ca_file=None).get(url, token="hush"),
        lambda: Wire(timeout_s=5, ca_file=None).post(url, {"code": "hush"}),
        lambda: Http(url, Credentials("hush"), tries=1).get("/api/v1/site", dict),
    )
    for ask in asks:
        with pytest.raises(DmError):
            ask()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_nobody_goes_where_an_answer_leads(tmp_path: Path, canary: Server, status: int) -> None:
    with serving(status, headers={"Location": f"http://127.0.0.1:{canary.port}/secret"}) as server:
        all_ask(tmp_path, f"http://127.0.0.1:{server.port}/")
        assert server.asked


@pytest.mark.parametrize(
    "following",
    [
        "http://127.0.0.1:{port}/",
        "//127.0.0.1:{port}/",
        "http://127.0.0.1:OWN@127.0.0.1:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://localhost:{port}/",
        "\\\\\\\\127.0.0.1:{port}",
        "file:///etc/passwd",
    ],
)
def test_a_list_goes_on_at_the_host_that_was_named_and_nowhere_else(
    tmp_path: Path, canary: Server, following: str
) -> None:
    body = f'{{"items": [], "next": "{following.format(port=canary.port)}"}}'
    with serving(body=body) as server:
        asked = options(tmp_path, f"http://127.0.0.1:{server.port}/", items="items", next="next")
        with pytest.raises(UnavailableError):
            list(load.build(DIRECTORIES, "rest", asked).people())


def test_a_list_that_leads_back_to_itself_is_left_at_once(tmp_path: Path) -> None:
    with serving(body='{"items": [], "next": "?page=2"}') as server:
        asked = options(tmp_path, f"http://127.0.0.1:{server.port}/", items="items", next="next")
        with pytest.raises(UnavailableError, match="back to itself"):
            list(load.build(DIRECTORIES, "rest", asked).people())
        assert len(server.asked) == 2


def test_no_token_is_told_where_others_can_read_it(tmp_path: Path) -> None:
    for group in (DIRECTORIES, PROPOSALS):
        with pytest.raises(SettingsError, match="https"):
            load.build(group, "rest", options(tmp_path, "http://facility.example.org/"))
        load.build(group, "rest", options(tmp_path, "https://facility.example.org/"))
        load.build(group, "rest", {"url": "http://facility.example.org/"})
