"""Reading what the indexer counts: facets and statistics of the experiments within reach."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Integer, bindparam, func, select
from sqlalchemy.orm import Session

from beamkeeper.db.experiments import ExperimentRow
from beamkeeper.db.finding.limits import limited
from beamkeeper.db.finding.search import FileSearch
from beamkeeper.db.pages import from_cursor, to_cursor
from beamkeeper.db.scope import experiment_uids
from beamkeeper.db.search.tables import (
    BOOLEAN,
    DAY,
    DIRECTORY,
    NO_QUANTITY,
    TEXT,
    TYPE,
    SearchCountRow,
    SearchDimensionRow,
    SearchExperimentRow,
    SearchFacetRow,
    SearchKeyRow,
    SearchStatRow,
    SearchTermRow,
)
from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.stats import (
    Facet,
    FacetQuery,
    Facets,
    FacetValue,
    Moments,
    NumberFacet,
    Stat,
    StatPage,
    StatsBy,
    StatsQuery,
)
from beamkeeper.domain.users import Reach

_KINDS = {StatsBy.DIRECTORY: DIRECTORY, StatsBy.TYPE: TYPE, StatsBy.DAY: DAY}
_PART = 5_000
"""So many files are named in one query."""

Tally = dict[tuple[int, str], int]
"""How many files have a text, by key and text."""


class Statistics:
    """Queries on what is counted, for somebody with this reach."""

    def __init__(self, session: Session, now: datetime, reach: Reach) -> None:
        self._session = session
        self._now = now
        self._reach = reach

    def facets(self, query: FacetQuery, *, behind: int) -> Facets:
        """Return the values of keys: as they are counted, or with conditions those of the first hits."""
        found = self._session.execute(select(SearchKeyRow.key, SearchKeyRow.id).where(SearchKeyRow.key.in_(query.keys)))
        keys: dict[str, int] = dict(found.all())
        is_plain = query.files == FileQuery(experiment_uid=query.files.experiment_uid)
        counted, is_sample = None, False
        if is_plain:
            texts, numbers = self._counted(list(keys.values()), query.files.experiment_uid)
        else:
            hits = FileSearch(self._session, self._now, query.files, self._reach).hits(query.hits)
            with limited(self._session):
                texts, numbers = self._of_files(list(keys.values()), hits.ids)
            counted, is_sample = len(hits.ids), hits.next is not None
        return Facets(
            facets=[self._facet(key, keys.get(key), texts, numbers, query.limit) for key in query.keys],
            is_sample=is_sample,
            counted=counted,
            index_behind=behind,
        )

    def page(self, query: StatsQuery, *, behind: int) -> StatPage:
        """Return a page of files and bytes by experiment, directory, type or day."""
        row = SearchExperimentRow
        total = select(func.coalesce(func.sum(row.files), 0), func.coalesce(func.sum(row.bytes), 0))
        files, size = self._session.execute(total.where(*self._within(query.experiment_uid))).one()
        if query.by is StatsBy.EXPERIMENT:
            wanted = self._by_experiment(query)
            rows = self._session.execute(wanted.limit(query.limit + 1)).all()
            items = [
                Stat(name=name, experiment_uid=uid, files=count, bytes=int(held)) for name, uid, count, held in rows
            ]
        else:
            rows = self._session.execute(self._by_name(query).limit(query.limit + 1)).all()
            items = [Stat(name=name, files=int(count), bytes=int(held)) for name, count, held in rows]
        last = items[query.limit - 1] if len(rows) > query.limit else None
        return StatPage(
            items=items[: query.limit],
            files=int(files),
            bytes=int(size),
            next=None if last is None else to_cursor(last.name, str(last.experiment_uid or "")),
            index_behind=behind,
        )

    def _within(self, experiment_uid: UUID | None) -> list[ColumnElement[bool]]:
        """Return what an experiment of the index has to meet: to be there, within reach, and the one that is meant."""
        row = SearchExperimentRow
        deleted = select(ExperimentRow.uid).where(ExperimentRow.deleted_at.is_not(None))
        found: list[ColumnElement[bool]] = [row.uid.not_in(deleted)]
        if experiment_uid is not None:
            found = [row.uid == experiment_uid]
        if not self._reach.is_all:
            found.append(row.uid.in_(experiment_uids(self._reach, self._now)))
        return found

    def _by_experiment(self, query: StatsQuery) -> Any:
        row = SearchExperimentRow
        wanted: Any = (
            select(ExperimentRow.name, row.uid, row.files, row.bytes)
            .join(ExperimentRow, ExperimentRow.uid == row.uid)
            .where(row.files > 0, *self._within(query.experiment_uid))
            .order_by(ExperimentRow.name, row.uid)
        )
        if query.after is not None:
            name, uid = from_cursor(query.after, str, str)
            try:
                same = (ExperimentRow.name == name) & (row.uid > UUID(str(uid)))
            except ValueError as error:
                raise InvalidError("this is no cursor of this list: take the `next` of the page before") from error
            wanted = wanted.where((ExperimentRow.name > name) | same)
        return wanted

    def _by_name(self, query: StatsQuery) -> Any:
        row = SearchCountRow
        experiments = select(SearchExperimentRow.id).where(*self._within(query.experiment_uid))
        wanted: Any = (
            select(row.name, func.sum(row.files), func.sum(row.bytes))
            .where(row.kind == _KINDS[query.by], row.experiment_id.in_(experiments), row.files > 0)
            .group_by(row.name)
            .order_by(row.name)
        )
        if query.after is not None:
            wanted = wanted.where(row.name > from_cursor(query.after, str, str)[0])
        return wanted

    def _counted(self, keys: Sequence[int], experiment_uid: UUID | None) -> tuple[Tally, _Numbers]:
        experiments = self._session.scalars(select(SearchExperimentRow.id).where(*self._within(experiment_uid))).all()
        facet, texts = SearchFacetRow, defaultdict[tuple[int, str], int](int)
        wanted = (
            select(facet.key_id, facet.text, func.sum(facet.files))
            .where(facet.experiment_id.in_(experiments), facet.key_id.in_(keys), facet.files > 0)
            .group_by(facet.key_id, facet.text)
        )
        for key_id, text, files in self._session.execute(wanted):
            texts[key_id, text] = int(files)
        numbers = _Numbers()
        stat = SearchStatRow
        for row in self._session.scalars(
            select(stat).where(stat.key_id.in_(keys), stat.experiment_id.in_(experiments), stat.terms > 0)
        ):
            if row.dimension == TEXT:
                numbers.other[row.key_id] += row.other
            else:
                numbers.add(row.key_id, row.dimension, _moments(row))
        return texts, numbers

    def _of_files(self, keys: Sequence[int], ids: Sequence[int]) -> tuple[Tally, _Numbers]:
        term, texts, numbers = SearchTermRow, defaultdict[tuple[int, str], int](int), _Numbers()
        for part in _parts(ids):
            # The sum keeps a database from walking all terms of a key, of every file, to meet those of a few.
            # Numbers of our own, in the statement itself: a thousand bound one by one cost some milliseconds.
            of_part = bindparam(None, part, Integer(), expanding=True, literal_execute=True)
            meant = (term.file_id.in_(of_part), (term.key_id + 0).in_(keys))
            counts = select(term.key_id, term.text, func.count()).where(*meant, term.text.is_not(None))
            for key_id, text, files in self._session.execute(counts.group_by(term.key_id, term.text)):
                texts[key_id, text or ""] += files
            values = select(term.key_id, term.dimension, term.num).where(*meant, term.num.is_not(None))
            found: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
            for key_id, dimension, num in self._session.execute(values):
                found[key_id, dimension].append(num or 0.0)
            for (key_id, dimension), values_ in found.items():
                numbers.add(key_id, dimension, _moments_of(values_))
        return texts, numbers

    def _facet(self, key: str, key_id: int | None, texts: Tally, numbers: _Numbers, limit: int) -> Facet:
        if key_id is None:
            return Facet(key=key, values=(), other=0, numbers=())
        own = {text: files for (of, text), files in texts.items() if of == key_id}
        truths = numbers.moments.get((key_id, BOOLEAN))
        if truths is not None and truths.mean is not None:
            yes = round(truths.mean * truths.count)
            own |= {name: own.get(name, 0) + n for name, n in (("true", yes), ("false", truths.count - yes)) if n}
        first = sorted(own.items(), key=lambda item: (-item[1], item[0]))
        return Facet(
            key=key,
            values=[FacetValue(value=text, files=files) for text, files in first[:limit]],
            other=numbers.other[key_id] + sum(files for _, files in first[limit:]),
            numbers=[
                NumberFacet(
                    dimension=self._dimensions[dimension],
                    files=found.count,
                    low=found.low,
                    high=found.high,
                    mean=found.mean,
                    deviation=found.deviation,
                )
                for (of, dimension), found in sorted(numbers.moments.items())
                if of == key_id and dimension != BOOLEAN
            ],
        )

    @property
    def _dimensions(self) -> Mapping[int, str]:
        found: dict[int, str] = dict(
            self._session.execute(select(SearchDimensionRow.id, SearchDimensionRow.name)).all()
        )
        return {**{number: name for name, number in NO_QUANTITY.items()}, **found}


class _Numbers:
    """The numbers of keys by dimension, and how many texts are not counted one by one."""

    def __init__(self) -> None:
        self.moments: dict[tuple[int, int], Moments] = {}
        self.other: defaultdict[int, int] = defaultdict(int)

    def add(self, key_id: int, dimension: int, more: Moments) -> None:
        known = self.moments.get((key_id, dimension))
        self.moments[key_id, dimension] = more if known is None else known.plus(more)


def _moments(row: SearchStatRow) -> Moments:
    count = row.terms
    mean = squares = None
    if row.shift is not None and row.total is not None:
        mean = row.shift + row.total / count
        if row.squares is not None:
            squares = max(0.0, row.squares - row.total * row.total / count)
    return Moments(count=count, mean=mean, squares=squares, low=row.low or 0.0, high=row.high or 0.0)


def _moments_of(values: Sequence[float]) -> Moments:
    shift = values[0]
    total, squares = sum(x - shift for x in values), sum((x - shift) ** 2 for x in values)
    count = len(values)
    apart = squares - total * total / count
    return Moments(count=count, mean=shift + total / count, squares=apart, low=min(values), high=max(values))


def _parts(ids: Iterable[int]) -> Iterator[Sequence[int]]:
    ordered = sorted(ids)
    for start in range(0, len(ordered), _PART):
        yield ordered[start : start + _PART]
