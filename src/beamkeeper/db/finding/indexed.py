"""What the search index knows that a query needs: the numbers of its keys, and which files only their metadata tell."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, String, bindparam, cast, or_, select
from sqlalchemy.orm import Session

from beamkeeper.db.files.tables import FileRow
from beamkeeper.db.kinds import one_of
from beamkeeper.db.search.tables import (
    NO_QUANTITY,
    SearchChangeRow,
    SearchDimensionRow,
    SearchExperimentRow,
    SearchFileRow,
    SearchKeyRow,
    SearchStatRow,
)
from beamkeeper.domain import terms
from beamkeeper.domain.query.ast import Leaf, Text
from beamkeeper.domain.query.probes import Points, Span, probes_of

PENDING = 5000
"""So many files that are not indexed yet are looked at one by one; where there are more, a search does without them."""
_RANGES = 200
_LISTED = 50
"""Of more than so many experiments within reach SQLite is told where they stand: each number costs microseconds."""

# Made once: to make each of these takes as long as to ask it.
_HAS_TERMS = (SearchStatRow.key_id == SearchKeyRow.id) & (SearchStatRow.terms > 0)
_KEYS = (
    select(SearchKeyRow.key, SearchKeyRow.id, SearchStatRow.dimension)
    .distinct()
    .outerjoin(SearchStatRow, _HAS_TERMS)
    .where(SearchKeyRow.key.in_(bindparam("names", expanding=True)))
)
_DIMENSIONS = select(SearchDimensionRow.name, SearchDimensionRow.id).where(
    SearchDimensionRow.name.in_(bindparam("names", expanding=True))
)
_CHANGES = (
    select(SearchChangeRow.first_id, SearchChangeRow.last_id).order_by(SearchChangeRow.id.desc()).limit(_RANGES + 1)
)


@dataclass(frozen=True)
class Index:
    """What a search of some keys, by somebody with this reach, needs to know of the index."""

    keys: Mapping[str, int]
    dimensions: Mapping[str, int]
    met: frozenset[tuple[int, int]]
    """Which dimensions any term of a key has: most probes of a query end here."""
    ids: Sequence[int]
    """The numbers of the experiments within reach."""
    is_all: bool
    unsure_experiments: Sequence[int]
    """Those whose type leaves out a key that is asked for."""
    has_partial: bool
    pending: Sequence[tuple[int, int]]
    """Files that may have changed since they were indexed, as ranges of their numbers."""
    is_behind: bool
    """Whether there are more of those than can be looked at."""
    dialect: str

    def within(self, column: Any) -> ColumnElement[bool]:
        """Return the condition that an experiment's number is of one within reach."""
        return _within(column, self.ids, self.dialect, is_all=self.is_all)

    def within_uids(self, column: Any) -> ColumnElement[bool]:
        """Return the condition that an experiment's uid is of one within reach."""
        row = SearchExperimentRow
        return column.in_(select(row.uid).where(self.within(row.id)))  # type: ignore[no-any-return]

    def unsure(self) -> ColumnElement[bool]:
        """Return the condition that only its metadata tells whether a file is meant."""
        found: list[ColumnElement[bool]] = [SearchFileRow.file_id.is_(None)]
        if self.has_partial:
            found.append(SearchFileRow.is_partial.expression)
        if self.unsure_experiments:
            found.append(self._unsure_experiment())
        found.extend(FileRow.id.between(first, last) for first, last in self.pending)
        return or_(*found)

    def unsure_ids(self) -> list[Select[Any]]:
        """Return the files that a search by the index must look at besides."""
        found: list[Select[Any]] = [
            select(FileRow.id.label("file_id")).where(FileRow.id.between(first, last)) for first, last in self.pending
        ]
        row = SearchFileRow
        if self.has_partial:
            found.append(select(row.file_id).where(row.is_partial, self.within(row.experiment_id)))
        if self.unsure_experiments:
            found.append(select(row.file_id).where(self._unsure_experiment()))
        return found

    def _unsure_experiment(self) -> ColumnElement[bool]:
        numbers, is_postgres = self.unsure_experiments, self.dialect == "postgresql"
        return one_of(SearchFileRow.experiment_id, numbers, is_postgres=is_postgres)


