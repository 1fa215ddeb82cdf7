"""Logging in by identity providers over HTTP, and which account somebody there is."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from fastapi import APIRouter, Request

from beamkeeper.core import identities as core
from beamkeeper.domain.identities import (
    Identity,
    IdentityAnswer,
    IdentityLogin,
    LinkOutcome,
    LoginOutcome,
    NewIdentity,
    NewIdentityLogin,
    OpenLogin,
    Proven,
    ProviderInfo,
    Waiting,
)
from beamkeeper.server.auditing import acting_as
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import Context, Ctx, StorageTx, Who, source
from beamkeeper.server.identity import IdentityTx, changing

router = APIRouter(route_class=StrictRoute, tags=["identities"])


@router.get("/identity-providers", summary="Who vouches for people")
def providers(ctx: Ctx) -> Sequence[ProviderInfo]:
    """For everybody: one chooses before one logs in."""
    return ctx.identity_providers.infos()


@router.post("/identity-providers/{name}/logins", status_code=201, summary="Begin a login by a provider")
def begin_login(name: str, new: NewIdentityLogin, ctx: Ctx, request: Request) -> IdentityLogin:
    """Of a device, or of a browser that comes back with a code; its secret is shown this once."""
    return _begin(ctx, request, name, new, user_uid=None)


@router.post("/identity-providers/{name}/sessions", summary="End a login by a provider")
def end_login(name: str, answer: IdentityAnswer, ctx: Ctx, request: Request) -> LoginOutcome:
    """A session, whose token is shown this once; or none yet, where the person is not done."""
    login, proven = _proven(ctx, name, answer, user_uid=None)
    if proven is None:
        return LoginOutcome(interval_s=login.interval_s)
    provider, hours = ctx.identity_providers.get(name), ctx.settings.storage.session_hours
    with changing(request) as tx:
        acting_as(request, core.known(tx, proven))  # for the audit log, where the login is refused
        session = core.login(tx, login, provider, proven, hours=hours)
        acting_as(request, core.known(tx, proven))
    return LoginOutcome(session=session)


@router.post("/identity-providers/{name}/links", status_code=201, summary="Begin to link one's own account")
def begin_link(name: str, new: NewIdentityLogin, ctx: Ctx, request: Request, who: Who) -> IdentityLogin:
    """Begins as a login does, and ends in no session."""
    return _begin(ctx, request, name, new, user_uid=core.check_linking(who))


@router.post("/identity-providers/{name}/identities", summary="End linking one's own account")
def end_link(name: str, answer: IdentityAnswer, ctx: Ctx, request: Request, who: Who) -> LinkOutcome:
    """From then on one logs in by this provider, too; or nothing yet, where one is not done there."""
    login, proven = _proven(ctx, name, answer, user_uid=core.check_linking(who))
    if proven is None:
        return LinkOutcome(interval_s=login.interval_s)
    with changing(request) as tx:
        return LinkOutcome(identity=core.link_own(tx, who, login, proven))


@router.get("/users/{username}/identities", summary="Who an account is at providers")
def identities(username: str, tx: StorageTx, who: Who) -> Sequence[Identity]:
    """One's own, or for an administrator anybody's."""
    return core.identities(tx, who, username)


@router.post("/users/{username}/identities", status_code=201, summary="Link an account")
def link(username: str, new: NewIdentity, ctx: Ctx, tx: IdentityTx, who: Who) -> Identity:
    """For administrators: on their word alone."""
    return core.link(tx, who, username, new, ctx.identity_providers)


@router.delete("/users/{username}/identities/{identity}", status_code=204, summary="Unlink an account")
def unlink(username: str, identity: UUID, tx: IdentityTx, who: Who) -> None:
    """One's own, or for an administrator anybody's; sessions go on until they are ended."""
    core.unlink(tx, who, username, identity)


def _begin(ctx: Context, request: Request, name: str, new: NewIdentityLogin, *, user_uid: UUID | None) -> IdentityLogin:
    with ctx.database.read() as read:
        core.check_room(read, source(request))
    begun = ctx.identity_providers.begin(name, new)
    with ctx.database.write() as tx:
        return core.begin(tx, name, new, begun, source=source(request), user_uid=user_uid)


def _proven(
    ctx: Context, name: str, answer: IdentityAnswer, *, user_uid: UUID | None
) -> tuple[OpenLogin, Proven | None]:
    """Return a login with who proved to be whom: no transaction is open while the provider is asked."""
    with ctx.database.write() as tx:
        login, is_asked = core.take(tx, name, answer, user_uid=user_uid)
    if not is_asked:
        return login, None
    proven = ctx.identity_providers.finish(login, answer)
    if not isinstance(proven, Waiting):
        return login, proven
    if proven.is_asked_too_often:
        with ctx.database.write() as tx:
            login = core.slow_down(tx, login)
    return login, None
