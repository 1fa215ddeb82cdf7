"""What is counted as files come into the index and leave it: files, bytes, facets and statistics of each experiment."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, cast

from sqlalchemy import Table, bindparam, func, select, tuple_, update
from sqlalchemy.orm import Session

from beamkeeper.db.base import upsert
from beamkeeper.db.bulk import insert_rows, take_ids
from beamkeeper.db.search.tables import (
    BY_EXPERIMENT,
    DAY,
    DIRECTORY,
    TEXT,
    TYPE,
    SearchCountRow,
    SearchExperimentRow,
    SearchFacetRow,
    SearchStatRow,
    SearchTermRow,
)

MAX_TEXTS = 100
"""So many different texts of a key are counted one by one in an experiment: the first that come; the rest together."""

MAX_NAME = 600
"""The name of a directory is counted by so many characters."""

MAX_SUFFIX = 16

_COUNTS = ("id", "experiment_id", "kind", "name", "files", "bytes")
_FACETS = ("experiment_id", "key_id", "text", "files")

Place = tuple[int, int, int]
"""The rows of `search_counts` in which a file is counted: its directory, type and day."""


class FileCounts(NamedTuple):
    """Where a file is counted."""

    experiment_id: int
    size: int
    directory_id: int
    type_id: int
    day_id: int


class StatKey(NamedTuple):
    """The key of a row of `search_stats`."""

    key_id: int
    experiment_id: int
    dimension: int


@dataclass(slots=True)
class _Numbers:
    """The numbers that come to a row of statistics, and those that leave it."""

    came: list[float] = field(default_factory=list)
    left: list[float] = field(default_factory=list)


class Counting:
    """Collects what comes and goes, and writes it at the end."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._files: Counter[int] = Counter()
        self._bytes: Counter[int] = Counter()
        self._files_of: Counter[int] = Counter()
        self._bytes_of: Counter[int] = Counter()
        self._numbers: defaultdict[StatKey, _Numbers] = defaultdict(_Numbers)
        self._texts: defaultdict[tuple[int, int], Counter[str]] = defaultdict(Counter)

    def add(self, files: Iterable[FileCounts], terms: Iterable[Sequence[Any]]) -> None:
        """Count files and rows of terms that come."""
        self._count(files, 1)
        for _, key_id, _, dimension, experiment_id, num, text in terms:
            if dimension == TEXT:
                self._texts[key_id, experiment_id][text] += 1
            else:
                self._numbers[StatKey(key_id, experiment_id, dimension)].came.append(num)

    def take_off(self, files: Iterable[FileCounts], terms: Iterable[Sequence[Any]]) -> None:
        """Count files and rows of terms that leave."""
        self._count(files, -1)
        for _, key_id, _, dimension, experiment_id, num, text in terms:
            if dimension == TEXT:
                self._texts[key_id, experiment_id][text] -= 1
            else:
                self._numbers[StatKey(key_id, experiment_id, dimension)].left.append(num)

    def _count(self, files: Iterable[FileCounts], sign: int) -> None:
        for experiment_id, size, *places in files:
            self._files_of[experiment_id] += sign
            self._bytes_of[experiment_id] += sign * size
            for place in places:
                self._files[place] += sign
                self._bytes[place] += sign * size

    def places(self, files: Sequence[tuple[int, str, datetime]]) -> Sequence[Place]:
        """Return where files are to be counted, by their experiments, paths and times; made where it is new."""
        named = [
            ((id_, DIRECTORY, _directory(path)), (id_, TYPE, _suffix(path)), (id_, DAY, f"{at:%Y-%m-%d}"))
            for id_, path, at in files
        ]
        wanted = {name for names in named for name in names}
        row = SearchCountRow
        key = tuple_(row.experiment_id, row.kind, row.name)
        found: dict[tuple[int, int, str], int] = {
            (experiment_id, kind, name): id_
            for experiment_id, kind, name, id_ in self._session.execute(
                select(row.experiment_id, row.kind, row.name, row.id).where(key.in_(sorted(wanted)))
            )
        }
        fresh = sorted(wanted - found.keys())
        if fresh:
            ids = take_ids(self._session, row, len(fresh))
            insert_rows(self._session, row, _COUNTS, [(id_, *name, 0, 0) for id_, name in zip(ids, fresh, strict=True)])
            found.update(zip(fresh, ids, strict=True))
        return [(found[directory], found[type_], found[day]) for directory, type_, day in named]

    def write(self) -> None:
        """Write what was collected, after the terms themselves."""
        self._add_to(SearchCountRow, self._files, self._bytes)
        self._add_to(SearchExperimentRow, self._files_of, self._bytes_of)
        self._write_texts()
        self._write_numbers()

    def _add_to(self, row: type[Any], files: Counter[int], size: Counter[int]) -> None:
        table = cast(Table, row.__table__)
        rows = [{"at": id_, "f": files[id_], "b": size[id_]} for id_ in sorted(files) if files[id_] or size[id_]]
        if rows:
            statement = update(table).where(table.c.id == bindparam("at"))
            more = {"files": table.c.files + bindparam("f"), "bytes": table.c.bytes + bindparam("b")}
            self._session.connection().execute(statement.values(more), rows)

    def _write_texts(self) -> None:
        """Count texts one by one as long as there are few; a text that is counted so once stays so, at zero too.

        So a text is counted either in a row of its own from its first on, or never: what it takes off when it leaves
        is where it was added.
        """
        if not self._texts:
            return
        counted = self._counted()
        changed: list[dict[str, Any]] = []
        fresh: list[tuple[int, int, str, int]] = []
        stats: list[dict[str, Any]] = []
        for (key_id, experiment_id), texts in self._texts.items():
            here = counted[experiment_id, key_id]
            other = 0
            for text, count in texts.items():
                if text in here:
                    if count:
                        changed.append({"e": experiment_id, "k": key_id, "t": text, "n": count})
                elif len(here) < MAX_TEXTS:
                    here.add(text)
                    fresh.append((experiment_id, key_id, text, count))
                else:
                    other += count
            stats.append({"at_key": key_id, "at_experiment": experiment_id, "n": texts.total(), "o": other})
        self._add_to_facets(changed)
        insert_rows(self._session, SearchFacetRow, _FACETS, fresh)
        self._add_to_texts(stats)

    def _counted(self) -> defaultdict[tuple[int, int], set[str]]:
        row = SearchFacetRow
        found: defaultdict[tuple[int, int], set[str]] = defaultdict(set)
        wanted = [(experiment_id, key_id) for key_id, experiment_id in self._texts]
        rows = self._session.execute(
            select(row.experiment_id, row.key_id, row.text).where(tuple_(row.experiment_id, row.key_id).in_(wanted))
        )
        for experiment_id, key_id, text in rows:
            found[experiment_id, key_id].add(text)
        return found

    def _add_to_facets(self, rows: Sequence[dict[str, Any]]) -> None:
        if rows:
            table = cast(Table, SearchFacetRow.__table__)
            at = (
                (table.c.experiment_id == bindparam("e"))
                & (table.c.key_id == bindparam("k"))
                & (table.c.text == bindparam("t"))
            )
            statement = update(table).where(at).values(files=table.c.files + bindparam("n"))
            self._session.connection().execute(statement, rows)

    def _add_to_texts(self, rows: Sequence[dict[str, Any]]) -> None:
        row = SearchStatRow
        at = [StatKey(each["at_key"], each["at_experiment"], TEXT) for each in rows]
        known = self._stats(at)
        values = [
            _stat_values(key, known.get(key))
            | {
                "terms": (known[key].terms if key in known else 0) + each["n"],
                "other": (known[key].other if key in known else 0) + each["o"],
            }
            for key, each in zip(at, rows, strict=True)
        ]
        upsert(self._session, row, values, key=("key_id", "experiment_id", "dimension"))

    def _stats(self, keys: Iterable[StatKey]) -> dict[StatKey, SearchStatRow]:
        row = SearchStatRow
        at = tuple_(row.key_id, row.experiment_id, row.dimension)
        found = self._session.scalars(select(row).where(at.in_([tuple(key) for key in keys])))
        return {StatKey(stat.key_id, stat.experiment_id, stat.dimension): stat for stat in found}

    def _write_numbers(self) -> None:
        known = self._stats(self._numbers)
        rows = []
        for key, numbers in self._numbers.items():
            values = _stat_values(key, known.get(key))
            _change(values, numbers)
            if numbers.left and values["terms"]:
                low, high = values["low"], values["high"]
                if any(number <= low or number >= high for number in numbers.left):
                    values["low"], values["high"] = self._extremes(key)
            rows.append(values)
        upsert(self._session, SearchStatRow, rows, key=("key_id", "experiment_id", "dimension"))

    def _extremes(self, key: StatKey) -> tuple[float | None, float | None]:
        row = SearchTermRow
        meant = (row.key_id == key.key_id, row.experiment_id == key.experiment_id, row.num.is_not(None))
        wanted = select(func.min(row.num), func.max(row.num)).where(
            *meant, row.dimension == key.dimension, BY_EXPERIMENT
        )
        low, high = self._session.execute(wanted).one()
        return low, high


