"""Every query on the search index."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.orm import Session

from beamkeeper.db.experiments import ExperimentRow, ExperimentTypeRow
from beamkeeper.db.files.tables import FileRow
from beamkeeper.db.search.changes import note_all, note_changed
from beamkeeper.db.search.indexing import Indexing, lock_index
from beamkeeper.db.search.tables import (
    SearchChangeRow,
    SearchCountRow,
    SearchDimensionRow,
    SearchExperimentRow,
    SearchFacetRow,
    SearchFileRow,
    SearchKeyRow,
    SearchStatRow,
    SearchTermRow,
    SearchTextRow,
    SearchZoneRow,
)
from beamkeeper.domain.users import Reach

if TYPE_CHECKING:  # it searches files, and their queries tell the index of changes
    from beamkeeper.db.search.facets import Statistics

_INDEX = (
    SearchChangeRow,
    SearchKeyRow,
    SearchDimensionRow,
    SearchExperimentRow,
    SearchFileRow,
    SearchTermRow,
    SearchTextRow,
    SearchZoneRow,
    SearchCountRow,
    SearchFacetRow,
    SearchStatRow,
)


class Search:
    """Queries on the search index."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def step(self, limit: int) -> int:
        """Index up to so many of the files that have changed; return how many: fewer where there are no more.

        The indexer's, and nobody else's.
        """
        return Indexing(self._session, self._now).step(limit)

    def statistics(self, reach: Reach) -> Statistics:
        """Return the queries on what is counted, for somebody with this reach."""
        from beamkeeper.db.search.facets import Statistics

        return Statistics(self._session, self._now, reach)

    def oldest(self) -> datetime | None:
        """Return when the first of the files changed that have changed since they were indexed; None: there is none."""
        wanted = select(SearchChangeRow.at).order_by(SearchChangeRow.id).limit(1)
        return self._session.execute(wanted).scalar_one_or_none()

    def lag(self) -> tuple[int, datetime | None]:
        """Return about how many files have changed since they were indexed, and since when."""
        row = SearchChangeRow
        files = func.coalesce(func.sum(row.last_id - row.first_id + 1), 0)
        count, since = self._session.execute(select(files, func.min(row.at))).one()
        return int(count), since

    def follow_types(self) -> int:
        """Index anew the files of experiments whose types name other keys now; return of how many experiments."""
        own, known = SearchExperimentRow, ExperimentRow.uid == SearchExperimentRow.uid
        wanted = (
            select(own.id, own.uid, own.index_keys, ExperimentTypeRow.index_keys)
            .join(ExperimentRow, known)
            .outerjoin(ExperimentTypeRow, ExperimentTypeRow.name == ExperimentRow.type)
        )
        changed = [row for row in self._session.execute(wanted) if row[2] != row[3]]
        for id_, uid, _, keys in changed:
            self._session.execute(update(own).where(own.id == id_).values(index_keys=keys))
            self.note_experiment(uid)
        return len(changed)

    def note_experiment(self, uid: UUID) -> None:
        """Let the index follow every file of an experiment."""
        files = select(FileRow.id).where(FileRow.experiment_uid == uid).order_by(FileRow.id)
        for ids in self._session.scalars(files, execution_options={"yield_per": 10_000}).partitions():
            note_changed(self._session, self._now, ids)

    def rebuild(self) -> int:
        """Empty the index and let it follow every file anew; return about how many there are.

        Until it has, searches find only what is indexed already.
        """
        lock_index(self._session)
        for table in _INDEX:
            self._session.execute(delete(table))
        if self._session.get_bind().dialect.name == "sqlite":
            self._session.execute(text("INSERT INTO search_words (search_words) VALUES ('delete-all')"))
        note_all(self._session.connection(), self._now)
        return self.lag()[0]
