"""Logging in, accounts and roles over HTTP, and the mirror of identities for the services of stations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request

from beamkeeper.core import identities as core_identities
from beamkeeper.core import job_sessions
from beamkeeper.core import sessions as core_sessions
from beamkeeper.core import users as core
from beamkeeper.db import StorageTransaction
from beamkeeper.db.news import Topic
from beamkeeper.domain.mirror import Mirror
from beamkeeper.domain.names import Username
from beamkeeper.domain.people import AuthenticatorFinding
from beamkeeper.domain.users import (
    Caller,
    EndedJobs,
    Grant,
    JobSessions,
    Login,
    NewGrant,
    NewJobSessions,
    NewSession,
    NewUser,
    PasswordChange,
    Session,
    User,
    UserChange,
    UserPage,
    Whoami,
)
from beamkeeper.server.auditing import acting_as
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import Ctx, StorageTx, Who, source
from beamkeeper.server.identity import IdentityTx, changing
from beamkeeper.server.waiting import wait_for

router = APIRouter(route_class=StrictRoute, tags=["users"])
mirror_router = APIRouter(route_class=StrictRoute, tags=["mirror"])

MIRROR_WAIT_S = 60.0


@router.post("/sessions", status_code=201, summary="Log in")
def login(ctx: Ctx, request: Request, wanted: Login) -> NewSession:
    """Begin a session; its token is shown this once."""
    with ctx.database.write() as counting:
        attempt = core_sessions.begin_login(counting, wanted, source=source(request))
    acting_as(request, attempt.user)
    renewed = core_sessions.check_password(attempt, ctx.passwords, ctx.authenticators)
    with changing(request) as tx:
        hours = ctx.settings.storage.session_hours
        return core_sessions.login(tx, attempt, hours=hours, renewed_hash=renewed)


@router.get("/sessions", summary="Sessions that hold")
def sessions(tx: StorageTx, who: Who, username: str | None = None) -> Sequence[Session]:
    """One's own, or for an administrator anybody's."""
    return core_sessions.sessions(tx, who, username)


@router.delete("/sessions/current", status_code=204, summary="Log out")
def logout(tx: IdentityTx, who: Who) -> None:
    """End this session."""
    core_sessions.logout(tx, who)


@router.delete("/sessions/{uid}", status_code=204, summary="End a session")
def revoke_session(uid: UUID, tx: IdentityTx, who: Who) -> None:
    """One's own, or for an administrator anybody's."""
    core_sessions.revoke(tx, who, uid)


@router.post("/job-sessions", status_code=201, summary="Begin sessions for jobs")
def begin_job_sessions(new: NewJobSessions, request: Request, who: Who) -> JobSessions:
    """For the services of a station: each in the name of its job's owner, for its experiment only."""
    with changing(request) as tx:
        return job_sessions.begin(tx, who, new.jobs, ended=new.ended)


@router.post("/job-sessions:end", status_code=204, summary="End the sessions of jobs")
def end_job_sessions(ended: EndedJobs, tx: IdentityTx, who: Who) -> None:
    """For the services of a station; a job without a session stays as it is."""
    job_sessions.end(tx, who, ended.job_uids)


@router.get("/authenticators", summary="Try who checks passwords and vouches for people")
def authenticators(ctx: Ctx, who: Who, username: Username | None = None) -> Sequence[AuthenticatorFinding]:
    """For administrators: each step of each connection, in words; no password is asked for."""
    found = core_sessions.try_authenticators(who, ctx.authenticators, username)
    return [*found, *core_identities.try_providers(who, ctx.identity_providers)]


@router.get("/whoami", summary="Who is calling")
def whoami(tx: StorageTx, who: Who) -> Whoami:
    """The account, the session and the roles held."""
    return core_sessions.whoami(tx, who)


@router.get("/users", summary="Accounts by name")
def users(
    *,
    tx: StorageTx,
    who: Who,
    text: Annotated[str | None, Query(max_length=200, description="Part of a username, name or e-mail.")] = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> UserPage:
    """For administrators."""
    return core.page(tx, who, text=text, after=after, limit=limit)


@router.post("/users", status_code=201, summary="Make an account")
def create(ctx: Ctx, request: Request, who: Who, new: NewUser) -> User:
    """For administrators."""
    password_hash = core.hash_new(who, new, ctx.passwords)
    with changing(request) as tx:
        return core.create(tx, who, new, password_hash=password_hash)


@router.get("/users/{username}", summary="An account")
def user(username: str, tx: StorageTx, who: Who) -> User:
    """One's own, or for an administrator anybody's."""
    return core.show(tx, who, username)


@router.patch("/users/{username}", summary="Change an account")
def change(username: str, change: UserChange, tx: IdentityTx, who: Who) -> User:
    """Disabling it ends its sessions at once."""
    return core.change(tx, who, username, change)


@router.put("/users/{username}/password", status_code=204, summary="Set a password")
def set_password(username: str, change: PasswordChange, ctx: Ctx, request: Request, who: Who) -> None:
    """One's own needs the present one; other sessions of the account end at once."""
    with ctx.database.read() as read:
        account = core.account(read, who, username)
    password_hash = core.hash_changed(who, account, change, passwords=ctx.passwords)
    with changing(request) as tx:
        core.set_password(tx, who, account, password_hash=password_hash)


@router.get("/users/{username}/grants", summary="Roles of an account")
def grants(username: str, tx: StorageTx, who: Who) -> Sequence[Grant]:
    """Of the site, of stations and of experiments."""
    return core.grants(tx, who, username)


@router.post("/grants", status_code=201, summary="Give a role of the site or of a station")
def grant(new: NewGrant, tx: IdentityTx, who: Who) -> Grant:
    """Roles in an experiment are given through its people."""
    return core.grant(tx, who, new)


@router.delete("/grants", status_code=204, summary="Take such a role away")
def revoke(old: Annotated[NewGrant, Query()], tx: IdentityTx, who: Who) -> None:
    """The site keeps one administrator at least."""
    core.revoke(tx, who, old)


@mirror_router.get("/mirror", summary="What changed of the identities")
async def mirror(
    *,
    request: Request,
    who: Who,
    after: Annotated[
        int, Query(ge=0, le=2**53, description="The number that the mirror has reached; 0 for everything.")
    ] = 0,
    epoch: Annotated[str | None, Query(description="Of that number: another one gets everything.")] = None,
    wait: Annotated[float, Query(ge=0, le=MIRROR_WAIT_S, description="Seconds to wait for a change.")] = 0.0,
) -> Mirror:
    """For the services of stations."""

    def look(tx: StorageTransaction, who: Caller) -> Mirror:
        return core.mirror_after(tx, who, number=after, epoch=epoch)

    return await wait_for(request, look, lambda found: found.is_news, wait_s=wait, about=Topic.EVENTS)
