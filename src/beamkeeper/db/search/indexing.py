"""The indexer's transaction: takes files that have changed, and brings their terms, words and counts up to date."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.orm import Session

from beamkeeper.db.bulk import insert_rows, take_ids
from beamkeeper.db.experiments import ExperimentRow, ExperimentTypeRow
from beamkeeper.db.files.tables import FileRow, VersionRow
from beamkeeper.db.kinds import one_of
from beamkeeper.db.search.counting import Counting, FileCounts
from beamkeeper.db.search.tables import (
    NO_QUANTITY,
    WORDS,
    SearchChangeRow,
    SearchDimensionRow,
    SearchExperimentRow,
    SearchFileRow,
    SearchKeyRow,
    SearchTermRow,
    SearchTextRow,
    experiment_word,
)
from beamkeeper.db.search.zones import widen_zones
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.terms import Terms, terms_of, words_of

MAX_KEYS = 100_000
"""So many different keys are indexed of all files together: metadata whose keys are data must not fill the tables."""

MAX_DIMENSIONS = 10_000

_LOCK = 7_001_002
"""PostgreSQL's advisory lock of the one indexer; any number that nobody else uses."""

_TERMS = ("file_id", "key_id", "ordinal", "dimension", "experiment_id", "num", "text")
_FILES = ("file_id", "experiment_id", "is_partial", "size", "modified_at", "directory_id", "type_id", "day_id")
_TEXTS = ("file_id", "experiment_id", "document")

TermRow = tuple[int, int, int, int, int, float | None, str | None]
"""A row of `search_terms`, in the order of _TERMS."""


class _Source(NamedTuple):
    """What the files' own tables say of a file that is to be in the index."""

    file_id: int
    experiment_uid: UUID
    path: str
    metadata: Metadata
    size: int
    modified_at: datetime


@dataclass(slots=True)
class _Experiment:
    id: int
    only: frozenset[str] | None


