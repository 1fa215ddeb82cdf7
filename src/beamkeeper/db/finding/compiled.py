"""From a query to SQL: what a file must meet, what it surely meets, and which parts of that the index can find."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Double,
    Integer,
    Select,
    SmallInteger,
    and_,
    cast,
    column,
    exists,
    false,
    literal,
    not_,
    or_,
    select,
    table,
    true,
)

from beamkeeper.db.files.tables import FileRow
from beamkeeper.db.finding.builtins import TEXT, YES_OR_NO, builtin, glob_matches, of_experiments
from beamkeeper.db.finding.indexed import Index
from beamkeeper.db.search.tables import (
    BY_VALUE,
    NO_QUANTITY,
    WORDS,
    SearchFacetRow,
    SearchKeyRow,
    SearchStatRow,
    SearchTermRow,
    SearchTextRow,
    experiment_word,
)
from beamkeeper.domain import terms
from beamkeeper.domain.query.ast import And, Builtin, Compare, Glob, Leaf, Matches, Node, Not, Or, Text
from beamkeeper.domain.query.evaluate import wanted_words
from beamkeeper.domain.query.probes import Below, Points, Probe, Shape, Span, probes_of
from beamkeeper.domain.query.regex import prefix_of

Condition = ColumnElement[bool]
_SMALL = SmallInteger()
_NUMBER: Double[float] = Double()
WORD_ROWS = table(WORDS, column("rowid", Integer()), column(WORDS, TEXT), column("experiment_id", Integer()))


def is_builtin(leaf: Leaf) -> bool:
    """Whether a condition is on a field that every file has: SQL alone tells."""
    return not isinstance(leaf, Text) and isinstance(leaf.field, Builtin)


class Given(NamedTuple):
    """Files of which the index alone is to tell what it can."""

    id: Any
    with_words: Mapping[Text, Any]
    """Whether they have some words, where that is known."""
    columns: Mapping[str, Any]
    """Of fields that every file has, those that are at hand."""
    unsure: Condition
    """Whether only its metadata tells of a file."""
    experiment: Any = None
    """The number of its experiment, where that is at hand."""


class Compiler:
    """Makes SQL of a query, for one database and one moment."""

    def __init__(self, dialect: str, now: datetime, index: Index | None, given: Given | None = None) -> None:
        self.dialect = dialect
        self._now = now
        self._index = index
        self._given = given
        self._of: Any = FileRow.id if given is None else given.id

    def met(self, node: Node, *, unknown: bool) -> Condition:
        """Return a query as SQL; what SQL cannot tell counts as `unknown`.

        With True this is what a file must meet to be meant, and with False what it meets only if it is meant.
        """
        match node:
            case And(items):
                return and_(true(), *(self.met(item, unknown=unknown) for item in items))
            case Or(items):
                return or_(false(), *(self.met(item, unknown=unknown) for item in items))
            case Not(item):
                return not_(self.met(item, unknown=not unknown))
            case _:
                return self._leaf(node, unknown)

    def _leaf(self, leaf: Leaf, unknown: bool) -> Condition:
        if is_builtin(leaf) and self._given is not None:
            return self._at_hand(leaf, self._given, unknown)
        if isinstance(leaf, Matches) and isinstance(leaf.field, Builtin):
            return self.builtin(Glob(leaf.field, glob_of(leaf.pattern))) if unknown else false()
        if is_builtin(leaf):
            return self.builtin(leaf)
        if self._index is None:
            return true() if unknown else false()
        if isinstance(leaf, Text):
            known = self._has_words(leaf)
        else:
            known = or_(false(), *(self._term(probe, self._index) for probe in probes_of(leaf)))
        if isinstance(leaf, Matches) and not unknown:
            return false()
        return _or_unsure(known, self._index.unsure() if self._given is None else self._given.unsure, unknown)

    def _at_hand(self, leaf: Leaf, given: Given, unknown: bool) -> Condition:
        if isinstance(leaf, Compare) and isinstance(leaf.field, Builtin) and leaf.field.name in given.columns:
            return _or_unsure(self.builtin(leaf, given.columns), given.unsure, unknown)
        return true() if unknown else false()

    def builtin(self, leaf: Leaf, columns: Mapping[str, Any] | None = None) -> Condition:
        """Return a condition on a field that every file has, or on other columns of the same meaning."""
        return builtin(leaf, self._now, self.dialect, columns)

    def experiments(self, leaf: Leaf, uid: Any) -> Condition:
        """Return a condition on the experiment or station of a file, for any column of experiments' uids."""
        return of_experiments(leaf, uid, self._now, self.dialect)

    def _term(self, probe: Probe, index: Index) -> Condition:
        """Return the condition that a file has a term that is asked for."""
        # Of one value the index that has all of it is looked up: the terms of a file lie far from those of others.
        row, given = SearchTermRow, self._given
        is_of_one = isinstance(probe, Points) and len(probe.values) == 1 and self.dialect == "postgresql"
        within: list[Condition] = []
        if is_of_one and given and given.experiment is not None:
            within = [row.experiment_id == given.experiment, BY_VALUE]
        asked = self.asked(probe, index, is_exact=not within)
        if asked is None:
            return false()
        return self._is_there(select(row.file_id).where(row.file_id == self._of, *within, *asked))

    def _is_there(self, wanted: Select[Any]) -> Condition:
        # The offset keeps PostgreSQL from reading all such terms, to have at hand those of a few thousand files.
        looked_up = wanted.offset(0) if self.dialect == "postgresql" else wanted
        return exists(looked_up.correlate(self._of.table))

    def asked(self, probe: Probe, index: Index, *, is_exact: bool = True) -> list[Condition] | None:
        """Return what a term must meet; without `is_exact` only what stands in the index of terms."""
        row = SearchTermRow
        if isinstance(probe, Below):
            keys = select(SearchKeyRow.id).where(
                or_(
                    SearchKeyRow.key == probe.key,
                    and_(SearchKeyRow.key > f"{probe.key}.", SearchKeyRow.key < f"{probe.key}/"),
                )
            )
            return [row.key_id.in_(keys)]
        key_id = index.keys.get(probe.key)
        if key_id is None:
            return None
        of_key: list[Condition] = [row.key_id == key_id]
        if isinstance(probe, Shape):
            return [*of_key, *self._shaped(probe, is_exact=is_exact)]
        dimension = index.dimensions.get(probe.dimension)
        if dimension is None or (key_id, dimension) not in index.met:
            return None
        of_dimension = literal(dimension, _SMALL)
        if is_exact:
            # Of one file, by its terms: the sum keeps SQLite, which has no statistics, from walking the index of
            # numbers for each file because more of its columns are named.
            of_key.append(row.dimension + 0 == of_dimension)
        elif probe.dimension != terms.TEXT:  # the index of numbers has it, since 12 and 12 keV in joule lie far apart
            of_key.append(row.dimension == of_dimension)
        return [*of_key, *_between(probe)]

    def extent(self, probe: Probe, index: Index) -> list[Condition]:
        """Return what the extremes of an experiment's numbers must meet for one of them to be asked for."""
        key_id = index.keys.get(probe.key)
        if key_id is None or not isinstance(probe, Points | Span):
            return []
        values = probe.values if isinstance(probe, Points) else _ends(probe)
        numbers = [value for value in values if isinstance(value, int | float)]
        if not numbers:
            return []
        row, (low, high) = SearchStatRow, (min(numbers), max(numbers)) if isinstance(probe, Points) else _ends(probe)
        found: list[Condition] = [row.key_id == key_id, row.dimension == index.dimensions.get(probe.dimension)]
        if low is not None:
            found.append(row.high >= literal(low, _NUMBER))
        if high is not None:
            found.append(row.low <= literal(high, _NUMBER))
        return found

    def counted(self, probe: Probe, index: Index) -> tuple[list[Condition], list[Condition]]:
        """Return what a text that an experiment counts must meet for it to begin as is asked for.

        And what its statistics must meet for a text to be there that is not counted; of other probes nothing.
        """
        key_id = index.keys.get(probe.key)
        if key_id is None or not isinstance(probe, Shape) or not probe.prefix:
            return [], []
        facet, stat = SearchFacetRow, SearchStatRow
        of_others = [stat.key_id == key_id, stat.dimension == NO_QUANTITY[terms.TEXT], stat.other > 0]
        return [facet.key_id == key_id, *_begun(facet.text, probe.prefix)], of_others

    def _shaped(self, probe: Shape, *, is_exact: bool) -> list[Condition]:
        text: Any = SearchTermRow.text
        found: list[Condition] = [text.is_not(None), *(_begun(text, probe.prefix) if probe.prefix else [])]
        if is_exact and not probe.is_regex and not is_whole(probe):
            found.append(glob_matches(text, probe.pattern, self.dialect))
        return found

    def _has_words(self, leaf: Text) -> Condition:
        if self._given is not None and leaf in self._given.with_words:
            return self._given.with_words[leaf]  # type: ignore[no-any-return]
        if self.dialect == "sqlite":
            found = select(WORD_ROWS.c.rowid).where(WORD_ROWS.c.rowid == self._of, self.matching(leaf, []))
        else:
            row = SearchTextRow
            found = select(row.file_id).where(row.file_id == self._of, self.matching(leaf, []))
        return self._is_there(found)

    def matching(self, leaf: Text, experiments: Sequence[int]) -> Condition:
        """Return the condition that a row of the full-text index has these words, and these experiments if any."""
        words = wanted_words(leaf.words)
        if self.dialect == "sqlite":
            wanted = " AND ".join(f'"{word}"{"*" if is_begun else ""}' for word, is_begun in words)
            wanted = f"document : ({wanted})"
            if experiments:
                within = " OR ".join(f'"{each}"' for each in experiments)
                wanted = f"{wanted} AND experiment_id : ({within})"
            return WORD_ROWS.c[WORDS].op("MATCH", return_type=YES_OR_NO, is_comparison=True)(literal(wanted, TEXT))
        from sqlalchemy.dialects.postgresql import TSQUERY

        wanted = " & ".join(f"'{word}'{':*' if is_begun else ''}" for word, is_begun in words)
        if experiments:
            within = " | ".join(f"'{experiment_word(each)}'" for each in experiments)
            wanted = f"{wanted} & ({within})"
        query = cast(literal(wanted, TEXT), TSQUERY())
        return SearchTextRow.document.op("@@", return_type=YES_OR_NO, is_comparison=True)(query)


