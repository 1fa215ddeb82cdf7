"""Zones: stretches of the numbers of files, of which the index knows between which times their files were changed.

Files come into the catalogue about in the order in which they are written: those of some days are in few zones.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from beamkeeper.db.bulk import insert_rows
from beamkeeper.db.search.tables import ZONE, SearchZoneRow


def widen_zones(session: Session, files: Iterable[tuple[int, datetime]]) -> None:
    """Let the zones of files, by their numbers, reach to these times."""
    wanted: dict[int, tuple[datetime, datetime]] = {}
    for number, at in files:
        low, high = wanted.get(number // ZONE, (at, at))
        wanted[number // ZONE] = min(low, at), max(high, at)
    row = SearchZoneRow
    known = select(row.zone, row.low, row.high).where(row.zone.in_(wanted))
    for zone, low, high in session.execute(known).all():
        at_least, at_most = wanted.pop(zone)
        if at_least < low or at_most > high:
            wider = {"low": min(low, at_least), "high": max(high, at_most)}
            session.execute(update(row).where(row.zone == zone).values(wider))
    if wanted:
        insert_rows(session, row, ("zone", "low", "high"), [(zone, *ends) for zone, ends in sorted(wanted.items())])
