"""Logging in by an identity provider, and which account somebody there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from pydantic import ValidationError

from beamkeeper.core.identity_providers import IdentityProviders
from beamkeeper.core.sessions import begin_session, too_many
from beamkeeper.core.tokens import new_token, token_sha256
from beamkeeper.db import StorageTransaction
from beamkeeper.domain.errors import ConflictError, InvalidError, NotAuthenticatedError, NotFoundError
from beamkeeper.domain.identities import (
    Begun,
    CreatedAs,
    Identity,
    IdentityAnswer,
    IdentityLogin,
    NewIdentity,
    NewIdentityLogin,
    OpenLogin,
    Proven,
)
from beamkeeper.domain.people import AuthenticatorFinding
from beamkeeper.domain.users import (
    SITE,
    Action,
    Caller,
    Grant,
    NewSession,
    NewUser,
    Role,
    Target,
    User,
    may,
    require,
)
from beamkeeper.plugins.people import IdentityProvider

MOST_OPEN = 500
"""So many logins may be open from one source, which may be a portal."""

SLOWER_S = 5.0
"""What a provider that is asked too often is spared from then on (RFC 8628)."""


def check_room(tx: StorageTransaction, source: str) -> None:
    """Refuse who began too many logins and ended none."""
    if tx.identity_logins.count(source) >= MOST_OPEN:
        raise too_many(timedelta(minutes=1))


def check_linking(caller: Caller) -> UUID:
    """Return whose account is linked: one's own, and by nothing less than a login of one's own."""
    target = Target(user_uid=caller.user_uid)
    require(caller, Action.USER_CHANGE_OWN, target, f'the account "{caller.username}"')
    if caller.user_uid is None or caller.bound_experiment_uid is not None:
        raise InvalidError("an account that several people share, and a service, are linked to nobody")
    return caller.user_uid


def begin(
    tx: StorageTransaction, name: str, wanted: NewIdentityLogin, begun: Begun, *, source: str, user_uid: UUID | None
) -> IdentityLogin:
    """Keep a login that a provider has begun; with a user it ends in a link and no session."""
    secret = new_token()
    expires_at = tx.identity_logins.add(
        token_sha256(secret),
        provider=name,
        kind=wanted.kind,
        secrets=begun.secrets,
        user_uid=user_uid,
        source=source,
        lifetime=timedelta(seconds=begun.lifetime_s),
        interval_s=begun.interval_s,
    )
    return IdentityLogin(
        kind=wanted.kind,
        url=begun.url,
        user_code=begun.user_code,
        secret=secret,
        interval_s=begun.interval_s,
        expires_at=expires_at,
    )


def take(tx: StorageTransaction, name: str, answer: IdentityAnswer, *, user_uid: UUID | None) -> tuple[OpenLogin, bool]:
    """Return a login whose end is asked for, and whether its provider may be asked now.

    One with a code is taken: whatever comes of it, it is never asked for again. One of a device is asked for until
    the person is done, and no more often than its provider likes.
    """
    found = tx.identity_logins.find(token_sha256(answer.secret.get_secret_value()))
    if found is None or found.provider != name or found.user_uid != user_uid:
        raise NotAuthenticatedError("there is no such login, or it has ended: begin another one")
    if not found.kind.is_asked_again:
        tx.identity_logins.remove(found.id)
        return found, True
    if found.next_at > tx.now:
        return found, False
    tx.identity_logins.put_off(found.id, interval_s=found.interval_s)
    return found, True


def slow_down(tx: StorageTransaction, login: OpenLogin) -> OpenLogin:
    """Ask a provider less often that says so."""
    slower = replace(login, interval_s=login.interval_s + SLOWER_S)
    tx.identity_logins.put_off(login.id, interval_s=slower.interval_s)
    return slower


def known(tx: StorageTransaction, proven: Proven) -> User | None:
    """Return the account that somebody is, or None."""
    found = tx.identities.find(proven.issuer, proven.subject)
    return None if found is None else tx.users.get(found.user_uid)


def login(
    tx: StorageTransaction, open_login: OpenLogin, provider: IdentityProvider, proven: Proven, *, hours: float
) -> NewSession:
    """Begin a session for somebody whom a provider vouches for."""
    tx.events.claim()
    _end(tx, open_login)
    tx.users.forget_sessions()
    user = known(tx, proven) or _created(tx, provider, proven)
    if not user.is_enabled or user.is_shared:
        raise NotAuthenticatedError(f'the account "{user.username}" is disabled: ask an administrator')
    return begin_session(tx, user, expires_at=tx.now + timedelta(hours=hours))


def link_own(tx: StorageTransaction, caller: Caller, open_login: OpenLogin, proven: Proven) -> Identity:
    """Let somebody whom a provider vouches for be the caller's account from now on."""
    user_uid = check_linking(caller)
    tx.events.claim()
    _end(tx, open_login)
    return tx.identities.add(user_uid, issuer=proven.issuer, subject=proven.subject, linked_by=caller.username)


