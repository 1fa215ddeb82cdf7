"""Telling the indexer which files have changed: in the transaction that changes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.orm import Session

from beamkeeper.db.changes import changed
from beamkeeper.db.files.tables import FileRow
from beamkeeper.db.search.tables import SearchChangeRow
from beamkeeper.domain.replication import Kind


def note_changed(session: Session, now: datetime, file_ids: Iterable[int]) -> None:
    """Let the index and the site's catalogue follow these files, by their local keys."""
    ids = list(file_ids)
    changed(session, Kind.FILES, ids)
    rows = [{"at": now, "first_id": first, "last_id": last} for first, last in _ranges(ids)]
    if rows:
        session.connection().execute(insert(SearchChangeRow.__table__), rows)  # type: ignore[arg-type]


def note_all(connection: Connection, now: datetime) -> None:
    """Let the index follow every file."""
    last = connection.execute(select(func.max(FileRow.id))).scalar_one()
    if last is not None:
        connection.execute(insert(SearchChangeRow).values(at=now, first_id=1, last_id=last))


def _ranges(ids: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield runs of numbers; those that follow one another closely are one: a few files too many cost little."""
    first = last = None
    for number in sorted(set(ids)):
        if first is None or last is None:
            first = last = number
        elif number <= last + 1:
            last = number
        else:
            yield first, last
            first = last = number
    if first is not None and last is not None:
        yield first, last
