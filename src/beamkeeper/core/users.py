"""Accounts, their roles and passwords: what one can do with them, and who may."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from beamkeeper.core.passwords import Passwords
from beamkeeper.db import StorageTransaction, Transaction
from beamkeeper.domain.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    NotPermittedError,
)
from beamkeeper.domain.events import Cursor
from beamkeeper.domain.mirror import Mirror, MirrorState
from beamkeeper.domain.users import (
    SITE,
    STATION_ROLES,
    Action,
    Caller,
    Grant,
    NewGrant,
    NewUser,
    PasswordChange,
    Role,
    Target,
    User,
    UserChange,
    UserPage,
    may,
    require,
)


@dataclass(frozen=True, slots=True)
class Account:
    """An account with the hash of its password, as it was when a slow check of the password began."""

    user: User
    password_hash: str | None = field(repr=False)


def hash_new(caller: Caller, new: NewUser, passwords: Passwords) -> str | None:
    """Return the hash of a new account's password; slow, so called before the transaction."""
    require(caller, Action.SITE_ADMINISTER, SITE, "the site")
    return None if new.password is None else passwords.hash(new.password)


def create(tx: Transaction, caller: Caller, new: NewUser, *, password_hash: str | None) -> User:
    """Make an account."""
    require(caller, Action.SITE_ADMINISTER, SITE, "the site")
    if new.is_shared and new.is_administrator:
        raise InvalidError(f'user "{new.username}" cannot be shared and administrate the site: choose one')
    if new.source and password_hash is not None:
        raise InvalidError(f'the password of "{new.username}" is checked by its directory: give none here')
    user = tx.users.add(new)
    if password_hash is not None:
        tx.users.set_password_hash(user.uid, password_hash)
    if new.is_administrator:
        tx.users.grant(Grant(user_uid=user.uid, role=Role.ADMINISTRATOR))
    return tx.users.get(user.uid)


def page(tx: Transaction, caller: Caller, *, after: str | None, limit: int, text: str | None = None) -> UserPage:
    """Return accounts in the order of their names, or those that have a text in username, name or e-mail."""
    require(caller, Action.USER_READ, SITE, "the accounts of the site")
    return tx.users.page(after=after, limit=limit, text=text)


def show(tx: Transaction, caller: Caller, username: str) -> User:
    """Return an account: one's own, or anybody's for an administrator."""
    return _account(tx, caller, username, action=Action.USER_READ)


def change(tx: StorageTransaction, caller: Caller, username: str, change: UserChange) -> User:
    """Change an account; only an administrator enables, disables, and changes the badge and the institution."""
    user = _account(tx, caller, username, action=Action.USER_CHANGE_OWN)
    if change.is_enabled is not None or change.badge is not None or change.institution is not None:
        require(caller, Action.SITE_ADMINISTER, SITE, f'the account "{username}"')
    changed = tx.users.change(user.uid, change)
    if change.is_enabled is not None:
        tx.people.forget_departure(user.uid)  # from now on it is as somebody here wants it
    if change.is_enabled is False:
        _check_administered(tx, user.uid, what=f'disabling "{username}"')
        held = [*tx.users.sessions_of(user.uid), *tx.users.keys_of(user.uid)]
        tx.users.revoke_sessions([record.uid for record in held])
    return changed


def account(tx: Transaction, caller: Caller, username: str) -> Account:
    """Return the account whose password the caller may change."""
    user = _account(tx, caller, username, action=Action.USER_CHANGE_OWN)
    if caller.bound_experiment_uid is not None:
        raise NotPermittedError(f'the password of the shared account "{username}" is changed by an administrator')
    if user.source:
        raise ConflictError(f'the password of "{username}" is kept by its directory "{user.source}": change it there')
    return Account(user, tx.users.password_hash(user.uid))


def hash_changed(caller: Caller, account: Account, change: PasswordChange, *, passwords: Passwords) -> str:
    """Check the present password where it is one's own, and return the new one's hash; slow, without transaction."""
    if caller.user_uid == account.user.uid and account.password_hash is not None:
        if change.present is None:
            raise InvalidError("changing your own password needs the present one: give it too")
        if not passwords.is_right(change.present, account.password_hash):
            raise NotPermittedError("the present password is another: nothing was changed")
    return passwords.hash(change.new)


