"""Which experiments a caller's rights reach, as a condition that queries of every noun can use."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Text, Uuid, and_, column, false, or_, select, table, true

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
