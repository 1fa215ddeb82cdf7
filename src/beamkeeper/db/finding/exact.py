"""All files that a query means, whatever it takes: for what is deleted and brought back, nothing may be left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.orm import Session

from beamkeeper.db.files.tables import FileRow, VersionRow
from beamkeeper.db.finding.asked import IS_NEWEST, Asked
from beamkeeper.domain.files import FileCount, FileQuery
from beamkeeper.domain.query import meaning

_PART = 1000


class Exactly:
    """The files that a query means, by their documents and not by the index, which may be behind."""

    def __init__(self, session: Session, now: datetime, query: FileQuery, state: ColumnElement[bool]) -> None:
        self._session = session
        self._asked = Asked(session, now, meaning(query), None)
        self._where = [state, self._asked.must()]
        if query.experiment_uid is not None:
            self._where.append(FileRow.experiment_uid == query.experiment_uid)

    def count(self) -> FileCount:
        """Return how many they are, and how large together."""
        parts: Sequence[list[ColumnElement[bool]]] = [self._where]
        if self._asked.is_by_documents:
            parts = [[FileRow.id.in_(ids)] for ids in self.parts()]
        files = size = 0
        for where in parts:
            counted = _joined(func.count(), func.coalesce(func.sum(VersionRow.size), 0)).where(*where)
            more, larger = self._session.execute(counted).one()
            files, size = files + more, size + int(larger)
        return FileCount(files=files, bytes=size)

    def change(self, values: dict[str, Any]) -> list[int]:
        """Change these columns of their rows; return their local keys."""
        changed: list[int] = []
        for ids in list(self.parts()):
            statement = update(FileRow).where(FileRow.id.in_(ids)).values(values)
            self._session.execute(statement, execution_options={"synchronize_session": False})
            changed.extend(ids)
        return changed

    def parts(self) -> Iterator[Sequence[int]]:
        """Yield the local keys of the files, some at a time."""
        last = 0
        while True:
            wanted = _joined(FileRow.id).where(*self._where, FileRow.id > last).order_by(FileRow.id).limit(_PART)
            ids = list(self._session.scalars(wanted))
            if not ids:
                return
            last = ids[-1]
            yield list(self._asked.checked(ids)) if self._asked.is_by_documents else ids


def _joined(*columns: Any) -> Select[Any]:
    return select(*columns).select_from(FileRow).join(VersionRow, IS_NEWEST)
