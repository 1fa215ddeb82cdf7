"""The feed of what happened, as far as the caller may see it."""

from __future__ import annotations

from collections.abc import Sequence

from beamkeeper.core import sessions
from beamkeeper.db import Transaction
from beamkeeper.domain.events import Cursor, Event, EventPage
from beamkeeper.domain.names import Uid
from beamkeeper.domain.users import Action, Caller, Reach, reach


def events_after(tx: Transaction, caller: Caller, cursor: Cursor | None, *, limit: int) -> EventPage:
    """Return events after a cursor in the order of their commits; without one, none, and the end of the feed."""
    if cursor is None:
        return EventPage(items=[], next=str(tx.events.cursor()))
    items, reached = tx.events.after(cursor, limit=limit, reach=reach(caller, Action.EXPERIMENT_READ))
    return EventPage(items=items, next=str(reached))


def all_after(tx: Transaction, cursor: Cursor, *, limit: int) -> tuple[Sequence[Event], Cursor]:
    """Return events after a cursor whoever may see them: for the one reader that serves many listeners."""
    return tx.events.after(cursor, limit=limit, reach=Reach(is_all=True))


def visible(tx: Transaction, caller: Caller) -> tuple[bool, frozenset[Uid]]:
    """Return whether a caller may see the events of everything, and else of which experiments."""
    reached = reach(caller, Action.EXPERIMENT_READ)
    return reached.is_all, frozenset() if reached.is_all else frozenset(tx.experiments.uids(reached))


def still(tx: Transaction, caller: Caller) -> Caller:
    """Return the caller as it is now; NotAuthenticatedError where its session has ended."""
    return caller if caller.session_uid is None else sessions.renewed(tx, caller.session_uid)
