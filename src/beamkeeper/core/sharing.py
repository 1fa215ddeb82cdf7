"""Links for people without an account: made for a frozen set by those who lead an experiment, and dying with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from uuid import UUID

from beamkeeper.core import copies_read, rights
from beamkeeper.core.copies_read import CopiesRead
from beamkeeper.core.downloads import Content, archive_of, get_set
from beamkeeper.core.tokens import new_token, token_sha256
from beamkeeper.db import Database, StorageTransaction
from beamkeeper.db.downloads import HeldLink
from beamkeeper.domain.downloads import (
    LONGEST_LINK_DAYS,
    Link,
    LinkState,
    NewLink,
    NewLinkMade,
    Sharing,
    SharingChange,
)
from beamkeeper.domain.errors import ConflictError, DmError, InvalidError, NotFoundError, NotPermittedError
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.users import Action, Caller, Publicity

GONE = "there is no such link: it has expired, was revoked, or was never made"
"""One answer whatever the reason: who has a wrong address learns nothing."""


def sharing(tx: StorageTransaction, caller: Caller, uid: UUID) -> Sharing:
    """Return whether links may be made into an experiment."""
    return _sharing(tx, rights.experiment(tx, caller, Action.FILE_READ, uid))


def change_sharing(tx: StorageTransaction, caller: Caller, uid: UUID, change: SharingChange) -> Sharing:
    """Allow links into an experiment, or forbid them: for those who decide who belongs to it."""
    experiment = rights.experiment(tx, caller, Action.EXPERIMENT_PEOPLE, uid)
    tx.downloads.decide_sharing(uid, change.is_allowed, by=caller.username)
    return _sharing(tx, experiment)


def _sharing(tx: StorageTransaction, experiment: Experiment) -> Sharing:
    """Without a decision, links may lead into what everybody may read anyway, and nowhere else."""
    if (decided := tx.downloads.sharing(experiment.uid)) is not None:
        return decided
    target = experiment.target(tx.now)
    is_open = target.publicity is not Publicity.PROPRIETARY and not target.is_embargoed
    why = "it is open to everybody at the site" if is_open else "it is proprietary, or under embargo"
    return Sharing(experiment_uid=experiment.uid, is_allowed=is_open, reason=why)


def create(tx: StorageTransaction, caller: Caller, new: NewLink) -> NewLinkMade:
    """Make a link to a frozen set; its secret is shown this once."""
    found = get_set(tx, caller, new.set_uid)
    experiment = rights.experiment(tx, caller, Action.FILE_SHARE, found.experiment_uid)
    if caller.user_uid is None or caller.bound_experiment_uid is not None:
        raise NotPermittedError("a link is made by a person: log in with an account of your own")
    if not _sharing(tx, experiment).is_allowed:
        raise ConflictError(
            f'links into experiment "{experiment.name}" are not allowed: it is proprietary or under embargo, or they '
            f"were forbidden; its PI or a manager of the station allows them with `dm link allow {experiment.name}`"
        )
    if not found.is_frozen:
        raise ConflictError(f"set {found.uid} is not frozen yet: its last files are still to be named")
    if not tx.now < new.expires_at <= tx.now + timedelta(days=LONGEST_LINK_DAYS):
        raise InvalidError(f"a link expires within {LONGEST_LINK_DAYS} days, and not before it is made")
    token = new_token()
    held = tx.downloads.add_link(
        new, found, token_sha256=token_sha256(token), user_uid=caller.user_uid, by=caller.username
    )
    return NewLinkMade(link=_link(tx, held), path=f"/api/v1/shared/{token}/{found.name}.tar")


def list_(tx: StorageTransaction, caller: Caller, uid: UUID) -> Sequence[Link]:
    """Return the links into an experiment, newest first, for those who may make them."""
    rights.experiment(tx, caller, Action.FILE_SHARE, uid)
    return [_link(tx, held) for held in tx.downloads.links(uid)]


def revoke(tx: StorageTransaction, caller: Caller, uid: UUID) -> Link:
    """Let a link lead nowhere from now on; what is being sent by it stops within seconds."""
    held = tx.downloads.link(uid)
    try:
        rights.experiment(tx, caller, Action.FILE_SHARE, held.experiment_uid)
    except NotFoundError as error:
        raise NotFoundError(f"there is no link {uid}", uid=str(uid)) from error
    tx.downloads.revoke_link(uid)
    return _link(tx, tx.downloads.link(uid))


def _link(tx: StorageTransaction, held: HeldLink) -> Link:
    values = {name: getattr(held, name) for name in Link.model_fields if name != "state"}
    return Link(**values, state=_state(tx, held))


def _state(tx: StorageTransaction, held: HeldLink) -> LinkState:
    if held.revoked_at is not None:
        return LinkState.REVOKED
    if held.expires_at <= tx.now:
        return LinkState.EXPIRED
    try:
        _usable(tx, held)
    except DmError:
        return LinkState.DEAD
    return LinkState.VALID


def _usable(tx: StorageTransaction, held: HeldLink) -> Experiment:
    """Return the experiment of a link whose maker could make it today; raises otherwise."""
    user = tx.users.get(held.user_uid)
    if not user.is_enabled:
        raise NotFoundError(GONE)
    maker = Caller(username=user.username, user_uid=user.uid, grants=tuple(tx.users.grants_of(user.uid)))
    experiment = rights.experiment(tx, maker, Action.FILE_SHARE, held.experiment_uid)
    if experiment.deleted_at is not None or not _sharing(tx, experiment).is_allowed:
        raise NotFoundError(GONE)
    return experiment


def shared(database: Database[StorageTransaction], copies: CopiesRead, token: str) -> Content:
    """Return what a link leads to; for anybody who has its address."""
    with database.read() as tx:  # nobody holds up those who write by asking for links that there are not
        held = _valid(tx, token)
        experiment = _usable(tx, held)
        found = tx.downloads.get_set(held.set_uid)
        where = copies_read.of(tx, experiment)
    with database.write() as tx:
        tx.downloads.count_use(held.uid)
    check = _still_valid(database, token)
    return archive_of(database, copies, found, where, username=held.created_by, check=check, link_uid=held.uid)


def _valid(tx: StorageTransaction, token: str) -> HeldLink:
    held = tx.downloads.link_of(token_sha256(token))
    if held is None or _state(tx, held) is not LinkState.VALID:
        raise NotFoundError(GONE)
    return held


def _still_valid(database: Database[StorageTransaction], token: str) -> Callable[[], None]:
    def check() -> None:
        with database.read() as tx:
            _valid(tx, token)

    return check
