"""The feed: numbers that rise in commit order, and the events that carry them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import cast
from uuid import UUID

from sqlalchemy import Table, bindparam, func, insert, or_, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, new_uid
from beamkeeper.db.scope import experiment_uids
from beamkeeper.domain.errors import GoneError
from beamkeeper.domain.events import Cursor, Event, NewEvent
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import Reach


class SequenceRow(Base):
    """The one row that gives out numbers; its lock is what makes them rise in commit order."""

    __tablename__ = "sequence"
    services = frozenset(Service)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    epoch: Mapped[str]
    number: Mapped[int] = mapped_column(BigId)


class EventRow(Base):
    """Something that happened."""

    __tablename__ = "events"
    services = frozenset(Service)

    number: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    kind: Mapped[str]
    station_uid: Mapped[UUID | None]
    experiment_uid: Mapped[UUID | None] = mapped_column(index=True)
    data: Mapped[Metadata]


# Each transaction that writes asks these: they are built once, of tables.
_SEQUENCE, _EVENTS = cast(Table, SequenceRow.__table__), cast(Table, EventRow.__table__)
_NEXT = update(_SEQUENCE).values(number=_SEQUENCE.c.number + bindparam("count")).returning(_SEQUENCE.c.number)
_END = select(_SEQUENCE.c.epoch, _SEQUENCE.c.number)
_WRITTEN = insert(_EVENTS)


class Events:
    """Queries on the feed."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now
        self._new: list[NewEvent] = []
        self.changed: Cursor | None = None
        """The cursor of this transaction's change of identities, if it made any."""
        self.first: int | None = None
        """The first number under which `finish` wrote events, if there were any."""

    def claim(self) -> int:
        """Return the number of the change of identities that this transaction is about to make.

        Called before the first row is read or written: from here on nobody else changes identities until
        this transaction ends, so what it checks stays true.
        """
        if self.changed is None:
            number = self.next_number()
            self.changed = Cursor(self.cursor().epoch, number)
        return self.changed.number

    def revise(self, *, experiment_uid: UUID | None = None) -> int:
        """Claim the number that mirrors ask for, and tell that identities changed."""
        news = NewEvent(kind="identity.changed", experiment_uid=experiment_uid)
        if news not in self._new:
            self.add(news)
        return self.claim()

    def add(self, event: NewEvent) -> None:
        """Collect an event; it gets its number as the transaction commits, so that the lock is held shortly."""
        self._new.append(event)

    def next_number(self, count: int = 1) -> int:
        """Take `count` numbers and return the first; others who want one wait until this transaction ends."""
        taken: int = self._session.connection().execute(_NEXT, {"count": count}).scalar_one()
        return taken - count + 1

    def finish(self) -> bool:
        """Number the collected events and write them; tell whether there were any."""
        if not self._new:
            return False
        first = self.first = self._first_number(len(self._new))
        rows = [{"number": first + i, "at": self._now, **event.model_dump()} for i, event in enumerate(self._new)]
        self._session.connection().execute(_WRITTEN, rows)
        self._new.clear()
        return True

    def _first_number(self, count: int) -> int:
        """Take numbers for events; the one of a change of identities is used, so that no number is left out."""
        if self.changed is None:
            return self.next_number(count)
        if count > 1:
            self.next_number(count - 1)
        return self.changed.number

    def cursor(self) -> Cursor:
        """Return the cursor at the end of the feed."""
        row = self._session.connection().execute(_END).one()
        return Cursor(row.epoch, row.number)

    def after(self, cursor: Cursor, *, limit: int, reach: Reach) -> tuple[Sequence[Event], Cursor]:
        """Return events after a cursor in order that the caller may see, and the cursor to go on from.

        GoneError for another epoch, or a cursor older than what is kept.
        """
        end = self.cursor()
        oldest = self._session.execute(select(func.min(EventRow.number))).scalar_one()
        if (
            cursor.epoch != end.epoch
            or cursor.number > end.number
            or (oldest is not None and cursor.number < oldest - 1)
        ):
            raise GoneError(f"cursor {cursor} is beyond what is kept: list again, and go on from {end}", next=str(end))
        wanted = select(EventRow).where(EventRow.number > cursor.number, EventRow.number <= end.number)
        if not reach.is_all:
            wanted = wanted.where(
                or_(
                    EventRow.experiment_uid.in_(experiment_uids(reach, self._now)),
                    (EventRow.experiment_uid.is_(None)) & EventRow.station_uid.in_(reach.stations),
                )
            )
        rows = self._session.scalars(wanted.order_by(EventRow.number).limit(limit)).all()
        reached = rows[-1].number if len(rows) == limit else end.number
        return [_to_event(row) for row in rows], Cursor(end.epoch, reached)

    def begin_epoch(self) -> Cursor:
        """Start counting in a new epoch, as after a restore: old cursors are answered with GoneError."""
        epoch = new_uid().hex
        self._session.execute(update(SequenceRow).values(epoch=epoch))
        return self.cursor()


def _to_event(row: EventRow) -> Event:
    return Event(
        number=row.number,
        at=row.at,
        kind=row.kind,
        station_uid=row.station_uid,
        experiment_uid=row.experiment_uid,
        data=row.data,
    )
