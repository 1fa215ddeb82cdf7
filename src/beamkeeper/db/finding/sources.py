"""The ways in which the search index finds the files of a query: one for each condition that it has an index for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, false, literal_column, or_, select, true

from beamkeeper.db.files.tables import FileRow
from beamkeeper.db.finding.builtins import builtin, linked, path_range
from beamkeeper.db.finding.compiled import WORD_ROWS, Compiler, is_builtin, is_whole
from beamkeeper.db.finding.indexed import Index
from beamkeeper.db.finding.windows import EXPERIMENT, Part
from beamkeeper.db.linked import DatasetRow, RunRow
from beamkeeper.db.search.counting import MAX_NAME
from beamkeeper.db.search.tables import (
    BY_EXPERIMENT,
    BY_VALUE,
    DIRECTORY,
    NO_QUANTITY,
    TYPE,
    SearchCountRow,
    SearchFacetRow,
    SearchFileRow,
    SearchStatRow,
    SearchTermRow,
    SearchTextRow,
)
from beamkeeper.domain.query.ast import And, Builtin, Compare, Glob, In, Leaf, Node, Not, Or, Text
from beamkeeper.domain.query.narrowing import common, suffixes, together, words_within
from beamkeeper.domain.query.probes import Below, Points, Probe, Shape, Span, probes_of


@dataclass(frozen=True)
class Way:
    """Parts that give, all together, every file that may meet a condition; none at all where no file can."""

    parts: Sequence[Part]
    is_of_words: bool = False
    """PostgreSQL's full text gives its files in no order, and reads the row of each: many take long."""
    met: Sequence[Node] = ()
    """The conditions of which it is made: nearly all of its files meet them."""
    is_exact: bool = False
    """Whether all of its files meet these conditions, as far as the index knows all of a file."""
    text: Text | None = None
    """The words that just these files have, where SQLite's full text gives them from the newest on."""

    @property
    def told(self) -> Sequence[Node]:
        """The conditions that need not be looked at again."""
        return self.met if self.is_exact else ()

    def selects(self, index: Index) -> list[Select[Any]]:
        """Return what gives the files that are within reach; of parts without an experiment, others too."""
        return [
            part.files
            if part.experiment is None
            else part.files.add_columns(part.experiment.label(EXPERIMENT)).where(
                index.within(part.experiment), *(part.together if index.is_all else part.apart)
            )
            for part in self.parts
        ]

    def probes(self, experiment: Any) -> list[ColumnElement[bool]] | None:
        """Return the conditions, any of which an experiment meets with such files; None where the index tells not."""
        if any(part.experiment is None for part in self.parts):
            return None
        return [false(), *(_has(part, experiment) for part in self.parts)]


_RANKED_EXPERIMENTS = 64
"""A full-text search names the experiments within reach to the index where they are not more than this."""
_VALUES = 10
_COLUMNS = {"size": SearchFileRow.size, "modified": SearchFileRow.modified_at}
_OF_FILES: dict[str, type[RunRow | DatasetRow]] = {"run": RunRow, "dataset": DatasetRow}
"""What lists files, all of its own experiment."""