def set_password(tx: Transaction, caller: Caller, account: Account, *, password_hash: str) -> None:
    """Set a password; the user's other sessions end at once."""
    tx.users.revoke_sessions(
        [session.uid for session in tx.users.sessions_of(account.user.uid) if session.uid != caller.session_uid]
    )
    if tx.users.password_hash(account.user.uid) != account.password_hash:
        raise ConflictError(f'the password of "{account.user.username}" was changed by somebody else meanwhile')
    tx.users.set_password_hash(account.user.uid, password_hash)


def grants(tx: Transaction, caller: Caller, username: str) -> Sequence[Grant]:
    """Return the roles that a user holds."""
    return tx.users.grants_of(show(tx, caller, username).uid)


def grant(tx: Transaction, caller: Caller, new: NewGrant) -> Grant:
    """Give a role."""
    wanted = _grant(tx, caller, new)
    return tx.users.grant(wanted)


def revoke(tx: Transaction, caller: Caller, old: NewGrant) -> None:
    """Take a role away."""
    unwanted = _grant(tx, caller, old)
    if not tx.users.revoke(unwanted):
        raise NotFoundError(f'user "{old.username}" does not hold the role "{old.role}" there')
    if unwanted.role is Role.ADMINISTRATOR:
        _check_administered(tx, unwanted.user_uid, what=f'taking the role from "{old.username}"')


def mirror_state(tx: Transaction) -> MirrorState | None:
    """Return how far this service's mirror has come; None before it was ever filled."""
    return tx.mirror.state()


def mirror_cursor(tx: Transaction) -> Cursor:
    """Return the cursor that this service's mirror has reached; epochs compare by when they began."""
    state = tx.mirror.state()
    return Cursor("", 0) if state is None else Cursor(state.epoch, state.number)


def mirror_after(tx: Transaction, caller: Caller, *, number: int, epoch: str | None) -> Mirror:
    """Return what changed of the identities since a number: all, where that is not of this epoch."""
    require(caller, Action.MIRROR_READ, SITE, "the identities of the site")
    end = tx.events.cursor()
    if epoch != end.epoch or not 0 < number <= end.number:
        return tx.mirror.changed(0)
    if tx.mirror.latest() <= number:
        return Mirror(epoch=end.epoch, number=end.number)
    return tx.mirror.changed(number)


def apply_mirror(tx: Transaction, mirror: Mirror) -> None:
    """Take over what changed of the identities at the storage service; applying it twice changes nothing."""
    tx.mirror.apply(mirror)


def _account(tx: Transaction, caller: Caller, username: str, *, action: Action) -> User:
    user = tx.users.find(username)
    target = Target(user_uid=user.uid if user else None)
    if user is None or not may(caller, action, target):
        require(caller, action, SITE, f'user "{username}"')  # who may not look learns nothing of who is there
        raise NotFoundError(f'there is no user "{username}": `dm user list` shows all', username=username)
    return user


def _check_administered(tx: Transaction, uid: UUID, *, what: str) -> None:
    if not tx.users.is_granted(Role.ADMINISTRATOR, besides=uid):
        raise ConflictError(f"{what} would leave the site without an administrator: make another one first")


def _grant(tx: Transaction, caller: Caller, wanted: NewGrant) -> Grant:
    """Return the grant that is meant, for a caller who may give and take it."""
    given = (wanted.station_uid is not None, wanted.experiment_uid is not None)
    if wanted.role is Role.ADMINISTRATOR:
        needed, action, target = (False, False), Action.SITE_ADMINISTER, SITE
    elif wanted.role in STATION_ROLES:
        needed, action = (True, False), Action.SITE_ADMINISTER
        if wanted.role is Role.STATION_VIEWER:
            action = Action.STATION_MANAGE
        target = Target(station_uid=wanted.station_uid)
    else:
        raise InvalidError(f'the role "{wanted.role}" is of an experiment: use `dm experiment add-user` for it')
    if given != needed:
        raise InvalidError(f'the role "{wanted.role}" is of {"a station" if needed[0] else "the site"}: name just that')
    require(caller, action, target, f'the role "{wanted.role}"')
    if wanted.station_uid is not None:
        tx.experiments.get_station(wanted.station_uid)
    user = tx.users.named(wanted.username)
    if user.is_shared:
        raise InvalidError(f'"{user.username}" is a shared account: it holds roles in experiments only')
    return Grant(user_uid=user.uid, role=wanted.role, station_uid=wanted.station_uid)
