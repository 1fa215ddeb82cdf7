"""What a request may weigh, and the headers that every answer carries."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from beamkeeper.domain.errors import TooLargeError
from beamkeeper.server.errors import answer

BODY_LIMIT = 64 * 1024 * 1024
"""The largest request body in bytes: a full register call with metadata, or a chunk of a file that is put."""

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)
STRICT = ((b"strict-transport-security", b"max-age=31536000"),)
"""Over TLS only: that this host is never to be called without it."""


class BodyTooLargeError(Exception):
    """A body that goes on beyond the limit, whatever its header said."""


class Limits:
    """Refuses bodies over the limit, whether announced or found; plain ASGI, so that streams stay streams."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, counting its body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        refusal = answer(TooLargeError(f"a request may have {BODY_LIMIT} bytes at most: send it in parts"))
        if not length.isdigit() or int(length) > BODY_LIMIT:
            await refusal(scope, receive, send)
            return
        seen = 0
        is_begun = False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > BODY_LIMIT:
                raise BodyTooLargeError
            return message

        async def with_headers(message: Message) -> None:
            nonlocal is_begun
            if message["type"] == "http.response.start":
                is_begun = True
                more = STRICT if scope.get("scheme") == "https" else ()
                message["headers"] = [*message.get("headers", ()), *HEADERS, *more]
            await send(message)

        try:
            await self.app(scope, counted, with_headers)
        except BodyTooLargeError:
            if not is_begun:
                await refusal(scope, receive, send)
