"""A way in for who is logged in at a shell: an address that opens the portal in a browser, and works once."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.responses import JSONResponse, Response

from beamkeeper.domain.errors import NotAuthenticatedError, NotPermittedError
from beamkeeper.domain.status import PORTAL
from beamkeeper.domain.users import Session
from beamkeeper.portal.login import begin
from beamkeeper.portal.routes import PageRoute
from beamkeeper.portal.visits import Visit


@dataclass(frozen=True, slots=True)
class _Ticket:
    """A way in that was asked for and not gone yet."""

    session: Session
    token: str


def ask(visit: Visit) -> Response:
    """Make a way in, for a program that shows its token."""
    kind, _, token = visit.request.headers.get("authorization", "").partition(" ")
    if kind != "Bearer" or not token:
        raise NotAuthenticatedError("show the token of a session")
    who = visit.portal.clients.of(token, address=visit.address).sessions.whoami()
    if who.user is None or who.session is None:
        raise NotPermittedError("pages are for people: this is the key of a service")
    name = visit.portal.tickets.keep(_Ticket(who.session, token), who.user.username)
    return JSONResponse({"address": f"{visit.portal.settings.url(PORTAL)}/enter/{name}"})


def _needed(ticket: _Ticket | None) -> _Ticket:
    if ticket is None:
        raise NotPermittedError("this address was used already, or is too old: `dm portal` gives another")
    return ticket


def show(visit: Visit) -> Response:
    """Ask whether one wants to go on as somebody: an address that somebody sent must not log anybody in by itself."""
    ticket = _needed(visit.portal.tickets.see(visit.request.path_params["ticket"]))
    return visit.page("login/enter.html", username=ticket.session.username)


def enter(visit: Visit) -> Response:
    """Go in; the address leads nowhere from then on."""
    ticket = _needed(visit.portal.tickets.take(visit.request.path_params["ticket"]))
    return begin(visit, ticket.session, ticket.token, "/", is_borrowed=True)


ROUTES = (
    PageRoute("/enter", ask, "POST", is_public=True),
    PageRoute("/enter/{ticket}", show, is_public=True),
    PageRoute("/enter/{ticket}", enter, "POST", is_public=True),
)
