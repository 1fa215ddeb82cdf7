"""What every answer of the portal carries, and which requests are taken as meant by who is logged in."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from beamkeeper.domain.errors import NotPermittedError

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Nothing of anybody else's is loaded, and nothing runs that stands in a page itself. Pico's symbols are `data:`."""

HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
STRICT = (b"strict-transport-security", b"max-age=31536000")


class Headers:
    """Adds what every answer carries; plain ASGI, so that streams stay streams."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer with the headers."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                message["headers"] = [*headers, *HEADERS, *((STRICT,) if scope.get("scheme") == "https" else ())]
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


def refuse_foreign(headers: Mapping[str, str]) -> None:
    """Refuse a form that a page of another site sent (Fetch Metadata; Origin where a browser has none)."""
    came_from = headers.get("sec-fetch-site")
    if came_from is not None:
        is_own = came_from in ("same-origin", "none")
    else:
        origin = headers.get("origin")
        is_own = origin is None or origin.partition("://")[2] == headers.get("host")
    if not is_own:
        raise NotPermittedError("this form was sent by a page of another site: nothing was done")


def refuse_unasked(given: str, expected: str) -> None:
    """Refuse a form that was not drawn for this session."""
    if not secrets.compare_digest(given.encode(), expected.encode()):
        raise NotPermittedError("this form is of an earlier login: load the page again, and send it once more")


def own_path(path: str) -> str:
    """Return where to go on after a login: a path of ours, never another site's."""
    is_own = path.startswith("/") and not path.startswith("//") and "\\" not in path
    return path if is_own and path.isprintable() else "/"
