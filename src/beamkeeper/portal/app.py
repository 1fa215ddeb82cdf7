"""Builds the portal: its pages, how they are drawn, and what becomes of errors."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import mimetypes
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

from anyio import CapacityLimiter, to_thread
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

import beamkeeper
from beamkeeper.config import Settings
from beamkeeper.domain.errors import DmError, InvalidError, NotAuthenticatedError
from beamkeeper.domain.status import PORTAL
from beamkeeper.portal import (
    acquisition,
    administration,
    chosen,
    downloads,
    entering,
    experiments,
    facets,
    files,
    grove,
    jobs,
    kiosk,
    login,
    overview,
    people,
    preview,
    sheets,
    showing,
    workflows,
)
from beamkeeper.portal.clients import Clients
from beamkeeper.portal.live import Lookout
from beamkeeper.portal.once import Waiting
from beamkeeper.portal.routes import PageRoute
from beamkeeper.portal.security import Headers, refuse_foreign, refuse_unasked
from beamkeeper.portal.sessions import Sessions
from beamkeeper.portal.visits import Form, Visit, address, sentence

logger = logging.getLogger(__name__)

HERE = Path(__file__).parent
LARGEST_FORM = 1_000_000
STATUS = {
    "not_authenticated": 401,
    "too_many_attempts": 429,
    "not_permitted": 403,
    "not_found": 404,
    "conflict": 409,
    "already_exists": 409,
    "overlap": 409,
    "gone": 410,
    "too_large": 413,
    "invalid": 422,
    "unsafe_value": 422,
    "source": 422,
    "unavailable": 503,
    "collision": 503,
    "mirror_behind": 503,
    "destination": 507,
}
"""By the code of an error; 500 for all others."""

ROOMS: tuple[tuple[PageRoute, ...], ...] = (
    login.ROUTES,
    entering.ROUTES,
    overview.ROUTES,
    experiments.ROUTES,
    acquisition.ROUTES,
    facets.ROUTES,
    files.ROUTES,
    preview.ROUTES,
    grove.ROUTES,
    sheets.ROUTES,
    downloads.ROUTES,
    chosen.ROUTES,
    workflows.ROUTES,
    jobs.ROUTES,
    administration.ROUTES,
    people.ROUTES,
    kiosk.ROUTES,
)


NAMES = (
    ("/station", "Station"),
    ("/experiments", "Experiments"),
    ("/files", "Files"),
    ("/workflows", "Workflows"),
    ("/jobs", "Jobs"),
    ("/administration", "Administration"),
)
"""What the top of each page leads to."""


THREADS = 20
"""So many pages are drawn at once."""


class Portal:
    """What all pages share."""

    def __init__(self, settings: Settings, is_closed: asyncio.Event) -> None:
        self.settings = settings
        self.is_closed = is_closed
        self.clients = Clients(settings)
        self.lookout = Lookout(self.clients.of_service, self.clients.follow)
        self.verdicts = kiosk.Verdicts()
        self.sessions = Sessions(settings.data_dir / "portal-sessions.json", idle_s=settings.portal.idle_hours * 3600)
        url = urlsplit(settings.url(PORTAL))
        self.is_secure = url.scheme == "https"
        # Browsers share cookies among the ports of a host: two portals of one machine must not take each other's.
        self.cookie = f"{'__Host-' if self.is_secure else ''}beamkeeper-{url.port or 443}"
        self.pending: Waiting[Any] = Waiting()
        """Logins that are at an identity provider, by the id that their browser holds."""
        self.rooms = NAMES
        self.names: dict[UUID, str] = {}
        """Of experiments, for lists of files of several."""
        self.tickets: Waiting[Any] = Waiting()
        """Ways in that shells asked for."""
        self.threads = CapacityLimiter(THREADS)
        """Of its own: pages wait for services, which may be in this process and need threads as well to answer."""
        self._pages = _environment()

    def render(self, template: str, visit: Visit, **values: Any) -> str:
        """Return the text of a page."""
        token = Markup('<input type="hidden" name="form_token" value="{}">').format(visit.form_token)
        shared = {"visit": visit, "portal": self, "token": lambda: token}
        return self._pages.get_template(template).render(**shared, **values)

    def zone(self, station: str = "") -> str:
        """Return the time zone of a station, this deployment's own by default."""
        wanted = station or self.settings.station.name
        if wanted == self.settings.station.name:
            return self.settings.station.timezone
        return next((one.timezone for one in self.clients.stations() if one.name == wanted), "UTC")


def build_app(settings: Settings, is_closed: asyncio.Event) -> ASGIApp:
    """Return the application of the portal."""
    return app_of(Portal(settings, is_closed))


