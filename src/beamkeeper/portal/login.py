"""Logging in and out: by a password as everywhere, or by an identity provider."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from pydantic import SecretStr
from starlette.responses import RedirectResponse, Response

from beamkeeper.domain.errors import DmError, InvalidError, NotAuthenticatedError, TooManyAttemptsError
from beamkeeper.domain.identities import IdentityAnswer, LoginKind, NewIdentityLogin
from beamkeeper.domain.login_limits import network
from beamkeeper.domain.status import PORTAL
from beamkeeper.domain.users import Session
from beamkeeper.portal.once import WAITS_S
from beamkeeper.portal.routes import PageRoute
from beamkeeper.portal.security import own_path
from beamkeeper.portal.visits import Visit, address


@dataclass(frozen=True, slots=True)
class _Pending:
    """A login that is at the identity provider."""

    provider: str
    secret: str
    next: str


_THEMES = ("light", "dark")


def show(visit: Visit) -> Response:
    """Draw the form."""
    wanted = own_path(visit.query.get("next", "/"))
    if visit.kept is not None:
        try:
            visit.portal.clients.caller(visit.token)
            return visit.go(wanted)
        except NotAuthenticatedError:
            _forget(visit)
    return _form(visit, wanted)


def _form(visit: Visit, wanted: str, message: str = "", status: int = 200) -> Response:
    with visit.stranger() as client:
        providers = client.identities.providers()
    return visit.page("login/form.html", status, providers=providers, next=wanted, message=message)


def enter(visit: Visit) -> Response:
    """Log in by name and password."""
    wanted = own_path(visit.form.get("next", "/"))
    try:
        with visit.stranger() as client:
            new = client.sessions.login(
                visit.form.get("username", ""),
                visit.form.raw("password"),
                experiment=visit.form.get("experiment"),
            )
            visit.portal.clients.begin(new.token, client.credentials.mirror)
    except NotAuthenticatedError as error:
        return _form(visit, wanted, error.message, 401)
    except TooManyAttemptsError as error:
        return _form(visit, wanted, error.message, 429)
    except InvalidError as error:
        return _form(visit, wanted, error.message, 422)
    return begin(visit, new.session, new.token, wanted)


def begin(visit: Visit, session: Session, token: str, wanted: str, *, is_borrowed: bool = False) -> Response:
    """Return the way to the wanted page, with a new session; one that the browser had before ends."""
    _end(visit)
    answer = RedirectResponse(wanted, 303)
    name = visit.portal.sessions.begin(session, token, is_borrowed=is_borrowed)
    _set_cookie(visit, answer, visit.portal.cookie, name)
    return answer


def _set_cookie(visit: Visit, answer: Response, name: str, value: str, max_age: int | None = None) -> None:
    # Lax, not strict: addresses are mailed, and whoever follows one is to be who they are.
    answer.set_cookie(
        name, value, max_age=max_age, path="/", secure=visit.portal.is_secure, httponly=True, samesite="lax"
    )


def leave(visit: Visit) -> Response:
    """Log out, here and at the API."""
    _end(visit)
    answer = visit.go("/login")
    answer.delete_cookie(visit.portal.cookie, secure=visit.portal.is_secure, httponly=True)
    return answer


def _end(visit: Visit) -> None:
    if visit.kept is None:
        return
    if not visit.kept.is_borrowed:
        with suppress(DmError):  # it has ended already, or ends by itself: here it is forgotten all the same
            visit.portal.clients.of(visit.kept.token, address=visit.address).sessions.logout()
    _forget(visit)


def _forget(visit: Visit) -> None:
    if visit.kept is not None:
        visit.portal.clients.forget(visit.kept.token)
        visit.portal.sessions.end(visit.request.cookies.get(visit.portal.cookie, ""))
        visit.kept = None


def begin_elsewhere(visit: Visit) -> Response:
    """Send the browser to an identity provider."""
    provider = visit.request.path_params["provider"]
    back = f"{visit.portal.settings.url(PORTAL)}/callback"
    source = network(visit.address)
    visit.portal.pending.check_room(source)  # the storage service would count it as of the portal, or not at all
    with visit.stranger() as client:
        begun = client.identities.begin_login(provider, NewIdentityLogin(kind=LoginKind.CODE, redirect_uri=back))
    wanted = own_path(visit.query.get("next", "/"))
    name = visit.portal.pending.keep(_Pending(provider, begun.secret, wanted), source)
    answer = RedirectResponse(begun.url, 303)
    _set_cookie(visit, answer, f"{visit.portal.cookie}-login", name, WAITS_S)
    return answer


def come_back(visit: Visit) -> Response:
    """End a login that went to an identity provider, in the browser where it began."""
    name = visit.request.cookies.get(f"{visit.portal.cookie}-login", "")
    pending: _Pending | None = visit.portal.pending.take(name)
    if pending is None:
        return _form(visit, "/", "This login was not begun in this browser, or took too long: begin it again.", 401)
    if "error" in visit.query:
        why = visit.query.get("error_description") or visit.query["error"]
        return _form(visit, pending.next, f"The identity provider did not log you in: {why[:200]}.", 401)
    answer = IdentityAnswer(
        secret=SecretStr(pending.secret),
        code=SecretStr(visit.query.get("code", "")),
        state=SecretStr(visit.query.get("state", "")),
        iss=visit.query.get("iss"),
    )
    try:
        with visit.stranger() as client:
            outcome = client.identities.end_login(pending.provider, answer)
            if outcome.session is not None:
                visit.portal.clients.begin(outcome.session.token, client.credentials.mirror)
    except DmError as error:
        return _form(visit, pending.next, error.message, 401)
    if outcome.session is None:
        return _form(visit, pending.next, "The login has not ended yet: begin it again.", 401)
    return begin(visit, outcome.session.session, outcome.session.token, pending.next)


def choose_theme(visit: Visit) -> Response:
    """Remember whether pages are light or dark; anything else leaves that to the browser."""
    answer = visit.go(own_path(visit.form.get("next", "/")))
    theme = visit.form.get("theme", "")
    if theme in _THEMES:
        _set_cookie(visit, answer, "beamkeeper-theme", theme, 10_000_000)
    else:
        answer.delete_cookie("beamkeeper-theme")
    return answer


def home(visit: Visit) -> Response:
    """Go to where everything begins."""
    return visit.go(address("/experiments", {}))


ROUTES = (
    PageRoute("/login", show, is_public=True),
    PageRoute("/login", enter, "POST", is_public=True),
    PageRoute("/logout", leave, "POST", is_public=True),
    PageRoute("/login/with/{provider}", begin_elsewhere, is_public=True),
    PageRoute("/callback", come_back, is_public=True),
    PageRoute("/theme", choose_theme, "POST", is_public=True),
    PageRoute("/", home),
)
