"""The feed of what happened, as far as the caller may see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from beamkeeper.core import sessions
from beamkeeper.db import Transaction
from beamkeeper.domain.events import Cursor, Event, EventPage
from beamkeeper.domain.names import Uid
from beamkeeper.domain.users import Action, Caller, Reach, reach


@dataclass(frozen=True, slots=True)
class Visible:
    """Whose events somebody may see: of everything, or of some experiments, and of some stations themselves."""

    is_all: bool = False
    experiments: frozenset[Uid] = frozenset()
    stations: frozenset[Uid] = frozenset()

    def has(self, event: Event) -> bool:
        """Whether an event is among them."""
        if event.experiment_uid is None:
            return self.is_all or event.station_uid in self.stations
        return self.is_all or event.experiment_uid in self.experiments


def events_after(tx: Transaction, caller: Caller, cursor: Cursor | None, *, limit: int) -> EventPage:
    """Return events after a cursor in the order of their commits; without one, none, and the end of the feed."""
    if cursor is None:
        return EventPage(items=[], next=str(tx.events.cursor()))
    items, reached = tx.events.after(cursor, limit=limit, reach=reach(caller, Action.EXPERIMENT_READ))
    return EventPage(items=items, next=str(reached))


def all_after(tx: Transaction, cursor: Cursor, *, limit: int) -> tuple[Sequence[Event], Cursor]:
    """Return events after a cursor whoever may see them: for the one reader that serves many listeners."""
    return tx.events.after(cursor, limit=limit, reach=Reach(is_all=True))


def visible(tx: Transaction, caller: Caller) -> Visible:
    """Return whose events a caller may see."""
    reached = reach(caller, Action.EXPERIMENT_READ)
    uids = frozenset() if reached.is_all else frozenset(tx.experiments.uids(reached))
    return Visible(is_all=reached.is_all, experiments=uids, stations=reached.stations)


def still(tx: Transaction, caller: Caller) -> Caller:
    """Return the caller as it is now; NotAuthenticatedError where its session has ended."""
    return sessions.again(tx, caller)
