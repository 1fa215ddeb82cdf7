"""The feed of what happened, as far as the caller may see it."""

from __future__ import annotations

from beamkeeper.db import Transaction
from beamkeeper.domain.events import Cursor, EventPage
from beamkeeper.domain.users import Action, Caller, reach


def events_after(tx: Transaction, caller: Caller, cursor: Cursor | None, *, limit: int) -> EventPage:
    """Return events after a cursor in the order of their commits; without one, none, and the end of the feed."""
    if cursor is None:
        return EventPage(items=[], next=str(tx.events.cursor()))
    items, reached = tx.events.after(cursor, limit=limit, reach=reach(caller, Action.EXPERIMENT_READ))
    return EventPage(items=items, next=str(reached))
