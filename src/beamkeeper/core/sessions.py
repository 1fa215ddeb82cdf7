"""Logging in, being recognised, logging out; and the keys under which services act."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

from pydantic import SecretStr

from beamkeeper.core import offline_tokens
from beamkeeper.core.authenticators import Authenticators
from beamkeeper.core.job_sessions import grants_there
from beamkeeper.core.passwords import Passwords, marked
from beamkeeper.core.tokens import new_token, token_sha256
from beamkeeper.db import StorageTransaction, Transaction
from beamkeeper.domain.errors import (
    ConflictError,
    InvalidError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    TooManyAttemptsError,
)
from beamkeeper.domain.experiments import Experiment, Station
from beamkeeper.domain.login_limits import LIMITS, limit_keys
from beamkeeper.domain.people import AuthenticatorFinding
from beamkeeper.domain.users import (
    EXPERIMENT_ROLES,
    OFFLINE_PREFIX,
    SITE,
    Action,
    Caller,
    Login,
    NewSession,
    OfflineSession,
    Scope,
    Session,
    SessionRecord,
    User,
    Whoami,
    may,
    require,
)
from beamkeeper.domain.users.jobs import job_of

SHARED_HOURS = 12
"""A login on a shared account ends with its experiment, or after this many hours."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Somebody who wants to log in, with what we know of the name: nothing, where nobody may."""

    login: Login
    user: User | None
    password_hash: str | None = field(repr=False)
    source: str = ""

    @property
    def keys(self) -> dict[str, str]:
        """Under which names its failure is counted."""
        return limit_keys(self.login.username, self.source)

    @property
    def name_elsewhere(self) -> str | None:
        """The name under which others may be asked: none, where the account is kept here, or may not log in.

        So nobody gets into an account that is kept here by having its name in a directory.
        """
        user = self.user
        is_elsewhere = user is not None and user.is_enabled and user.source and self.password_hash is None
        return user.username if user is not None and is_elsewhere else None


def authenticate(tx: Transaction, token: str) -> Caller:
    """Return who a token belongs to; refuse one that is unknown, expired or revoked, or whose user is disabled."""
    if token.startswith(OFFLINE_PREFIX):
        return offline_caller(tx, offline_tokens.opened(token, tx.database.offline_key))
    record = tx.users.session_of(token_sha256(token))
    if record is None:
        raise NotAuthenticatedError("the session has ended: log in again with `dm login`")
    return _caller(tx, record)


def offline_caller(tx: Transaction, login: OfflineSession) -> Caller:
    """Return who logged in at this station while it was cut off; what is heard of the site since then counts.

    No table has such a login: each service of the station knows it by its seal.
    """
    user = tx.users.get(login.user_uid)
    if user.password_changed_at != login.password_changed_at:
        raise NotAuthenticatedError("the session has ended: log in again with `dm login`")
    times = {"created_at": login.created_at, "expires_at": login.expires_at}
    record = SessionRecord(uid=login.uid, token_sha256="", user_uid=user.uid, **times)
    return replace(_caller(tx, record), session_uid=None, offline=login)


def again(tx: Transaction, caller: Caller) -> Caller:
    """Return the caller as it is now; NotAuthenticatedError where its session has ended."""
    if caller.offline is not None:
        return offline_caller(tx, caller.offline)
    return caller if caller.session_uid is None else renewed(tx, caller.session_uid)


def renewed(tx: Transaction, session_uid: UUID) -> Caller:
    """Return who a session belongs to, as that is now; refuse as `authenticate` does."""
    try:
        record = tx.users.get_session(session_uid)
    except NotFoundError as error:  # it ended so long ago, or with the site's database, that it is kept no more
        raise NotAuthenticatedError("the session has ended: log in again with `dm login`") from error
    return _caller(tx, record)


def machine(tx: Transaction, username: str, key: str | None, scope: Scope) -> Caller:
    """Return who a machine acts for that has proven itself otherwise: a user within a scope, or one of its API keys."""
    user = tx.users.find(username)
    if user is None or not user.is_enabled:
        raise NotAuthenticatedError(f'there is no account "{username}" here, or it is disabled: ask an administrator')
    if key is None:
        if user.is_shared:
            raise NotAuthenticatedError(f'"{username}" is a shared account: name one of its API keys')
        return Caller(username, user.uid, grants=tuple(tx.users.grants_of(user.uid)), scopes=frozenset({scope}))
    for record in tx.users.keys_of(user.uid):
        if record.name == key:
            return _caller(tx, record)
    raise NotAuthenticatedError(f'"{username}" has no key "{key}" that holds: `dm key list` shows them')


