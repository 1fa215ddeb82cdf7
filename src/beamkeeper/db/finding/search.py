"""Pages of a search, each in bounded time: what is looked through, in which order, and when it stops.

The most selective condition that the index can find files by leads, and the others are checked for each of its
files. Where all are broad, files are walked in the order of the page: they fill it soon, or the budget is spent and
the page says where to go on.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, and_, false, select
from sqlalchemy.orm import Session

from beamkeeper.db.experiments import ExperimentRow
from beamkeeper.db.files.stale import IS_STALE
from beamkeeper.db.files.tables import FileRow, VersionRow
from beamkeeper.db.finding.asked import IS_NEWEST, Asked
from beamkeeper.db.finding.builtins import path_range
from beamkeeper.db.finding.compiled import is_builtin
from beamkeeper.db.finding.indexed import Index, index_for
from beamkeeper.db.finding.leading import Leading
from beamkeeper.db.finding.limits import limited
from beamkeeper.db.finding.sources import Sources
from beamkeeper.db.finding.windows import Key, Walk, Windows, ordering
from beamkeeper.db.pages import from_cursor, to_cursor
from beamkeeper.db.scope import experiment_uids
from beamkeeper.db.search.tables import SearchExperimentRow, SearchFileRow
from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.files import FileOrder, FileQuery
from beamkeeper.domain.names import from_b64, to_b64
from beamkeeper.domain.query import meaning
from beamkeeper.domain.query.ast import EVERYTHING, And, Builtin, Matches, Node, Text
from beamkeeper.domain.users import Reach

Condition = ColumnElement[bool]

BUDGET = 20_000
"""A page of a search looks at no more files than about this."""
PAGE_S = 2.0
"""A page of a search that is not full after this time is answered as it is."""
HITS_S = 5.0
"""So long the files are looked for that a facet counts."""
_WINDOW = 5_000
_LEAST = 32
"""So many files at least are looked at next: fewer take as long."""


class Hits(NamedTuple):
    """The files that a search found for a page."""

    ids: Sequence[int]
    next: str | None
    is_partial: bool
    searched: int
    is_behind: bool


class _Row(NamedTuple):
    id: int
    is_met: bool
    is_unsure: bool
    key: Key
    """Where it stands in the order of the page."""


class FileSearch:
    """One search by somebody with this reach."""

    def __init__(self, session: Session, now: datetime, query: FileQuery, reach: Reach) -> None:
        self._session = session
        self._now = now
        self._query = query
        self._reach = reach
        node = meaning(query)
        self._is_search = query.query is not None or query.filter is not None
        by_default = FileOrder.NEWEST if self._is_search else FileOrder.PATH
        self._order = query.order or by_default
        plain = Asked(session, now, node, None)
        self._is_indexed = not all(map(is_builtin, plain.leaves))
        is_helped = self._is_indexed or self._order is FileOrder.NEWEST
        self._index = self._known(plain) if is_helped and not query.with_deleted else None
        self._asked = Asked(session, now, node, self._index)
        self._dialect = session.get_bind().dialect.name
        self._digest = _digest(query, self._order)

    @property
    def _top(self) -> Sequence[Node]:
        node = self._asked.node
        return node.items if isinstance(node, And) else [node]

    def page(self) -> Hits:
        """Return the next page."""
        with limited(self._session):
            if self._is_search:
                return self._page(self._query.limit, budget=BUDGET, seconds=PAGE_S)
            return self._page(self._query.limit)

    def hits(self, most: int) -> Hits:
        """Return as many as `most` of the files that are meant, or those that are found in some seconds."""
        with limited(self._session):
            return self._page(most, seconds=HITS_S)

    def allowed(self) -> list[Condition]:
        """Return the condition that stands around every search: what the caller may see, of what is there."""
        found: list[Condition] = []
        query = self._query
        if query.experiment_uid is not None:
            found.append(FileRow.experiment_uid == query.experiment_uid)
        else:
            deleted = select(ExperimentRow.uid).where(ExperimentRow.deleted_at.is_not(None))
            found.append(FileRow.experiment_uid.not_in(deleted))
        if not self._reach.is_all:
            found.append(FileRow.experiment_uid.in_(experiment_uids(self._reach, self._now)))
        if not query.with_deleted:
            found.append(FileRow.deleted_at.is_(None))
        if query.stale:
            found.append(IS_STALE)
        return found

    def _page(self, limit: int, *, budget: float = math.inf, seconds: float = math.inf) -> Hits:
        found: list[_Row] = []
        after, windows = self._start(), self._windows()
        size = min(limit + 1, _WINDOW) if self._asked.node == EVERYTHING else _first_size(limit)
        searched, end = 0, time.monotonic() + seconds
        while True:
            rows = self._rows(windows, after, size)
            for row in self._meant([first for _, (first, *_) in groupby(rows, key=attrgetter("id"))]):
                found.append(row)
                if len(found) > limit:
                    return self._hits(found[:limit], self._cursor(found[limit - 1]), searched + len(rows))
            searched += len(rows)
            if len(rows) < size:
                return self._hits(found, None, searched)
            if searched >= budget or time.monotonic() > end:
                return self._hits(found, self._cursor(rows[-1]), searched, is_partial=True)
            after, size = rows[-1].key, _next_size(size, limit + 1 - len(found), len(found) / searched)
            better = self._leading.second(windows, searched, len(found)) if self._leading is not None else None
            if better is not None:
                windows, size = better, _first_size(limit)

    def _hits(self, rows: Sequence[_Row], next_: str | None, searched: int, *, is_partial: bool = False) -> Hits:
        is_behind = self._is_indexed and self._index is not None and self._index.is_behind
        return Hits([row.id for row in rows], next_, is_partial, searched, is_behind)

    def _rows(self, windows: Windows, after: Key | None, size: int) -> list[_Row]:
        """Return the next files with what SQL tells of them: those that are not meant too."""
        window = windows.window(after, size).subquery()
        is_met = and_(*self.allowed(), self._asked.must(windows.text))
        unsure = self._index.unsure() if self._index is not None and self._is_indexed else false()
        wanted: Any = (
            select(FileRow.id, is_met.label("met"), unsure.label("unsure"))
            .select_from(window)
            .join(FileRow, FileRow.id == window.c.id)
            .join(VersionRow, IS_NEWEST)
            .order_by(*ordering(self._order))
        )
        if self._index is not None:
            wanted = wanted.outerjoin(SearchFileRow, SearchFileRow.file_id == FileRow.id)
        if self._order is not FileOrder.PATH:
            return [_Row(id_, met, unknown, id_) for id_, met, unknown in self._session.execute(wanted)]
        wanted = wanted.add_columns(FileRow.experiment_uid, FileRow.path)
        return [_Row(id_, met, unknown, (uid, path)) for id_, met, unknown, uid, path in self._session.execute(wanted)]

    def _meant(self, rows: Sequence[_Row]) -> Iterator[_Row]:
        """Yield those of the files that are meant, looking into documents where SQL could not tell."""
        is_by_documents = self._asked.is_by_documents
        doubted = [row.id for row in rows if row.is_met and (row.is_unsure or is_by_documents)]
        checked = self._asked.checked(doubted)
        meant = next(checked, None)
        for row in rows:
            if not row.is_met:
                continue
            if not (row.is_unsure or is_by_documents):
                yield row
            elif row.id == meant:
                yield row
                meant = next(checked, None)

    def _known(self, plain: Asked) -> Index:
        row = SearchExperimentRow
        within: list[Condition] = []
        if self._query.experiment_uid is not None:
            within.append(row.uid == self._query.experiment_uid)
        else:
            deleted = select(ExperimentRow.uid).where(ExperimentRow.deleted_at.is_not(None))
            within.append(row.uid.not_in(deleted))
        if not self._reach.is_all:
            within.append(row.uid.in_(experiment_uids(self._reach, self._now)))
        narrowed = [
            leaf
            for leaf in (plain.node.items if isinstance(plain.node, And) else [plain.node])
            if not isinstance(leaf, And) and _is_of_experiment(leaf)
        ]
        within.extend(plain.compiler.experiments(leaf, row.uid) for leaf in narrowed)  # type: ignore[arg-type]
        is_all = self._reach.is_all and self._query.experiment_uid is None and not narrowed
        asked = [leaf for leaf in plain.leaves if not is_builtin(leaf)]
        return index_for(self._session, asked, within, is_all=is_all)

    @cached_property
    def _leading(self) -> Leading | None:
        index = self._index
        if index is None or (not self._is_indexed and index.is_behind):
            return None
        ways = Sources(self._asked.compiler, index, self._now, self._dialect).ways(self._top)
        return Leading(self._session, index, ways, self._order)

    def _windows(self) -> Windows:
        """Return the cheapest way through the files to begin with."""
        found = self._leading.first() if self._leading is not None else None
        return found or Walk(self._order, [*self.allowed(), *self._ranges()])

    def _ranges(self) -> list[Condition]:
        """Return the ranges of paths that the query allows."""
        paths = [leaf for leaf in self._top if hasattr(leaf, "field") and leaf.field == Builtin("path")]
        return [path_range(leaf) for leaf in paths]  # type: ignore[arg-type]

    def _cursor(self, row: _Row) -> str:
        if isinstance(row.key, int):
            return to_cursor(self._digest, row.key)
        uid, path = row.key
        return to_cursor(self._digest, uid.hex, to_b64(path))

    def _start(self) -> Key | None:
        if self._query.after is None:
            return None
        kinds = (str, str, str) if self._order is FileOrder.PATH else (str, int)
        digest, *key = from_cursor(self._query.after, *kinds)
        if digest != self._digest:
            raise InvalidError("this cursor is of another search: take the `next` of a page of this one")
        if self._order is not FileOrder.PATH:
            return int(key[0])
        try:
            return UUID(hex=str(key[0])), from_b64(str(key[1]))
        except ValueError as error:
            raise InvalidError("this is no cursor of a list of files: take `next` of an earlier answer") from error


def _is_of_experiment(node: Node) -> bool:
    field = None if isinstance(node, Text | Matches) else getattr(node, "field", None)
    return field in (Builtin("experiment"), Builtin("station"))


def _first_size(limit: int) -> int:
    """Return how many files to look at first: most of those that an index gives are meant."""
    return min(limit + limit // 4 + 1, _WINDOW)


def _next_size(size: int, left: int, share: float) -> int:
    """Return how many files to look at next, where this share of those before was meant and so many are wanted yet."""
    likely = max(_LEAST, math.ceil(1.25 * left / share)) if share else math.inf
    return int(min(likely, 4 * size, _WINDOW))


def _digest(query: FileQuery, order: FileOrder) -> str:
    """Return what says that two pages are of one search."""
    asked = query.model_dump_json(exclude={"after", "limit", "order"})
    return hashlib.blake2b(f"{order} {asked}".encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
