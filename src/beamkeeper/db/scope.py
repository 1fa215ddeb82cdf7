"""Which experiments a caller's rights reach, as a condition that queries of every noun can use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Function,
    Select,
    Text,
    TextClause,
    Uuid,
    and_,
    bindparam,
    column,
    false,
    func,
    or_,
    select,
    table,
    text,
    true,
)
from sqlalchemy.orm import InstrumentedAttribute, Session

from beamkeeper.db.base import UtcMicroseconds, to_microseconds
from beamkeeper.domain.users import EXPERIMENT_ROLES, Publicity, Reach

# Named here lightly, so that events and files need not import the module of experiments.
_experiments = table(
    "experiments",
    column("uid", Uuid()),
    column("station_uid", Uuid()),
    column("publicity", Text()),
    column("embargo_until", UtcMicroseconds()),
)

_OPEN = [str(publicity) for publicity in Publicity if publicity is not Publicity.PROPRIETARY]
"""Named one by one, so that an index finds them: what is proprietary is not read."""

_OWN_AND_OPEN = text(
    "SELECT experiment_uid FROM grants WHERE user_uid = :holder AND NOT is_revoked AND experiment_uid IS NOT NULL "
    "UNION ALL SELECT uid FROM experiments "
    "WHERE publicity IN ('facility', 'public') AND (embargo_until IS NULL OR embargo_until <= :now)"
).bindparams(bindparam("holder", type_=Uuid()), bindparam("now", type_=BigInteger()))
"""Every role in an experiment lets one see it. Each part is answered by an index."""


def experiment_uids(reach: Reach, now: datetime) -> Select[UUID]:
    """Return the uids of the experiments that a caller's rights reach, as a sub-query."""
    return select(_experiments.c.uid).where(_in_reach(reach, now))


def is_within(
    experiment_uid: ColumnElement[UUID] | InstrumentedAttribute[UUID], reach: Reach, now: datetime
) -> ColumnElement[bool]:
    """Return whether a caller's rights reach an experiment, to be asked for each row of a list in the list's own order.

    Given the experiments as a list, SQLite goes through every file of theirs and sorts what it finds.
    """
    return select(_experiments.c.uid).where(_experiments.c.uid == experiment_uid, _in_reach(reach, now)).exists()


def experiments_in_reach(reach: Reach, now: datetime) -> tuple[Select[UUID] | TextClause, Mapping[str, object]]:
    """Return the same for a list that everybody asks for all the time, and the values with which it is executed.

    For members it is text, and their roles are read where they are kept: naming fifty experiments one by one, and
    making the statement anew each time, cost more than reading the experiments. So would values in it: SQLAlchemy
    takes it for another statement then, and compiles the whole list again.
    """
    is_of_member = reach.holder is not None and reach.roles == EXPERIMENT_ROLES and reach.is_open_included
    if not is_of_member or reach.stations:
        return experiment_uids(reach, now), {}
    return _OWN_AND_OPEN, {"holder": reach.holder, "now": to_microseconds(now)}


def lock_experiments(session: Session, uids: Iterable[UUID], *, is_shared: bool = False) -> None:
    """Let no other transaction change the files of these experiments until this one ends.

    Those that share it go on beside one another, and beside nobody else. On SQLite every transaction that writes is
    alone already.
    """
    lock = func.pg_advisory_xact_lock_shared if is_shared else func.pg_advisory_xact_lock
    _lock(session, lock, (uid.bytes[8:] for uid in uids))


def lock_runs(session: Session, uids: Iterable[UUID]) -> None:
    """Let no other transaction that shares these experiments give files to their runs until this one ends."""
    _lock(session, func.pg_advisory_xact_lock, (uid.bytes[:8] for uid in uids))


def _lock(session: Session, lock: Callable[[int], Function[Any]], keys: Iterable[bytes]) -> None:
    if session.get_bind().dialect.name == "postgresql":
        for key in sorted(set(keys)):
            session.execute(select(lock(int.from_bytes(key, "big", signed=True))))


def _in_reach(reach: Reach, now: datetime) -> ColumnElement[bool]:
    if reach.is_all:
        return true()
    known = _experiments.c
    reached: list[ColumnElement[bool]] = []
    if reach.stations:
        reached.append(known.station_uid.in_(reach.stations))
    if reach.experiments:
        reached.append(known.uid.in_(reach.experiments))
    if reach.is_open_included:
        reached.append(_is_open(now))
    return or_(*reached) if reached else false()


def _is_open(now: datetime | BindParameter[datetime]) -> ColumnElement[bool]:
    known = _experiments.c
    is_free = or_(known.embargo_until.is_(None), known.embargo_until <= now)
    return and_(known.publicity.in_(_OPEN), is_free)


NAMED_AND_OPEN = select(_experiments.c.uid).where(
    _experiments.c.uid.in_(bindparam("named", expanding=True)) | _is_open(bindparam("now", type_=UtcMicroseconds()))
)
"""What `experiment_uids` returns of nearly every member, made once: `named_and_open` gives its values."""


def named_and_open(reach: Reach, now: datetime) -> Mapping[str, object] | None:
    """Return the values of NAMED_AND_OPEN; None where a caller's rights are of another kind."""
    if reach.is_all or reach.stations or not reach.is_open_included:
        return None
    return {"named": list(reach.experiments), "now": now}