def link(
    tx: StorageTransaction, caller: Caller, username: str, new: NewIdentity, providers: IdentityProviders
) -> Identity:
    """Let somebody at a provider be an account, on an administrator's word."""
    tx.events.claim()
    user = _account(tx, caller, username)
    require(caller, Action.SITE_ADMINISTER, SITE, f'the account "{username}"')
    if user.is_shared:
        raise InvalidError(f'"{username}" is an account that several people share: it is linked to nobody')
    issuer = providers.get(new.provider).issuer
    return tx.identities.add(user.uid, issuer=issuer, subject=new.subject, linked_by=caller.username)


def identities(tx: StorageTransaction, caller: Caller, username: str) -> Sequence[Identity]:
    """Return who an account is at providers: one's own, or anybody's for an administrator."""
    return tx.identities.of_user(_account(tx, caller, username, action=Action.USER_READ).uid)


def unlink(tx: StorageTransaction, caller: Caller, username: str, uid: UUID) -> None:
    """Let somebody at a provider be an account no more; sessions go on until they are ended."""
    user = _account(tx, caller, username)
    if tx.identities.get(uid).user_uid != user.uid:
        raise NotFoundError(f"there is no identity {uid}", uid=str(uid))
    tx.identities.remove(uid)


def try_providers(caller: Caller, providers: IdentityProviders) -> Sequence[AuthenticatorFinding]:
    """Try each provider; slow, so called with no transaction open."""
    require(caller, Action.SITE_ADMINISTER, SITE, "the site")
    return [AuthenticatorFinding(authenticator=name, **found.model_dump()) for name, found in providers.findings()]


def _end(tx: StorageTransaction, open_login: OpenLogin) -> None:
    """End a login of a device, once; one with a code has ended as it was taken."""
    if open_login.kind.is_asked_again and not tx.identity_logins.remove(open_login.id):
        raise NotAuthenticatedError("this login has ended: begin another one")


def _created(tx: StorageTransaction, provider: IdentityProvider, proven: Proven) -> User:
    """Make the account of somebody new, where the settings say so; never hand out one that is there."""
    who = f'"{proven.subject}" of {proven.issuer}'
    if not provider.creates:
        raise NotAuthenticatedError(
            f"{who} is nobody here yet: an administrator links it to an account, or you do when you are logged in"
        )
    try:
        new = NewUser(username=proven.username, full_name=proven.full_name, email=proven.email)
    except ValidationError as error:
        raise NotAuthenticatedError(
            f'{who} is called "{proven.username[:64]}" there, which is no username here: ask an administrator'
        ) from error
    if tx.users.find(new.username) is not None:
        raise ConflictError(
            f'there is an account "{new.username}" already, and nothing says that it is {who}: '
            f"log in to it and link it with `dm user link`, or ask an administrator"
        )
    user = tx.users.add(new)
    tx.identities.add(user.uid, issuer=proven.issuer, subject=proven.subject, linked_by=proven.issuer)
    if provider.created_as is CreatedAs.STATION_VIEWER:
        station = tx.experiments.station_named(tx.database.home or "")
        tx.users.grant(Grant(user_uid=user.uid, role=Role.STATION_VIEWER, station_uid=station.uid))
    return user


def _account(tx: StorageTransaction, caller: Caller, username: str, *, action: Action = Action.USER_CHANGE_OWN) -> User:
    user = tx.users.find(username)
    if user is None or not may(caller, action, Target(user_uid=user.uid)):
        require(caller, action, SITE, f'user "{username}"')  # who may not look learns nothing of who is there
        raise NotFoundError(f'there is no user "{username}": `dm user list` shows all', username=username)
    if action is Action.USER_CHANGE_OWN and caller.bound_experiment_uid is not None:
        raise InvalidError(f'"{username}" is an account that several people share: it is linked to nobody')
    return user
