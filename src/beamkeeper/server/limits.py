"""What a request may weigh and how it has to come, and the headers that every answer carries."""

from __future__ import annotations

import asyncio
import time

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from beamkeeper.domain.errors import TooLargeError
from beamkeeper.server.errors import answer

BODY_LIMIT = 64 * 1024 * 1024
"""The largest request body in bytes: a full register call with metadata, or a chunk of a file that is put."""

NOBODYS_LIMIT = 256 * 1024
"""The largest body of a request that names no session: a login, or a login by a provider."""

SLOWEST_BYTES_S = 1000.0
"""A body that comes slower than this is given up."""

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)
POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox")
"""A file of somebody's that a browser is led to runs nothing, and is of no site."""

STRICT = (b"strict-transport-security", b"max-age=31536000")
"""Over TLS only: that this host is never to be called without it."""


class Headers:
    """Adds what every answer carries; plain ASGI, so that streams stay streams.

    Around everything else: Starlette's own answer to what nobody expected would pass by a middleware.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer with the headers."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [*HEADERS, POLICY, *((STRICT,) if scope.get("scheme") == "https" else ())]
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


class Limits:
    """Refuses bodies over the limit, whether announced or found, and those that do not come."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, minding its body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        limit = BODY_LIMIT if b"authorization" in headers else NOBODYS_LIMIT
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 18 or int(length) > limit:
            await answer(TooLargeError(_too_large(limit)))(scope, receive, send)
            return
        body = _Body(receive, limit, scope["app"].state.context.body_stall_s)
        try:
            await self.app(scope, body.receive, send)
        finally:
            for leave in scope.get("state", {}).pop("leave", ()):
                leave()


def _too_large(limit: int) -> str:
    return f"a request may have {limit} bytes at most: send it in parts"


class _Body:
    """The body of a request as it comes. What it raises is of the framework, which takes all else for its own fault."""

    def __init__(self, receive: Receive, limit: int, stall_s: float) -> None:
        self._receive, self._limit, self._stall_s = receive, limit, stall_s
        self._seen = 0
        self._begun_at = time.monotonic()
        self._is_whole = False

    async def receive(self) -> Message:
        """Return the next piece; once the body is whole, whatever comes, and for as long as it takes."""
        if self._is_whole:
            return await self._receive()
        left = self._begun_at + self._stall_s + self._seen / SLOWEST_BYTES_S - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), min(self._stall_s, max(left, 0.0)))
        except TimeoutError as error:
            text = f"the rest of this request did not come within {self._stall_s:g} s: send it again"
            raise HTTPException(408, text, {"Connection": "close"}) from error
        self._is_whole = not message.get("more_body", False)
        self._seen += len(message.get("body", b""))
        if self._seen > self._limit:
            raise HTTPException(413, _too_large(self._limit), {"Connection": "close"})
        return message