def _or_unsure(known: Condition, unsure: Condition, unknown: bool) -> Condition:
    return or_(known, unsure) if unknown else and_(known, not_(unsure))


def glob_of(pattern: str) -> str:
    """Return a shape that every text has which a regular expression matches."""
    return re.sub(r"[*?]", "?", prefix_of(pattern)) + "*"


def is_whole(probe: Probe) -> bool:
    """Whether what stands in the index of terms is all that is asked: of a shape that is its beginning."""
    if not isinstance(probe, Shape):
        return True
    return not probe.is_regex and probe.pattern == f"{probe.prefix}*" and bool(_after(probe.prefix))


def _between(probe: Points | Span) -> list[Condition]:
    row = SearchTermRow
    is_text = any(isinstance(each, str) for each in (*getattr(probe, "values", ()), *_ends(probe)))
    at: Any = row.text if is_text else row.num
    kind: Any = TEXT if is_text else _NUMBER
    if isinstance(probe, Points):
        values = [literal(value, kind) for value in probe.values]
        return [at == values[0] if len(values) == 1 else at.in_(values)]
    # What the index leaves out is named, so that a database sees that it may use it.
    found: list[Condition] = [at.is_not(None)]
    if probe.low is not None:
        low = literal(probe.low, kind)
        found.append(at >= low if probe.is_low_in else at > low)
    if probe.high is not None:
        high = literal(probe.high, kind)
        found.append(at <= high if probe.is_high_in else at < high)
    return found


def _ends(probe: Points | Span) -> tuple[float | str | None, ...]:
    return (probe.low, probe.high) if isinstance(probe, Span) else ()


def _begun(text: Any, prefix: str) -> list[Condition]:
    found: list[Condition] = [text >= literal(prefix, TEXT)]
    if end := _after(prefix):
        found.append(text < literal(end, TEXT))
    return found


def _after(prefix: str) -> str:
    """Return the least text that comes after all that begin with a prefix; empty where there is none."""
    last = ord(prefix[-1]) + 1
    if last in range(0xD800, 0xE000):
        last = 0xE000
    return prefix[:-1] + chr(last) if last <= 0x10FFFF else ""
