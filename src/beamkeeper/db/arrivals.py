"""What an experiment's DAQs and uploads have seen and not delivered, counted by directory."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select, tuple_
from sqlalchemy.orm import Session, aliased

from beamkeeper.db.acquisition import AcquisitionRow
from beamkeeper.db.journal_rows import JournalRow
from beamkeeper.db.pages import from_cursor, to_cursor
from beamkeeper.domain.acquisition import UNCHANGED, JournalState
from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.ledger import DirectoryTally, DirectoryTallyPage
from beamkeeper.domain.names import from_b64, to_b64

J = JournalState
PAGE_ROWS = 5000
"""At least so many counts on a page; a directory's counts are never parted."""


class Arrivals:
    """Queries on the journal for a whole experiment."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def directories(self, experiment_uid: UUID, after: str | None = None, rows: int = PAGE_ROWS) -> DirectoryTallyPage:
        """Return counts of what is not delivered, by directory of the experiment; a directory may come again."""
        wanted = _counts().where(AcquisitionRow.experiment_uid == experiment_uid, *_undelivered())
        if after is not None:
            wanted = wanted.where(tuple_(AcquisitionRow.uid, JournalRow.directory) > _after(after))
        found = self._session.execute(wanted.limit(rows + 1)).all()
        if len(found) <= rows:
            return DirectoryTallyPage(items=tuple(_tally(row) for row in found))
        # The next page begins with the directory that this one would have cut; one that fills a page is read whole.
        beyond = found[rows]
        shown = [row for row in found[:rows] if _key(row) != _key(beyond)]
        if not shown:
            whole = wanted.where(AcquisitionRow.uid == beyond.uid, JournalRow.directory == beyond.directory)
            shown = list(self._session.execute(whole))
        cursor = to_cursor(shown[-1].uid.hex, to_b64(shown[-1].directory))
        return DirectoryTallyPage(items=tuple(_tally(row) for row in shown), next=cursor)


def _key(row: Any) -> tuple[UUID, bytes]:
    return row.uid, row.directory


def _counts() -> Select[UUID, str, str, bytes, str, str, bool, int, int]:
    a, j = AcquisitionRow, JournalRow
    groups = (a.uid, a.tree, a.destination, j.directory, j.state, j.reason_code)
    was_available = j.available_at.is_not(None)
    return (
        select(*groups, was_available.label("was_available"), func.count(), func.coalesce(func.sum(j.size), 0))
        .join(j, j.acquisition_uid == a.uid)
        .group_by(*groups, was_available)
        .order_by(a.uid, j.directory, j.state, j.reason_code, was_available)
    )


def _undelivered() -> list[ColumnElement[bool]]:
    """Return what a row has to meet: it is not delivered, and no other row says more of the same file.

    A later DAQ or upload of the same path says what holds now. What was skipped is not, where any has delivered it.
    """
    a, j = AcquisitionRow, JournalRow
    other, row = aliased(AcquisitionRow), aliased(JournalRow)
    is_later, is_skipped = other.id > a.id, j.state == J.SKIPPED
    is_delivered = or_(row.state == J.AVAILABLE, row.reason_code == UNCHANGED)
    says_more = exists().where(
        other.experiment_uid == a.experiment_uid,
        other.tree == a.tree,
        other.destination == a.destination,
        row.acquisition_uid == other.uid,
        row.path == j.path,
        or_(
            and_(is_later, or_(is_delivered, is_skipped, row.state != J.SKIPPED)),
            and_(is_skipped, is_delivered),
        ),
    )
    is_unchanged = and_(is_skipped, j.reason_code == UNCHANGED)
    return [j.state.in_(sorted(set(J) - {J.AVAILABLE})), ~is_unchanged, ~says_more]


def _tally(row: Any) -> DirectoryTally:
    parts = [row.tree.encode(), row.destination.encode(), row.directory]
    return DirectoryTally(
        path_b64=to_b64(b"/".join(part for part in parts if part)),
        state=J(row.state),
        reason_code=row.reason_code,
        was_available=row.was_available,
        files=row[7],
        bytes=int(row[8]),
    )


def _after(cursor: str) -> Any:
    uid, directory = from_cursor(cursor, str, str)
    try:
        return tuple_(UUID(hex=str(uid)), from_b64(str(directory)))
    except ValueError as error:
        raise InvalidError(f"{cursor[:80]!r} is no cursor of this list: take the `next` of the page before") from error
