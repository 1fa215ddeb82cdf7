"""An issuer on loopback that signs whatever a test wants: for tokens that must be refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Forger:
    """What the issuer answers: documents by path, and for every code the token that `token` makes."""

    issuer: str
    documents: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    token: Callable[[], str] = field(default=lambda: "")
    asked: list[str] = field(default_factory=list)

    def options(self, **others: object) -> dict[str, object]:
        """Return the options of the plugin for this issuer, as settings have them."""
        return {
            "issuer": self.issuer,
            "client_id": "beamkeeper",
            "redirect_uris": [f"{self.issuer}/back"],
            "timeout_s": 2,
            **others,
        }


@contextmanager
def forger() -> Iterator[Forger]:
    """Run the issuer while the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            self._answer(made.documents.get(self.path))

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer({"access_token": "any", "token_type": "Bearer", "id_token": made.token()})

        def _answer(self, found: Mapping[str, Any] | None) -> None:
            body = json.dumps(found or {}).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Forger(f"http://127.0.0.1:{server.server_address[1]}")
    made.documents["/.well-known/openid-configuration"] = {
        "issuer": made.issuer,
        "authorization_endpoint": f"{made.issuer}/authorize",
        "token_endpoint": f"{made.issuer}/token",
        "jwks_uri": f"{made.issuer}/keys",
    }
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
