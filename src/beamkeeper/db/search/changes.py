"""Telling the indexer which files have changed: in the transaction that changes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.orm import Session

from beamkeeper.db.files.tables import FileRow
from beamkeeper.db.search.tables import SearchChangeRow


def note_changed(session: Session, now: datetime, file_ids: Iterable[int]) -> None:
    """Let the index follow these files, by their local keys."""
    rows = [{"at": now, "first_id": first, "last_id": last} for first, last in _ranges(file_ids)]
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
