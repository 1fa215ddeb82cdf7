"""What the search index knows that a query needs: the numbers of its keys, and which files only their metadata tell."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Integer,
    Select,
    String,
    Uuid,
    bindparam,
    cast,
    false,
    func,
    literal_column,
    null,
    or_,
    select,
    union_all,
)
from sqlalchemy.orm import Session

from beamkeeper.db.experiments import ExperimentRow
from beamkeeper.db.files.tables import FileRow
from beamkeeper.db.kinds import one_of
from beamkeeper.db.scope import NAMED_AND_OPEN, experiment_uids, named_and_open
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
from beamkeeper.domain.users import Reach

PENDING = 5000
"""So many files that are not indexed yet are looked at one by one; where there are more, a search does without them."""
_RANGES = 200
_LISTED = 50
"""Of more than so many experiments within reach SQLite is told where they stand: each number costs microseconds."""

_KEY, _DIMENSION, _CHANGE, _PARTIAL, _TOP, _EXPERIMENTS = range(6)

_THERE = SearchExperimentRow.uid.not_in(select(ExperimentRow.uid).where(ExperimentRow.deleted_at.is_not(None)))
"""That an experiment is not deleted."""


def _asked(within: Sequence[ColumnElement[bool]]) -> CompoundSelect[Any]:
    """Return what asks for all that is known of some keys, dimensions and experiments.

    The rows are (kind, name, number, number, list); of experiments one for each list of keys, which few types of
    experiments have: a row for each experiment takes long to read.
    """
    keys, stats, dimensions, changes = SearchKeyRow, SearchStatRow, SearchDimensionRow, SearchChangeRow
    nothing, none, row = cast(null(), String()), cast(null(), BigInteger()), SearchExperimentRow

    def kind(number: int) -> Any:
        return literal_column(str(number), Integer())

    has_terms = (stats.key_id == keys.id) & (stats.terms > 0)
    of_keys = select(kind(_KEY), keys.key, keys.id, stats.dimension, nothing).distinct().outerjoin(stats, has_terms)
    of_dimensions = select(kind(_DIMENSION), dimensions.name, dimensions.id, none, nothing)
    newest = select(changes.first_id, changes.last_id).order_by(changes.id.desc()).limit(_RANGES + 1).subquery()
    partial = select(SearchFileRow.file_id).where(SearchFileRow.is_partial).limit(1).subquery()
    only, ids = cast(row.index_keys, String()), func.aggregate_strings(cast(row.id, String()), ",")
    return union_all(
        of_keys.where(keys.key.in_(bindparam("keys", expanding=True))),
        of_dimensions.where(dimensions.name.in_(bindparam("dimensions", expanding=True))),
        select(kind(_CHANGE), nothing, newest.c.first_id, newest.c.last_id, nothing),
        select(kind(_PARTIAL), nothing, partial.c.file_id, none, nothing),
        select(kind(_TOP), nothing, func.max(SearchFileRow.file_id), none, nothing),
        select(kind(_EXPERIMENTS), only, none, none, ids).where(*within).group_by(only),
    )


_ONE = SearchExperimentRow.uid == bindparam("only", type_=Uuid())
_OWN = SearchExperimentRow.uid.in_(NAMED_AND_OPEN)
_ASKED = {
    (is_one, is_own): _asked([_ONE if is_one else _THERE, *([_OWN] if is_own else [])])
    for is_one in (False, True)
    for is_own in (False, True)
}
"""Made once, and asked at once: to make each part, and to ask it, takes as long as what it finds."""


class Asking(NamedTuple):
    """What asks which experiments are within reach, and for all else that is known of the index."""

    statement: CompoundSelect[Any]
    values: Mapping[str, object]


def asking(reach: Reach, now: datetime, only: UUID | None, narrowed: Sequence[ColumnElement[bool]]) -> Asking:
    """Return what asks for the experiments within reach: for this one, or for all that meet these conditions."""
    one = {} if only is None else {"only": only}
    values = {} if reach.is_all else named_and_open(reach, now)
    if not narrowed and values is not None:
        return Asking(_ASKED[only is not None, not reach.is_all], {**values, **one})
    own = [] if reach.is_all else [SearchExperimentRow.uid.in_(experiment_uids(reach, now))]
    return Asking(_asked([_THERE if only is None else _ONE, *narrowed, *own]), one)


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
    top: int
    """The greatest number of a file."""
    dialect: str
    own: Sequence[ColumnElement[bool]]
    """What files meet that wait and are within reach, of experiments that the index may not know yet.

    Who may not read all files must not be told, by how many were looked at, how many of others wait.
    """

    def within(self, column: Any) -> ColumnElement[bool]:
        """Return the condition that an experiment's number is of one within reach."""
        return _within(column, self.ids, self.dialect, is_all=self.is_all)

    def within_uids(self, column: Any) -> ColumnElement[bool]:
        """Return the condition that an experiment's uid is of one within reach."""
        row = SearchExperimentRow
        return column.in_(select(row.uid).where(self.within(row.id)))  # type: ignore[no-any-return]

    def unsure(self, of: Any = FileRow.id, *, is_there: bool = False) -> ColumnElement[bool]:
        """Return the condition that only its metadata tells whether the file of this number is meant.

        It is joined with `search_files`, unless it is there for sure: then that is only where `has_unsure`.
        """
        found: list[ColumnElement[bool]] = [false() if is_there else SearchFileRow.file_id.is_(None)]
        if self.has_partial:
            found.append(SearchFileRow.is_partial.expression)
        if self.unsure_experiments:
            found.append(self._unsure_experiment())
        found.extend(of.between(first, last) for first, last in self.pending)
        return or_(*found)

    @property
    def has_unsure(self) -> bool:
        """Whether `search_files` says of any file that only its metadata tell of it."""
        return self.has_partial or bool(self.unsure_experiments)

    def unsure_ids(self) -> list[Select[Any]]:
        """Return the files that a search by the index must look at besides."""
        row, unknown = SearchFileRow, cast(null(), Integer()).label("experiment_id")
        waiting: Any = select(FileRow.id.label("file_id"), unknown)
        indexed: Any = select(row.file_id, row.experiment_id)
        found = [waiting.where(FileRow.id.between(first, last), *self.own) for first, last in self.pending]
        if self.has_partial:
            found.append(indexed.where(row.is_partial, self.within(row.experiment_id)))
        if self.unsure_experiments:
            found.append(indexed.where(self._unsure_experiment()))
        return found

    def _unsure_experiment(self) -> ColumnElement[bool]:
        numbers, is_postgres = self.unsure_experiments, self.dialect == "postgresql"
        return one_of(SearchFileRow.experiment_id, numbers, is_postgres=is_postgres)


