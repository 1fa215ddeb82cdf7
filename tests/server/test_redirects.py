"""A web server before the services that leads elsewhere, such as from http to https: nothing was done there."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from beamkeeper.client.http import Credentials, Http, trust
from beamkeeper.domain.errors import InternalError


class Elsewhere(BaseHTTPRequestHandler):
    """Leads every request elsewhere."""

    def do_DELETE(self) -> None:
        self.send_response(308)
        self.send_header("Location", "https://elsewhere.example/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_DELETE()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def http() -> Iterator[Http]:
    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = Http(f"http://127.0.0.1:{server.server_port}", Credentials())
        yield client
        client.close()
        server.shutdown()


def test_what_was_led_elsewhere_has_not_been_done(http: Http) -> None:
    with pytest.raises(InternalError, match="308"):
        http.call("DELETE", "/api/v1/links/x")
    with pytest.raises(InternalError, match="308"):
        http.content("/x")
    with pytest.raises(InternalError, match="308"), http.stream("/x"):
        pass


def test_who_calls_a_plain_address_reads_no_certificates_and_believes_none() -> None:
    plain = trust("http://127.0.0.1:1", None)
    assert isinstance(plain, ssl.SSLContext)
    assert plain.cert_store_stats()["x509_ca"] == 0
    assert plain.verify_mode is ssl.CERT_REQUIRED
    assert trust("https://127.0.0.1:1", None) is not plain