def _stat_values(key: StatKey, stat: SearchStatRow | None) -> dict[str, Any]:
    names = ("terms", "other", "shift", "total", "squares", "low", "high")
    known = {name: getattr(stat, name) if stat else 0 if name in ("terms", "other") else None for name in names}
    return {**key._asdict(), **known}


def _change(values: dict[str, Any], numbers: _Numbers) -> None:
    """Add numbers to statistics and take others off; a row that has none any more begins anew."""
    terms = values["terms"]
    if not terms and numbers.came:
        values.update(shift=numbers.came[0], total=0.0, squares=0.0, low=numbers.came[0], high=numbers.came[0])
    shift, total, squares = values["shift"], values["total"], values["squares"]
    came = [number - shift for number in numbers.came]
    left = [number - shift for number in numbers.left]
    if total is not None:
        total = _finite(total + sum(came) - sum(left))
    if squares is not None:
        squares = _finite(squares + sum(x * x for x in came) - sum(x * x for x in left))
    values.update(terms=terms + len(came) - len(left), total=total, squares=squares)
    if numbers.came:
        values.update(low=min(values["low"], *numbers.came), high=max(values["high"], *numbers.came))
    if not values["terms"]:
        values.update(shift=None, total=None, squares=None, low=None, high=None)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _directory(path: str) -> str:
    return path.rpartition("/")[0][:MAX_NAME]


def _suffix(path: str) -> str:
    """Return the suffix by which files are counted; what numbers the frames is none."""
    stem, _, suffix = path.rpartition("/")[2].rpartition(".")
    is_usual = stem and len(suffix) <= MAX_SUFFIX and suffix.isalnum() and not suffix.isdigit()
    return suffix.lower() if is_usual else ""