def index_for(
    session: Session, leaves: Sequence[Leaf], experiments: Asking, own: Sequence[ColumnElement[bool]], *, is_all: bool
) -> Index:
    """Return what a search with these conditions needs to know.

    `experiments` says which experiments' rows count, and `own` which files'.
    """
    probes = [probe for leaf in leaves if not isinstance(leaf, Text) for probe in probes_of(leaf)]
    names = {probe.key for probe in probes}
    dimensions = {probe.dimension for probe in probes if isinstance(probe, Points | Span)} - NO_QUANTITY.keys()
    rows: dict[int, list[tuple[Any, ...]]] = {kind: [] for kind in range(_EXPERIMENTS + 1)}
    values = {**experiments.values, "keys": sorted(names), "dimensions": sorted(dimensions)}
    for kind, *row in session.execute(experiments.statement, values):
        rows[kind].append(tuple(row))
    waiting, is_behind = _waiting([(first, last) for _, first, last, _ in rows[_CHANGE]])
    ids, unsure = _experiments([(only, listed) for only, *_, listed in rows[_EXPERIMENTS]], names)
    return Index(
        keys={name: number for name, number, *_ in rows[_KEY]},
        dimensions={**NO_QUANTITY, **{name: number for name, number, *_ in rows[_DIMENSION]}},
        met=frozenset((number, dimension) for _, number, dimension, _ in rows[_KEY] if dimension is not None),
        ids=ids,
        is_all=is_all,
        unsure_experiments=unsure,
        has_partial=bool(leaves and rows[_PARTIAL]),
        pending=waiting,
        is_behind=is_behind,
        top=max([number or 0 for _, number, *_ in rows[_TOP]] + [last for _, last in waiting]),
        dialect=session.get_bind().dialect.name,
        own=own,
    )


def _within(column: Any, ids: Sequence[int], dialect: str, *, is_all: bool) -> ColumnElement[bool]:
    is_postgres = dialect == "postgresql"
    if is_all and len(ids) > _LISTED and not is_postgres:
        return column.in_(select(SearchExperimentRow.id))  # type: ignore[no-any-return]
    return one_of(column, ids, is_postgres=is_postgres)


def _experiments(found: Sequence[tuple[str | None, str]], names: Collection[str]) -> tuple[list[int], list[int]]:
    """Return the numbers of all experiments, and of those whose type leaves out a key of these names."""
    ids, unsure = [], []
    for only, listed in found:
        numbers = list(map(int, listed.split(",")))
        ids += numbers
        of_type = None if only is None else json.loads(only)
        if not all(terms.is_indexed(name, of_type) for name in names):
            unsure += numbers
    return sorted(ids), sorted(unsure)


def pending(session: Session) -> tuple[list[tuple[int, int]], bool]:
    """Return the files that may have changed since they were indexed, as ranges, or that there are too many."""
    row = SearchChangeRow
    newest = select(row.first_id, row.last_id).order_by(row.id.desc()).limit(_RANGES + 1)
    return _waiting([(first, last) for first, last in session.execute(newest)])


def _waiting(changes: Sequence[tuple[int, int]]) -> tuple[list[tuple[int, int]], bool]:
    ranges: list[tuple[int, int]] = []
    for first, last in sorted(changes):
        if ranges and first <= ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], max(last, ranges[-1][1]))
        else:
            ranges.append((first, last))
    if len(changes) > _RANGES or sum(last - first + 1 for first, last in ranges) > PENDING:
        return [], True
    return ranges, False
