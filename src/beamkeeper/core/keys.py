"""API keys: making them, listing them, taking them back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from beamkeeper.core import rights
from beamkeeper.core.tokens import new_token, token_sha256
from beamkeeper.db import StorageTransaction
from beamkeeper.domain.errors import AlreadyExistsError, InvalidError, NotFoundError, NotPermittedError
from beamkeeper.domain.users import (
    SITE,
    Action,
    ApiKey,
    Caller,
    MadeKey,
    NewKey,
    SessionRecord,
    Target,
    User,
    may,
    require,
)
from beamkeeper.domain.users.jobs import job_of

LONGEST = timedelta(days=3660)
"""A key lives no longer: ten years of an instrument's life."""


def create(tx: StorageTransaction, caller: Caller, new: NewKey) -> MadeKey:
    """Make a key and return its token, which is shown this once."""
    tx.events.claim()
    owner = _owner(tx, caller, new.username)
    if owner.is_shared and new.experiment_uid is None:
        raise InvalidError(f'"{owner.username}" is a shared account: its keys are for one experiment')
    if not tx.now < new.expires_at <= tx.now + LONGEST:
        raise InvalidError(f"a key ends within {LONGEST.days} days, and not in the past: {new.expires_at}")
    if any(key.name == new.name for key in tx.users.keys_of(owner.uid)):
        raise AlreadyExistsError(f'"{owner.username}" has a key "{new.name}" already', name=new.name)
    if new.experiment_uid is not None:
        rights.experiment(tx, caller, Action.EXPERIMENT_READ, new.experiment_uid)
    token = new_token()
    record = tx.users.add_session(
        token_sha256(token),
        user_uid=owner.uid,
        experiment_uid=new.experiment_uid,
        expires_at=new.expires_at,
        name=new.name,
        scopes=tuple(sorted(set(new.scopes))),
    )
    return MadeKey(key=_key(tx, record, owner), token=token)


def keys(tx: StorageTransaction, caller: Caller, username: str | None) -> Sequence[ApiKey]:
    """Return the keys of a user that hold: one's own, or anybody's for an administrator."""
    owner = _owner(tx, caller, username)
    return [_key(tx, record, owner) for record in tx.users.keys_of(owner.uid) if job_of(record.name) is None]


def revoke(tx: StorageTransaction, caller: Caller, uid: UUID) -> None:
    """Take a key back: one's own, or anybody's for an administrator."""
    record = tx.users.get_session(uid)
    owner = Target(user_uid=record.user_uid)
    if record.scopes is None or record.user_uid is None or not _may_change(caller, owner):
        raise NotFoundError(f"there is no key {uid}", uid=str(uid))
    tx.users.revoke_sessions([uid])


def _owner(tx: StorageTransaction, caller: Caller, username: str | None) -> User:
    name = username or caller.username
    user = tx.users.find(name)
    if user is None or not _may_change(caller, Target(user_uid=user.uid)):
        require(caller, Action.USER_CHANGE_OWN, SITE, f'the keys of "{name}"')
        raise NotFoundError(f'there is no user "{name}": `dm user list` shows all', username=name)
    return user


def _may_change(caller: Caller, owner: Target) -> bool:
    """Whether keys may be made and taken back: no key does, and no login that is for one experiment."""
    if caller.bound_experiment_uid is not None:
        raise NotPermittedError("a login for one experiment has no keys: use your own account")
    return may(caller, Action.USER_CHANGE_OWN, owner)


def _key(tx: StorageTransaction, record: SessionRecord, owner: User) -> ApiKey:
    if record.expires_at is None or record.scopes is None:
        raise InvalidError(f"{record.uid} is no API key")
    name = None if record.experiment_uid is None else tx.experiments.get(record.experiment_uid).name
    return ApiKey(
        uid=record.uid,
        name=record.name,
        username=owner.username,
        scopes=record.scopes,
        experiment_uid=record.experiment_uid,
        experiment=name,
        created_at=record.created_at,
        expires_at=record.expires_at,
    )
