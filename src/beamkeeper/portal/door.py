"""The door of the portal: answers that it is there, and loads what is behind it when somebody first comes.

Nobody looks at most beamlines most of the time. So that the portal costs them next to nothing, all that is large
(templates, routes, forms) is imported with the first request.
"""

from __future__ import annotations

import asyncio
import gc
import json

from starlette.types import ASGIApp, Receive, Scope, Send

import beamkeeper
from beamkeeper.config import Settings
from beamkeeper.domain.status import PORTAL


class Door:
    """The ASGI application of the portal."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opening = asyncio.Lock()
        self._portal: ASGIApp | None = None
        self.is_closed = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        if scope["path"] == "/health":
            await _answer_health(send)
            return
        async with self._opening:
            if self._portal is None:
                self._portal = await asyncio.to_thread(self._open)
        await self._portal(scope, receive, send)

    def close(self) -> None:
        """Send everybody home who watches a live page."""
        self.is_closed.set()

    def _open(self) -> ASGIApp:
        from beamkeeper.portal.app import build_app

        built = build_app(self._settings, self.is_closed)
        gc.freeze()  # it lives as long as the process: to look through it again held pages up for a third of a second
        return built


async def _answer_health(send: Send) -> None:
    told = {"service": PORTAL, "status": "ok", "version": beamkeeper.__version__, "api": 1, "features": []}
    headers = [(b"content-type", b"application/json"), (b"x-content-type-options", b"nosniff")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})
