"""Logging in at a station that is cut off: by a verifier that was made here when one logged in here last."""

from __future__ import annotations

import hmac
from datetime import timedelta

from beamkeeper.core.offline_tokens import sealed
from beamkeeper.core.passwords import Passwords, marked
from beamkeeper.core.sessions import Attempt, check_heard, refused, too_many
from beamkeeper.core.unsent import is_cut_off
from beamkeeper.db import AcquisitionTransaction
from beamkeeper.db.base import new_uid
from beamkeeper.db.offline import Verifier
from beamkeeper.domain.errors import ConflictError, NotAuthenticatedError, NotPermittedError
from beamkeeper.domain.login_limits import LIMITS
from beamkeeper.domain.users import Caller, Login, NewSession, OfflineLogin, OfflineSession, Session

LASTS = timedelta(hours=12)
JUST_NOW = timedelta(minutes=10)
"""A verifier is made by who has logged in within this time: a session that was stolen later makes none."""


def check_keeping(tx: AcquisitionTransaction, caller: Caller, wanted: OfflineLogin) -> None:
    """Refuse those for whom no verifier is made: all but people who have just logged in with their own account.

    And refuse every password but the one that the site has accepted for this very login.
    """
    if caller.user_uid is None or caller.session_uid is None or caller.scopes is not None or caller.job_uid is not None:
        raise NotPermittedError("a login at this station is for people: log in with an account of your own")
    if caller.bound_experiment_uid is not None:
        raise NotPermittedError("an account that several people share has no login at a station that is cut off")
    _check_wanted(tx)
    session = tx.users.get_session(caller.session_uid)
    if abs(tx.now - session.created_at) > JUST_NOW:
        raise NotPermittedError("a login here is prepared when you log in: do so again, with `dm login`")
    mark = marked(wanted.password, wanted.proof.get_secret_value())
    if session.password_mark is None or not hmac.compare_digest(mark, session.password_mark):
        raise NotPermittedError("the site has accepted no such password for this login: log in again with `dm login`")


def keep(tx: AcquisitionTransaction, caller: Caller, wanted: OfflineLogin, password_hash: str) -> None:
    """Keep the verifier of somebody's password, which was hashed with no transaction open."""
    check_keeping(tx, caller, wanted)
    if caller.user_uid is not None:
        user = tx.users.get(caller.user_uid)
        tx.offline.put(user.uid, Verifier(password_hash, user.password_changed_at))


def hashed(wanted: OfflineLogin, passwords: Passwords) -> str:
    """Return the hash of a password; slow."""
    return passwords.hash(wanted.password)


def begin_login(tx: AcquisitionTransaction, login: Login, *, source: str) -> Attempt:
    """Count the attempt, and read what the check of the password needs."""
    _check_wanted(tx)
    if not is_cut_off(tx):
        raise ConflictError("this station is not cut off from its site: log in there, with `dm login`")
    check_heard(tx)
    user = tx.users.find(login.username)
    held = None if user is None or not user.is_enabled or user.is_shared else tx.offline.find(user.uid)
    is_valid = held is not None and user is not None and held.password_changed_at == user.password_changed_at
    attempt = Attempt(login, user, held.password_hash if held is not None and is_valid else None, source)
    wait = tx.offline.attempts.count(attempt.keys, LIMITS)
    if wait > timedelta(0):
        raise too_many(wait)
    return attempt


def check_password(attempt: Attempt, passwords: Passwords) -> None:
    """Refuse a wrong password, or one of which there is no verifier, with one answer; slow."""
    if not passwords.is_right(attempt.login.password, attempt.password_hash):
        error = refused(attempt.login)
        raise NotAuthenticatedError(
            f"{error.message}; while the site is away, only who has logged in here before can log in"
        )


def login(tx: AcquisitionTransaction, attempt: Attempt) -> NewSession:
    """Give a login that the services of this station know; its rights are those that they have heard of."""
    user = None if attempt.user is None else tx.users.get(attempt.user.uid)
    key = tx.database.offline_key
    if user is None or key is None or not user.is_enabled:
        raise refused(attempt.login)
    tx.offline.attempts.succeeded(attempt.keys)
    made = OfflineSession(
        uid=new_uid(),
        user_uid=user.uid,
        password_changed_at=user.password_changed_at,
        created_at=tx.now,
        expires_at=tx.now + LASTS,
    )
    session = Session(
        uid=made.uid,
        user_uid=user.uid,
        username=user.username,
        created_at=made.created_at,
        expires_at=made.expires_at,
    )
    return NewSession(session=session, token=sealed(made, key))


def _check_wanted(tx: AcquisitionTransaction) -> None:
    if tx.database.offline_key is None:
        raise ConflictError("this station lets nobody log in while it is cut off: station.offline_login turns that on")