def index_for(
    session: Session, leaves: Sequence[Leaf], within: Sequence[ColumnElement[bool]], *, is_all: bool
) -> Index:
    """Return what a search with these conditions needs to know; `within` says which experiments' rows count."""
    probes = [probe for leaf in leaves if not isinstance(leaf, Text) for probe in probes_of(leaf)]
    names = {probe.key for probe in probes}
    dimensions = {probe.dimension for probe in probes if isinstance(probe, Points | Span)} - NO_QUANTITY.keys()
    dialect = session.get_bind().dialect.name
    ids, unsure = _experiments(session, within, names)
    keys, met = _met(session, names)
    waiting, is_behind = pending(session)
    of_reach = _within(SearchFileRow.experiment_id, ids, dialect, is_all=is_all)
    partial = select(SearchFileRow.file_id).where(SearchFileRow.is_partial, of_reach)
    return Index(
        keys=keys,
        dimensions=_dimensions(session, dimensions),
        met=met,
        ids=ids,
        is_all=is_all,
        unsure_experiments=unsure,
        has_partial=bool(leaves) and session.execute(partial.limit(1)).first() is not None,
        pending=waiting,
        is_behind=is_behind,
        dialect=dialect,
    )


def _within(column: Any, ids: Sequence[int], dialect: str, *, is_all: bool) -> ColumnElement[bool]:
    is_postgres = dialect == "postgresql"
    if is_all and len(ids) > _LISTED and not is_postgres:
        return column.in_(select(SearchExperimentRow.id))  # type: ignore[no-any-return]
    return one_of(column, ids, is_postgres=is_postgres)


def _met(session: Session, names: Collection[str]) -> tuple[Mapping[str, int], frozenset[tuple[int, int]]]:
    """Return the numbers of keys, and which dimensions any term of each has."""
    rows = session.execute(_KEYS, {"names": sorted(names)}).all() if names else ()
    met = frozenset((number, dimension) for _, number, dimension in rows if dimension is not None)
    return {key: number for key, number, _ in rows}, met


def _dimensions(session: Session, names: Collection[str]) -> Mapping[str, int]:
    found: dict[str, int] = dict(session.execute(_DIMENSIONS, {"names": sorted(names)}).all()) if names else {}
    return {**NO_QUANTITY, **found}


def _experiments(
    session: Session, within: Sequence[ColumnElement[bool]], names: Collection[str]
) -> tuple[list[int], list[int]]:
    # Keys as text: a site has many experiments and few types, and to read the same list again for each takes long.
    row = SearchExperimentRow
    wanted = select(row.id, cast(row.index_keys, String()))
    found, unsure, is_whole = [], [], dict[str | None, bool]()
    for id_, only in session.execute(wanted.where(*within).order_by(row.uid)):
        found.append(id_)
        if only not in is_whole:
            keys = None if only is None else json.loads(only)
            is_whole[only] = all(terms.is_indexed(name, keys) for name in names)
        if not is_whole[only]:
            unsure.append(id_)
    return found, unsure


def pending(session: Session) -> tuple[list[tuple[int, int]], bool]:
    """Return the files that may have changed since they were indexed, as ranges, or that there are too many."""
    found = sorted((first, last) for first, last in session.execute(_CHANGES))
    ranges: list[tuple[int, int]] = []
    for first, last in found:
        if ranges and first <= ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], max(last, ranges[-1][1]))
        else:
            ranges.append((first, last))
    if len(found) > _RANGES or sum(last - first + 1 for first, last in ranges) > PENDING:
        return [], True
    return ranges, False