class Sources:
    """Finds the ways, for one database, moment and state of the index."""

    def __init__(self, compiler: Compiler, index: Index, now: datetime, dialect: str) -> None:
        self._compiler = compiler
        self._index = index
        self._now = now
        self._dialect = dialect

    def ways(self, nodes: Sequence[Node]) -> list[Way]:
        """Return the ways to the files that meet all of these conditions; those of one range are one."""
        ranges = together(nodes, _COLUMNS)
        found = []
        for each in ranges:
            way = self._on_files(each) if isinstance(each[0].field, Builtin) else self._between(common(each))
            found.append(replace(way, met=each))
        joined = {leaf for each in ranges for leaf in each}
        rest = [node for node in nodes if node not in joined]
        return [*found, *(replace(way, met=_met(node, way)) for node in rest for way in self._of(node))]

    def _of(self, node: Node) -> list[Way]:
        match node:
            case Or(items):
                parts = [self._of(item) for item in items]
                if not parts or not all(parts):
                    return []
                ways = [part[0] for part in parts]
                every = [each for way in ways for each in way.parts]
                is_exact = all(way.is_exact for way in ways)
                return [Way(every, is_of_words=any(way.is_of_words for way in ways), is_exact=is_exact)]
            case And(items):
                return [replace(way, is_exact=False) for way in self.ways(items)]
            case Not():
                return []
            case _:
                return self._leaf(node)

    def _leaf(self, leaf: Leaf) -> list[Way]:
        if isinstance(leaf, Text):
            way = replace(self._with_words(self._compiler.matching(leaf, self._ranked)), is_exact=True)
            is_within_reach = self._index.is_all or bool(self._ranked)
            return [replace(way, text=leaf) if self._dialect == "sqlite" and is_within_reach else way]
        if is_builtin(leaf):
            return self._builtin(leaf)
        probes = probes_of(leaf)
        if any(isinstance(probe, Below) or (isinstance(probe, Shape) and not probe.prefix) for probe in probes):
            return []
        return [self._terms(probes)]

    def _terms(self, probes: Sequence[Probe]) -> Way:
        row = SearchTermRow
        parts = []
        for probe in chain.from_iterable(map(_one_by_one, probes)):
            asked = self._compiler.asked(probe, self._index, is_exact=False)
            if asked is not None:
                is_ordered = isinstance(probe, Points) and len(probe.values) == 1
                counted, of_others = self._compiler.counted(probe, self._index)
                extent = of_others or self._compiler.extent(probe, self._index)
                apart = BY_VALUE if isinstance(probe, Points) else BY_EXPERIMENT
                files = Part(select(row.file_id).where(*asked), row.experiment_id, is_ordered, extent, counted=counted)
                is_postgres = self._dialect == "postgresql"
                parts.append(files._replace(together=[BY_VALUE], apart=[apart]) if is_postgres else files)
        return Way(parts, is_exact=all(map(is_whole, probes)))

    def _between(self, probes: Sequence[Span]) -> Way:
        """Return the files with a value in one of the spans, and those with lists, whose items may lie around them."""
        way, row = self._terms(probes), SearchTermRow
        key_id = self._index.keys.get(probes[0].key)
        if key_id is None or not any(probe.dimension in NO_QUANTITY for probe in probes):
            return way
        zero: Any = literal_column("0")  # as the index has it, so that a database sees that it may use it
        lists = select(row.file_id).where(row.key_id == key_id, row.ordinal > zero, row.dimension <= zero)
        return Way([*way.parts, Part(lists, row.experiment_id)])

    @property
    def _ranked(self) -> Sequence[int]:
        index = self._index
        return index.ids if not index.is_all and len(index.ids) <= _RANKED_EXPERIMENTS else []

    def _with_words(self, is_met: ColumnElement[bool]) -> Way:
        is_sqlite, row = self._dialect == "sqlite", SearchTextRow
        found = WORD_ROWS.c.rowid.label("file_id") if is_sqlite else row.file_id
        # Many experiments are not named to the full text: what others write must not be told by what is looked at.
        is_own = self._index.is_all or bool(self._ranked)
        within = [] if is_own else [self._index.within(WORD_ROWS.c[EXPERIMENT] if is_sqlite else row.experiment_id)]
        return Way([Part(select(found).where(is_met, *within))], is_of_words=True)

    def _builtin(self, leaf: Leaf) -> list[Way]:
        if isinstance(leaf, Text) or not isinstance(leaf.field, Builtin):
            return []
        if isinstance(leaf, Compare | In | Glob) and leaf.field.name in _OF_FILES:
            found = linked(leaf, self._now, self._dialect, is_source=True)
            if not self._index.is_all:  # what others name so must not be told by how many files were looked at
                found = found.where(self._index.within_uids(_OF_FILES[leaf.field.name].experiment_uid))
            return [Way([Part(found)])]
        if isinstance(leaf, Compare) and leaf.field.name in _COLUMNS:
            return [self._on_files([leaf])]
        return [*self._by_path(leaf), *self._by_name(leaf), *self._by_count(leaf)]

    def _on_files(self, leaves: Sequence[Compare]) -> Way:
        row = SearchFileRow
        met = and_(*(builtin(leaf, self._now, self._dialect, _COLUMNS) for leaf in leaves))
        return Way([Part(select(row.file_id).where(met), row.experiment_id)])

    def _by_path(self, leaf: Leaf) -> list[Way]:
        if isinstance(leaf, Text) or leaf.field != Builtin("path"):
            return []
        paths = path_range(leaf)
        within = self._index.within_uids(FileRow.experiment_uid)
        if paths.compare(true()):
            return []
        return [Way([Part(select(FileRow.id.label("file_id")).where(within, paths))])]

    def _by_name(self, leaf: Leaf) -> list[Way]:
        words = words_within(leaf)
        return [self._with_words(self._compiler.matching(Text(" ".join(words)), self._ranked))] if words else []

    def _by_count(self, leaf: Leaf) -> list[Way]:
        """Return the files of directories and types that are counted under their names."""
        counted, row = SearchCountRow, SearchFileRow
        if types := suffixes(leaf):
            kind, of, names = TYPE, row.type_id, list(types)
        elif directories := _directories(leaf):
            kind, of, names = DIRECTORY, row.directory_id, [name[:MAX_NAME] for name in directories]
        else:
            return []
        meant = (counted.kind == kind, counted.name.in_(names), self._index.within(counted.experiment_id))
        return [Way([Part(select(row.file_id).where(of.in_(select(counted.id).where(*meant))))])]


def _has(part: Part, experiment: Any) -> ColumnElement[bool]:
    """Return the condition that an experiment may have such files: of numbers and most texts a small table tells."""
    row, facet = SearchStatRow, SearchFacetRow
    is_there = exists(part.of(experiment))
    if not part.extent:
        return is_there
    may_be = exists(select(row.key_id).where(row.experiment_id == experiment, *part.extent))
    if not part.counted:
        return may_be
    is_counted = exists(select(facet.key_id).where(facet.experiment_id == experiment, *part.counted))
    return or_(is_counted, and_(may_be, is_there))


def _met(node: Node, way: Way) -> Sequence[Node]:
    """Return a condition that nearly all files meet that the index gives for it, if it is one."""
    leaves = node.items if isinstance(node, Or) else (node,)
    return [node] if way.is_exact or all(isinstance(leaf, Compare | In | Text) for leaf in leaves) else []


def _one_by_one(probe: Probe) -> list[Probe]:
    """Return what asks for each of a few values alone: of that the index has the files in order."""
    if not isinstance(probe, Points) or len(probe.values) > _VALUES:
        return [probe]
    return [replace(probe, values=probe.values[i : i + 1]) for i in range(len(probe.values))]


def _directories(leaf: Leaf) -> Sequence[str]:
    match leaf:
        case Compare(Builtin("directory"), "=", str(value)):
            return [value]
        case In(Builtin("directory"), values):
            return [value for value in values if isinstance(value, str)]
        case _:
            return []
