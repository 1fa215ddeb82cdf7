"""What all kinds of documents share that are carried to the site: reading a few at a time, and taking them over."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session

from beamkeeper.db.changes import Change
from beamkeeper.db.experiments import ExperimentRow
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.replication import Refusal

BATCH_BYTES = 8 * 1024 * 1024
"""About the most that one batch of documents has: what is in memory at a time."""

_STREAMED = 20
"""So many rows are fetched at a time: each may have two megabytes of metadata."""

Row = dict[str, Any]

Span = tuple[UUID | None, UUID | None]
"""Uids beyond the first and up to the last; None is the beginning and the end."""

Taken = tuple[Sequence[int], Sequence[Refusal]]
"""The local keys of what was taken over, and what is refused."""


class Document(Protocol):
    """What every document has."""

    @property
    def uid(self) -> UUID:
        """By which it is taken over."""
        ...


DocumentT = TypeVar("DocumentT", bound=Document)


@dataclass(frozen=True, slots=True)
class Read(Generic[DocumentT]):
    """Some documents, the number and uid of the last row that was read for them, and whether all were read."""

    documents: list[DocumentT]
    last: tuple[int, UUID] | None
    is_all: bool


class Copied(ABC, Generic[DocumentT]):
    """Reads the rows of one table as documents; the table has `id` and `uid`, and its rows are never removed."""

    _table: Any

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    @abstractmethod
    def of(self, rows: Sequence[Any]) -> list[DocumentT]:
        """Return the documents of these rows, in their order."""

    @abstractmethod
    def _weight(self, row: Any) -> int:
        """Return about how many bytes a document has."""

    def _of_station(self, station_uid: UUID) -> Select[Any]:
        own = select(ExperimentRow.uid).where(ExperimentRow.station_uid == station_uid)
        return select(self._table).where(self._table.experiment_uid.in_(own))

    def listed(self, station_uid: UUID, *, after: UUID | None, limit: int) -> Read[DocumentT]:
        """Return documents of a station in the order of uids."""
        wanted = self._of_station(station_uid).order_by(self._table.uid)
        rows, is_all = self._streamed(wanted if after is None else wanted.where(self._table.uid > after), limit)
        return Read(self.of(rows), (0, rows[-1].uid) if rows else None, is_all)

    def changed(self, changes: Sequence[Change], *, limit: int) -> Read[DocumentT]:
        """Return the documents of rows that changed, each once."""
        found: dict[int, Any] = {}
        last: tuple[int, UUID] | None = None
        is_all, weight = True, 0
        table = self._table
        for change in changes:
            wanted = select(table).where(table.id.between(change.first_id, change.last_id)).order_by(table.id)
            rows, is_all = self._streamed(wanted, limit - len(found))
            found.update((row.id, row) for row in rows)
            weight += sum(map(self._weight, rows))
            last = (change.number, rows[-1].uid) if rows else last
            if not is_all or len(found) >= limit or weight > BATCH_BYTES:
                is_all = is_all and change is changes[-1]
                break
        return Read(self.of(list(found.values())), last, is_all)

    def id_of(self, uid: UUID) -> int | None:
        """Return the local key of a row."""
        wanted = select(self._table.id).where(self._table.uid == uid)
        return self._session.execute(wanted).scalar_one_or_none()

    def _streamed(self, wanted: Select[Any], limit: int) -> tuple[list[Any], bool]:
        rows: list[Any] = []
        weight = 0
        with self._session.scalars(wanted.limit(limit + 1), execution_options={"yield_per": _STREAMED}) as streamed:
            for row in streamed:
                if len(rows) == limit or weight > BATCH_BYTES:
                    return rows, False
                rows.append(row)
                weight += self._weight(row)
        return rows, True


def taken(
    session: Session,
    documents: Sequence[DocumentT],
    take: Callable[[Sequence[DocumentT]], Taken],
    refusal: Callable[[DocumentT, str], Refusal],
) -> Taken:
    """Take documents over; one that the database refuses does not keep the others out."""
    try:
        with session.begin_nested():
            return take(documents)
    except (IntegrityError, DataError) as error:
        if len(documents) == 1:
            reason = str(error.orig).splitlines()[0]
            return (), (refusal(documents[0], f"is not what the database takes: {reason}"),)
    done = [taken(session, [document], take, refusal) for document in documents]
    return [id_ for ids, _ in done for id_ in ids], [refused for _, more in done for refused in more]


def weight_of(metadata: Metadata) -> int:
    """Return about how many bytes metadata has."""
    return len(json.dumps(metadata))
