"""The ways in which the search index finds the files of a query: one for each condition that it has an index for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, literal_column, select, true

from beamkeeper.db.files.tables import FileRow
from beamkeeper.db.finding.builtins import builtin, linked, path_range
from beamkeeper.db.finding.compiled import WORD_ROWS, Compiler, is_builtin
from beamkeeper.db.finding.indexed import Index
from beamkeeper.db.search.counting import MAX_NAME
from beamkeeper.db.search.tables import (
    DIRECTORY,
    NO_QUANTITY,
    TYPE,
    SearchCountRow,
    SearchFileRow,
    SearchTermRow,
    SearchTextRow,
)
from beamkeeper.domain.query.ast import And, Builtin, Compare, Glob, In, Leaf, Node, Not, Or, Text
from beamkeeper.domain.query.narrowing import common, suffixes, together, words_within
from beamkeeper.domain.query.probes import Below, Probe, Shape, Span, probes_of

Way = list[Select[Any]]
"""Selects that give, all together, every file that may meet a query; none at all where no file can."""

_RANKED_EXPERIMENTS = 64
"""A full-text search names the experiments within reach to the index where they are not more than this."""
_COLUMNS = {"size": SearchFileRow.size, "modified": SearchFileRow.modified_at}


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
        found = [
            self._on_files(each) if isinstance(each[0].field, Builtin) else self._between(common(each))
            for each in ranges
        ]
        joined = {leaf for each in ranges for leaf in each}
        return [*found, *(way for node in nodes if node not in joined for way in self._of(node))]

    def _of(self, node: Node) -> list[Way]:
        match node:
            case Or(items):
                parts = [self._of(item) for item in items]
                return [[select_ for part in parts for select_ in part[0]]] if parts and all(parts) else []
            case And(items):
                return self.ways(items)
            case Not():
                return []
            case _:
                return self._leaf(node)

    def _leaf(self, leaf: Leaf) -> list[Way]:
        if isinstance(leaf, Text):
            return [[self._with_words(self._compiler.matching(leaf, self._ranked))]]
        if is_builtin(leaf):
            return self._builtin(leaf)
        probes = probes_of(leaf)
        if any(isinstance(probe, Below) or (isinstance(probe, Shape) and not probe.prefix) for probe in probes):
            return []
        return [self._terms(probes)]

    def _terms(self, probes: Sequence[Probe]) -> Way:
        row, index = SearchTermRow, self._index
        asked = [self._compiler.asked(probe, index, is_exact=False) for probe in probes]
        return [select(row.file_id).where(*each, index.within(row.experiment_id)) for each in asked if each is not None]

    def _between(self, probes: Sequence[Span]) -> Way:
        """Return the files with a value in one of the spans, and those with lists, whose items may lie around them."""
        way, row, index = self._terms(probes), SearchTermRow, self._index
        key_id = index.keys.get(probes[0].key)
        if key_id is not None and any(probe.dimension in NO_QUANTITY for probe in probes):
            zero: Any = literal_column("0")  # as the index has it, so that a database sees that it may use it
            lists = (row.key_id == key_id, row.ordinal > zero, row.dimension <= zero)
            way.append(select(row.file_id).where(*lists, index.within(row.experiment_id)))
        return way

    @property
    def _ranked(self) -> list[int]:
        index = self._index
        return index.ids if not index.is_all and len(index.ids) <= _RANKED_EXPERIMENTS else []

    def _with_words(self, is_met: ColumnElement[bool]) -> Select[Any]:
        if self._dialect == "sqlite":
            return select(WORD_ROWS.c.rowid.label("file_id")).where(is_met)
        return select(SearchTextRow.file_id).where(is_met)

    def _builtin(self, leaf: Leaf) -> list[Way]:
        if isinstance(leaf, Text) or not isinstance(leaf.field, Builtin):
            return []
        if isinstance(leaf, Compare | In | Glob) and leaf.field.name in ("run", "dataset"):
            return [[linked(leaf, self._now, self._dialect, is_source=True)]]
        if isinstance(leaf, Compare) and leaf.field.name in _COLUMNS:
            return [self._on_files([leaf])]
        return [*self._by_path(leaf), *self._by_name(leaf), *self._by_count(leaf)]

    def _on_files(self, leaves: Sequence[Compare]) -> Way:
        row = SearchFileRow
        met = and_(*(builtin(leaf, self._now, self._dialect, _COLUMNS) for leaf in leaves))
        return [select(row.file_id).where(met, self._index.within(row.experiment_id))]

    def _by_path(self, leaf: Leaf) -> list[Way]:
        if isinstance(leaf, Text) or leaf.field != Builtin("path"):
            return []
        paths = path_range(leaf)
        within = self._index.within_uids(FileRow.experiment_uid)
        return [] if paths.compare(true()) else [[select(FileRow.id.label("file_id")).where(within, paths)]]

    def _by_name(self, leaf: Leaf) -> list[Way]:
        words = words_within(leaf)
        if not words:
            return []
        return [[self._with_words(self._compiler.matching(Text(" ".join(words)), self._ranked))]]

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
        return [[select(row.file_id).where(of.in_(select(counted.id).where(*meant)))]]


def _directories(leaf: Leaf) -> Sequence[str]:
    match leaf:
        case Compare(Builtin("directory"), "=", str(value)):
            return [value]
        case In(Builtin("directory"), values):
            return [value for value in values if isinstance(value, str)]
        case _:
            return []