def _caller(tx: Transaction, record: SessionRecord) -> Caller:
    if record.revoked_at is not None:
        raise NotAuthenticatedError("the session has ended: log in again with `dm login`")
    if record.expires_at is not None and record.expires_at <= tx.now:
        raise NotAuthenticatedError("the session has expired: log in again with `dm login`")
    if record.user_uid is None:
        return _service(tx, record)
    check_heard(tx)
    user = tx.users.get(record.user_uid)
    if not user.is_enabled:
        raise NotAuthenticatedError(f'the account "{user.username}" is disabled: ask an administrator')
    grants = tuple(tx.users.grants_of(user.uid))
    job_uid = job_of(record.name)
    if record.experiment_uid is not None:
        experiment = tx.experiments.get(record.experiment_uid)
        if job_uid is None:
            _check_open(experiment, tx.now)
        else:  # data are processed again when the beam time is long over
            grants = grants_there(grants, experiment)
    return Caller(
        username=user.username,
        user_uid=user.uid,
        session_uid=record.uid,
        bound_experiment_uid=record.experiment_uid,
        grants=grants,
        scopes=None if record.scopes is None else frozenset(record.scopes),
        job_uid=job_uid,
    )


def check_heard(tx: Transaction) -> None:
    """Refuse people at a station that was cut off for too long: it cannot know who has lost their rights since."""
    state = None if isinstance(tx, StorageTransaction) else tx.mirror.state()
    grace = tx.database.offline_grace
    if state is not None and tx.now - state.heard_at > grace:
        raise NotAuthenticatedError(
            f"this station is cut off from the site since {state.heard_at.isoformat(sep=' ', timespec='seconds')}, and "
            f"after {grace.total_seconds() / 3600:g} h (station.offline_grace_hours) logins count no more: files are "
            f"still taken, and all goes on when the site is back"
        )


def _service(tx: Transaction, record: SessionRecord) -> Caller:
    if record.station_uid is None:
        raise NotAuthenticatedError("the session has no owner: log in again with `dm login`")
    station = tx.experiments.get_station(record.station_uid)
    return Caller(username=f"station {station.name}", is_service=True, station_uid=station.uid, session_uid=record.uid)


def begin_login(tx: StorageTransaction, login: Login, *, source: str) -> Attempt:
    """Count the attempt, and read what the check of a password needs; refuse one that comes too soon."""
    user = tx.users.find(login.username)
    is_open = user is not None and user.is_enabled
    attempt = Attempt(login, user, tx.users.password_hash(user.uid) if user and is_open else None, source)
    wait = tx.login_attempts.count(attempt.keys, LIMITS)
    if wait > timedelta(0):
        raise too_many(wait)
    return attempt


def too_many(wait: timedelta) -> TooManyAttemptsError:
    """Return the refusal of an attempt that comes too soon."""
    seconds = max(1, math.ceil(wait.total_seconds()))
    return TooManyAttemptsError(
        f"too many logins failed: try again in {seconds} {'second' if seconds == 1 else 'seconds'}",
        retry_after_s=seconds,
    )


def check_password(attempt: Attempt, passwords: Passwords, authenticators: Authenticators) -> str | None:
    """Refuse a wrong password; slow, so called with no transaction open. Return a better hash to keep, if it has one.

    Whether the user is unknown or disabled or the password wrong: the answer is one, and the work is the same.
    """
    password = attempt.login.password
    if passwords.is_right(password, attempt.password_hash):
        return passwords.renewed(password, attempt.password_hash)
    if not authenticators.is_right(attempt.name_elsewhere, password):
        raise refused(attempt.login)
    return None


def login(tx: StorageTransaction, attempt: Attempt, *, hours: float, renewed_hash: str | None = None) -> NewSession:
    """Begin a session for somebody whose password was checked."""
    tx.users.forget_sessions()
    user = None if attempt.user is None else tx.users.get(attempt.user.uid)
    if user is None or not user.is_enabled or tx.users.password_hash(user.uid) != attempt.password_hash:
        raise refused(attempt.login)  # changed since the password was checked
    tx.login_attempts.succeeded(attempt.keys)
    if renewed_hash is not None:
        tx.users.renew_password_hash(user.uid, renewed_hash)
    if not user.is_shared:
        return begin_session(tx, user, expires_at=tx.now + timedelta(hours=hours), password=attempt.login.password)
    experiment = _experiment_meant(tx, user, attempt.login)
    ends = tx.now + timedelta(hours=SHARED_HOURS)
    if experiment.ends_at is not None:
        ends = min(ends, experiment.ends_at)
    return begin_session(tx, user, expires_at=ends, experiment=experiment)


def begin_session(
    tx: Transaction,
    user: User,
    *,
    expires_at: datetime,
    experiment: Experiment | None = None,
    password: SecretStr | None = None,
) -> NewSession:
    """Begin a session and return its token, which is shown this once, and the proof of its password if it has one."""
    token, proof = new_token(), new_token() if password else ""
    record = tx.users.add_session(
        token_sha256(token),
        user_uid=user.uid,
        experiment_uid=None if experiment is None else experiment.uid,
        expires_at=expires_at,
        password_mark=marked(password, proof) if password else None,
    )
    return NewSession(session=_session(tx, record, user), token=token, password_proof=proof)