def app_of(portal: Portal) -> ASGIApp:
    """Return the application of a portal."""
    routes: list[Route | Mount] = [
        Mount("/static", _Static(directory=HERE / "static")),
        *(Route(one.path, _endpoint(portal, one), methods=[one.method]) for one in _all()),
    ]

    async def lost(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        message = "There is no such page." if status in (404, 405) else "Something went wrong: the log has the reason."
        visit = Visit(portal, request, portal.sessions.find(request.cookies.get(portal.cookie, "")))
        draw = partial(visit.page, "error.html", status, message=message)
        return await to_thread.run_sync(draw, limiter=portal.threads)

    handlers = {HTTPException: lost, Exception: lost}
    # Around all of it: Starlette's own answer to what nobody expected would pass by a middleware.
    return Headers(Starlette(routes=routes, exception_handlers=handlers))


def _all() -> Iterable[PageRoute]:
    for room in ROOMS:
        yield from room


def _endpoint(portal: Portal, route: PageRoute) -> Any:
    """Return what answers requests: reads the form, and lets a thread draw the page."""

    async def endpoint(request: Request) -> Response:
        form = await _form(request)
        return await to_thread.run_sync(_answer, portal, request, route, form, limiter=portal.threads)

    return endpoint


async def _form(request: Request) -> Form:
    if request.method != "POST":
        return Form()
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_FORM:
            raise HTTPException(413)
    return Form(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def _answer(portal: Portal, request: Request, route: PageRoute, form: Form) -> Response:
    visit = Visit(portal, request, portal.sessions.find(request.cookies.get(portal.cookie, "")), form)
    try:
        if request.method == "POST":
            refuse_foreign(request.headers)
            if visit.kept is not None:
                given = form.raw("form_token") or request.headers.get("x-form-token", "")
                refuse_unasked(given, visit.form_token)
        if not route.is_public:
            visit.token  # noqa: B018 - raises where nobody is logged in
        return route.page(visit)
    except NotAuthenticatedError:
        return _to_login(visit)
    except ValidationError as error:
        return _refusal(visit, InvalidError(sentence(error)))
    except DmError as error:
        return _refusal(visit, error)


def _to_login(visit: Visit) -> Response:
    """Return the way to the login, from which one comes back to the page that was wanted."""
    if visit.kept is not None:
        visit.portal.clients.forget(visit.kept.token)
    is_page = visit.request.method == "GET" and "hx-request" not in visit.request.headers
    wanted = str(visit.request.url.replace(scheme="", netloc="")) if is_page else ""
    to = address("/login", {"next": wanted})
    if "hx-request" in visit.request.headers:
        return Response(status_code=204, headers={"HX-Redirect": to})
    answer = RedirectResponse(to, 303)
    answer.delete_cookie(visit.portal.cookie, secure=visit.portal.is_secure, httponly=True)
    return answer


def _refusal(visit: Visit, error: DmError) -> Response:
    """Return an error as a sentence: on a page, or in the place that was to be drawn anew."""
    status = STATUS.get(error.code, 500)
    if status == 500:
        logger.error("page failed", extra={"path": visit.path, "code": error.code, "reason": error.message})
    if visit.path.endswith((".json", ".csv")):
        return Response(error.message + "\n", status, media_type="text/plain")
    template = "alert.html" if "hx-request" in visit.request.headers else "error.html"
    return visit.page(template, status, message=error.message)


class _Static(StaticFiles):
    """Files that change with the version only: addresses carry what they were made of."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file that may be kept for ever where its address says which one is meant."""
        packed = f"{path}.gz" if b"gzip" in dict(scope["headers"]).get(b"accept-encoding", b"") else ""
        is_packed = bool(packed) and self.lookup_path(packed)[1] is not None
        answer = await super().get_response(packed if is_packed else path, scope)
        if is_packed:
            answer.headers["content-encoding"] = "gzip"
            answer.headers["content-type"] = f"{mimetypes.guess_type(path)[0]}; charset=utf-8"
        answer.headers["vary"] = "accept-encoding"
        is_named = b"v=" in scope.get("query_string", b"")
        answer.headers["cache-control"] = "public, max-age=31536000, immutable" if is_named else "no-cache"
        return answer


def _environment() -> Environment:
    pages = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    pages.filters.update(
        size=showing.size,
        count=showing.count,
        when=showing.when,
        clock=showing.clock,
        duration=showing.duration,
        tone=showing.tone,
    )
    pages.globals.update(static=_static_addresses(), version=beamkeeper.__version__)
    return pages


def _static_addresses() -> dict[str, str]:
    """Return the address of every file that pages load, with a digest of what it holds."""
    found = {}
    for path in sorted((HERE / "static").rglob("*")):
        if path.suffix in (".css", ".js", ".svg"):
            name = str(path.relative_to(HERE / "static"))
            found[name] = f"/static/{name}?v={hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    return found