def lock_index(session: Session) -> None:
    """Wait until nobody else writes the index, and let nobody until this transaction ends."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(_LOCK)))


class Indexing:
    """One step of the indexer, in one transaction: it alone writes the index."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now
        self._is_postgres = session.get_bind().dialect.name == "postgresql"

    def step(self, limit: int) -> int:
        """Index up to so many of the files that have changed, those first that have waited longest; return how many.

        Of a file that changed several times each counts: where it is fewer than asked, there are no more.
        """
        if self._is_postgres and not self._session.scalar(select(func.pg_try_advisory_xact_lock(_LOCK))):
            return 0
        ids, changes = self._take(limit)
        if ids:
            self.index(ids)
        return max(len(ids), changes)

    def _take(self, limit: int) -> tuple[Sequence[int], int]:
        """Return the local keys of the next files, struck off the list of changes, and how many of those ended."""
        wanted = select(SearchChangeRow.id, SearchChangeRow.first_id, SearchChangeRow.last_id)
        taken: set[int] = set()
        done: list[int] = []
        for change, first, last in self._session.execute(wanted.order_by(SearchChangeRow.id).limit(limit)):
            room = limit - len(taken)
            if room <= 0:
                break
            if last - first >= room:
                taken.update(range(first, first + room))
                rest = update(SearchChangeRow).where(SearchChangeRow.id == change).values(first_id=first + room)
                self._session.execute(rest)
                break
            taken.update(range(first, last + 1))
            done.append(change)
        # By their keys, and not all up to one: others may have committed rows with smaller keys meanwhile.
        if done:
            self._session.execute(delete(SearchChangeRow).where(SearchChangeRow.id.in_(done)))
        return sorted(taken), len(done)

    def index(self, file_ids: Sequence[int]) -> None:
        """Bring the index up to date with these files, which may be hidden, changed, or not there at all."""
        counting = Counting(self._session)
        known = self._known(file_ids)
        if known:
            counting.take_off(known.values(), self._terms(known))
            self._forget(list(known))
        sources = self._sources(file_ids)
        if sources:
            self._write(sources, counting)
        counting.write()

    def _one_of(self, column: Any, file_ids: Sequence[int]) -> ColumnElement[bool]:
        return one_of(column, file_ids, is_postgres=self._is_postgres)

    def _known(self, file_ids: Sequence[int]) -> Mapping[int, FileCounts]:
        row = SearchFileRow
        wanted = select(row.file_id, row.experiment_id, row.size, row.directory_id, row.type_id, row.day_id)
        found = self._session.execute(wanted.where(self._one_of(row.file_id, file_ids)))
        return {file_id: FileCounts(*counts) for file_id, *counts in found}

    def _terms(self, file_ids: Iterable[int]) -> list[TermRow]:
        row = SearchTermRow
        columns = (row.file_id, row.key_id, row.ordinal, row.dimension, row.experiment_id, row.num, row.text)
        found = self._session.execute(select(*columns).where(self._one_of(row.file_id, list(file_ids))))
        return [tuple(each) for each in found]  # type: ignore[misc]

    def _forget(self, file_ids: Sequence[int]) -> None:
        if not self._is_postgres:
            # An FTS5 table that keeps no text of its own is told what to forget.
            row = SearchTextRow
            wanted = select(row.file_id, row.experiment_id, row.document).where(self._one_of(row.file_id, file_ids))
            statement = f"INSERT INTO {WORDS} ({WORDS}, rowid, experiment_id, document) VALUES ('delete', ?, ?, ?)"  # noqa: S608
            words = [tuple(each) for each in self._session.execute(wanted)]
            self._session.connection().exec_driver_sql(statement, words)
        for table in (SearchTextRow, SearchTermRow, SearchFileRow):
            self._session.execute(delete(table).where(self._one_of(table.file_id, file_ids)))

    def _sources(self, file_ids: Sequence[int]) -> list[_Source]:
        wanted = (
            select(
                FileRow.id,
                FileRow.experiment_uid,
                FileRow.path_shown,
                FileRow.metadata_,
                VersionRow.size,
                VersionRow.modified_at,
            )
            .join(VersionRow, (VersionRow.file_id == FileRow.id) & (VersionRow.number == FileRow.number))
            .where(self._one_of(FileRow.id, file_ids), FileRow.deleted_at.is_(None))
            .order_by(FileRow.id)
        )
        return [_Source(*row) for row in self._session.execute(wanted)]

    def _write(self, sources: Sequence[_Source], counting: Counting) -> None:
        experiments = self._experiments({source.experiment_uid for source in sources})
        terms = [terms_of(source.metadata, experiments[source.experiment_uid].only) for source in sources]
        rows, partial = self._term_rows(sources, terms, experiments)
        ids = [experiments[source.experiment_uid].id for source in sources]
        places = counting.places(
            [(id_, source.path, source.modified_at) for id_, source in zip(ids, sources, strict=True)]
        )
        files = [
            (source.file_id, id_, source.file_id in partial, source.size, source.modified_at, *place)
            for source, id_, place in zip(sources, ids, places, strict=True)
        ]
        counting.add([FileCounts(id_, size, *place) for _, id_, _, size, _, *place in files], rows)
        insert_rows(self._session, SearchFileRow, _FILES, files)
        insert_rows(self._session, SearchTermRow, _TERMS, rows)
        self._write_words(sources, ids)
        widen_zones(self._session, [(source.file_id, source.modified_at) for source in sources])

    def _term_rows(
        self, sources: Sequence[_Source], terms: Sequence[Terms], experiments: Mapping[UUID, _Experiment]
    ) -> tuple[list[TermRow], set[int]]:
        """Return the rows of terms, and the files of which not all values are in them."""
        keys = self._keys({term.key for found in terms for term in found.terms})
        dimensions = self._dimensions({term.dimension for found in terms for term in found.terms})
        rows: list[TermRow] = []
        partial = {source.file_id for source, found in zip(sources, terms, strict=True) if found.is_partial}
        for source, found in zip(sources, terms, strict=True):
            file_id, experiment_id = source.file_id, experiments[source.experiment_uid].id
            for key, ordinal, dimension, num, shown in found.terms:
                key_id, dimension_id = keys.get(key), dimensions.get(dimension)
                if key_id is None or dimension_id is None:
                    partial.add(file_id)
                else:
                    rows.append((file_id, key_id, ordinal, dimension_id, experiment_id, num, shown))
        return rows, partial

    def _write_words(self, sources: Sequence[_Source], experiment_ids: Sequence[int]) -> None:
        rows: list[tuple[int, int, str]] = []
        for source, experiment_id in zip(sources, experiment_ids, strict=True):
            words = words_of(source.path, source.metadata)
            if self._is_postgres:
                # A word of ours is of letters and digits alone, so that quotes are all it needs.
                document = " ".join(f"'{word}'" for word in (*words, experiment_word(experiment_id)))
            else:
                document = " ".join(words)
            rows.append((source.file_id, experiment_id, document))
        insert_rows(self._session, SearchTextRow, _TEXTS, rows)
        if not self._is_postgres:
            statement = f"INSERT INTO {WORDS} (rowid, experiment_id, document) VALUES (?, ?, ?)"  # noqa: S608
            self._session.connection().exec_driver_sql(statement, rows)

    def _experiments(self, uids: set[UUID]) -> Mapping[UUID, _Experiment]:
        row = SearchExperimentRow
        wanted = select(row.uid, row.id, row.index_keys).where(row.uid.in_(uids))
        found = {
            uid: _Experiment(id_, None if only is None else frozenset(only))
            for uid, id_, only in self._session.execute(wanted)
        }
        fresh = sorted(uids - found.keys())
        if fresh:
            only = self._index_keys(fresh)
            ids = take_ids(self._session, row, len(fresh))
            rows = [
                {"id": id_, "uid": uid, "files": 0, "bytes": 0, "index_keys": only.get(uid)}
                for id_, uid in zip(ids, fresh, strict=True)
            ]
            self._session.execute(insert(row), rows)
            for id_, uid in zip(ids, fresh, strict=True):
                keys = only.get(uid)
                found[uid] = _Experiment(id_, None if keys is None else frozenset(keys))
        return found

    def _index_keys(self, uids: Sequence[UUID]) -> Mapping[UUID, list[str]]:
        """Return the keys that these experiments' types name."""
        wanted = (
            select(ExperimentRow.uid, ExperimentTypeRow.index_keys)
            .join(ExperimentTypeRow, ExperimentTypeRow.name == ExperimentRow.type)
            .where(ExperimentRow.uid.in_(uids), ExperimentTypeRow.index_keys.is_not(None))
        )
        return {uid: keys for uid, keys in self._session.execute(wanted) if keys is not None}

    def _keys(self, keys: set[str]) -> Mapping[str, int]:
        return self._numbered(SearchKeyRow, SearchKeyRow.key, keys, MAX_KEYS)

    def _dimensions(self, names: set[str]) -> Mapping[str, int]:
        column = SearchDimensionRow.name
        quantities = self._numbered(SearchDimensionRow, column, names - NO_QUANTITY.keys(), MAX_DIMENSIONS)
        return {**NO_QUANTITY, **quantities}

    def _numbered(self, table: type[Any], column: Any, names: set[str], most: int) -> Mapping[str, int]:
        """Return the number of each name, given to it where it is new; none of names beyond the most there may be."""
        if not names:
            return {}
        rows = self._session.execute(select(column, table.id).where(column.in_(names)))
        found: dict[str, int] = dict(rows.all())
        if fresh := sorted(names - found.keys()):
            room = most - (self._session.scalar(select(func.count()).select_from(table)) or 0)
            fresh = fresh[: max(0, room)]
            ids = take_ids(self._session, table, len(fresh))
            insert_rows(self._session, table, ("id", column.key), list(zip(ids, fresh, strict=True)))
            found.update(zip(fresh, ids, strict=True))
        return found