def begin_service_key(tx: Transaction, station: Station) -> str:
    """Return a new key for a station's services, which is shown this once."""
    key = new_token()
    tx.users.add_session(token_sha256(key), station_uid=station.uid)
    return key


def logout(tx: StorageTransaction, caller: Caller) -> None:
    """End the caller's own session."""
    if caller.scopes is not None:
        raise NotPermittedError("an API key is taken back with `dm key revoke`")
    if caller.session_uid is not None:
        tx.users.revoke_sessions([caller.session_uid])


def try_authenticators(
    caller: Caller, authenticators: Authenticators, username: str | None
) -> Sequence[AuthenticatorFinding]:
    """Try who checks passwords that are not kept here; slow, so called with no transaction open."""
    require(caller, Action.SITE_ADMINISTER, SITE, "the site")
    return [
        AuthenticatorFinding(authenticator=name, **finding.model_dump())
        for name, finding in authenticators.findings(username)
    ]


def sessions(tx: StorageTransaction, caller: Caller, username: str | None) -> Sequence[Session]:
    """Return the sessions of a user that hold: one's own, or anybody's for an administrator."""
    user = _user(tx, caller, username or caller.username)
    return [_session(tx, record, user) for record in tx.users.sessions_of(user.uid)]


def revoke(tx: StorageTransaction, caller: Caller, uid: UUID) -> None:
    """End a session: one's own, or anybody's for an administrator."""
    record = tx.users.get_session(uid)
    is_own = record.user_uid is not None and record.user_uid == caller.user_uid and caller.scopes is None
    if not (is_own and caller.bound_experiment_uid is None) and not may(caller, Action.SITE_ADMINISTER, SITE):
        raise NotFoundError(f"there is no session {uid}", uid=str(uid))
    tx.users.revoke_sessions([uid])


def whoami(tx: Transaction, caller: Caller) -> Whoami:
    """Return who the caller is and what it may do."""
    if (held := caller.offline) is not None:
        user = tx.users.get(held.user_uid)
        times = {"created_at": held.created_at, "expires_at": held.expires_at}
        session = Session(uid=held.uid, user_uid=user.uid, username=user.username, **times)
        return Whoami(user=user, session=session, grants=caller.grants)
    if caller.user_uid is None or caller.session_uid is None:
        return Whoami(user=None, session=None, is_service=caller.is_service, station_uid=caller.station_uid)
    user = tx.users.get(caller.user_uid)
    record = tx.users.get_session(caller.session_uid)
    return Whoami(user=user, session=_session(tx, record, user), grants=caller.grants)


def _user(tx: StorageTransaction, caller: Caller, username: str) -> User:
    is_own = caller.user_uid is not None and caller.scopes is None and username == caller.username
    if not is_own and not may(caller, Action.SITE_ADMINISTER, SITE):
        raise NotPermittedError(f'the sessions of "{username}" are shown to administrators')
    return tx.users.named(username)


def _session(tx: Transaction, record: SessionRecord, user: User) -> Session:
    if record.expires_at is None:
        raise InvalidError(f"session {record.uid} is a key of services")
    experiment = None if record.experiment_uid is None else tx.experiments.get(record.experiment_uid).name
    return Session(
        uid=record.uid,
        user_uid=user.uid,
        username=user.username,
        experiment_uid=record.experiment_uid,
        experiment=experiment,
        created_at=record.created_at,
        expires_at=record.expires_at,
    )


def refused(login: Login) -> NotAuthenticatedError:
    """Return the one answer to a login that is not right, whatever it is."""
    return NotAuthenticatedError(f'user "{login.username[:64]}" and this password do not fit: try again')


def _experiment_meant(tx: StorageTransaction, user: User, login: Login) -> Experiment:
    """Return the experiment that a login on a shared account is for; its name is looked for among its own."""
    own = [
        tx.experiments.get(grant.experiment_uid)
        for grant in tx.users.grants_of(user.uid)
        if grant.role in EXPERIMENT_ROLES and grant.experiment_uid is not None
    ]
    meant = [
        e for e in own if login.experiment_uid == e.uid or (login.experiment_uid is None and login.experiment == e.name)
    ]
    if login.experiment_uid is None and login.experiment is None:
        raise InvalidError(f'"{user.username}" is a shared account: say what for with --experiment NAME')
    if not meant:
        raise NotFoundError(
            f'the shared account "{user.username}" has no experiment "{login.experiment or login.experiment_uid}": '
            f"ask its PI to add the account"
        )
    if len(meant) > 1:
        stations = " and ".join(sorted(experiment.station for experiment in meant))
        raise ConflictError(f'there is an experiment "{login.experiment}" on {stations}: name it by its uid')
    _check_open(meant[0], tx.now)
    return meant[0]


def _check_open(experiment: Experiment, now: datetime) -> None:
    if experiment.deleted_at is not None or (experiment.ends_at is not None and experiment.ends_at <= now):
        raise NotAuthenticatedError(
            f'experiment "{experiment.name}" has ended, and the logins and keys for it alone: use your own account'
        )
