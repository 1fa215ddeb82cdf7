"""Which experiments a caller's rights reach, as a condition that queries of every noun can use."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Text, Uuid, and_, column, false, func, or_, select, table, true
from sqlalchemy.orm import Session

from beamkeeper.db.base import UtcMicroseconds
from beamkeeper.domain.users import Publicity, Reach

# Named here lightly, so that events and files need not import the module of experiments.
_experiments = table(
    "experiments",
    column("uid", Uuid()),
    column("station_uid", Uuid()),
    column("publicity", Text()),
    column("embargo_until", UtcMicroseconds()),
)


def experiment_uids(reach: Reach, now: datetime) -> Select[UUID]:
    """Return the uids of the experiments that a caller's rights reach, as a sub-query."""
    return select(_experiments.c.uid).where(_in_reach(reach, now))


def lock_experiments(session: Session, uids: Iterable[UUID]) -> None:
    """Let no other transaction change the files of these experiments until this one ends.

    On SQLite every transaction that writes is alone already.
    """
    if session.get_bind().dialect.name == "postgresql":
        for uid in sorted(set(uids)):
            key = int.from_bytes(uid.bytes[8:], "big", signed=True)
            session.execute(select(func.pg_advisory_xact_lock(key)))


def _in_reach(reach: Reach, now: datetime) -> ColumnElement[bool]:
    if reach.is_all:
        return true()
    known = _experiments.c
    reached: list[ColumnElement[bool]] = [false()]
    if reach.stations:
        reached.append(known.station_uid.in_(reach.stations))
    if reach.experiments:
        reached.append(known.uid.in_(reach.experiments))
    if reach.is_open_included:
        is_free = or_(known.embargo_until.is_(None), known.embargo_until <= now)
        reached.append(and_(known.publicity != str(Publicity.PROPRIETARY), is_free))
    return or_(*reached)
