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

from sqlalchemy import ColumnElement, Subquery, and_, false, select
from sqlalchemy.orm import Session

from beamkeeper.db.experiments import ExperimentRow
from beamkeeper.db.files.stale import IS_STALE
from beamkeeper.db.files.tables import FileRow, VersionRow
from beamkeeper.db.finding.asked import IS_NEWEST, Asked
from beamkeeper.db.finding.builtins import path_range
from beamkeeper.db.finding.compiled import is_builtin
from beamkeeper.db.finding.indexed import Index, asking, index_for
from beamkeeper.db.finding.leading import Leading
from beamkeeper.db.finding.limits import limited
from beamkeeper.db.finding.pace import WALK, WINDOW, Pace
from beamkeeper.db.finding.portions import Stretches, Ways, passing
from beamkeeper.db.finding.sources import Sources
from beamkeeper.db.finding.windows import Key, Merged, Walk, ordering
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
    place: int
    """Where it stands in its window, from 1."""


class _Step(NamedTuple):
    """What was looked at at once."""

    rows: Sequence[_Row]
    seen: int
    """So many files were looked at, also those that the index dropped."""
    end: Key | None
    """Where to go on; None: there is no more."""
    is_cut: bool = False
    """Whether more pass of the same files than were read."""
    is_ended: bool = False
    """Whether the last is read because its window ends there, and does not pass."""

    @property
    def passed(self) -> int:
        """How many of the files that were looked at pass, as far as the index tells."""
        return len(self.rows) - self.is_ended


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
        found.extend(self._own())
        if not query.with_deleted:
            found.append(FileRow.deleted_at.is_(None))
        if query.stale:
            found.append(IS_STALE)
        return found

    def _own(self) -> list[Condition]:
        """Return the condition that a file is of the caller's experiments, if it must be."""
        if self._reach.is_all:
            return []
        return [FileRow.experiment_uid.in_(experiment_uids(self._reach, self._now))]

    def _page(self, limit: int, *, budget: float = math.inf, seconds: float = math.inf) -> Hits:
        found: list[_Row] = []
        after, windows, end = self._start(), self._windows(), time.monotonic() + seconds
        pace = Pace(limit, is_every=self._asked.node == EVERYTHING)
        self._begin(windows, pace)
        while True:
            step = self._step(windows, after, pace)
            for row in self._meant([first for _, (first, *_) in groupby(step.rows, key=attrgetter("id"))]):
                found.append(row)
                if len(found) > limit:
                    pace.take(step.seen, step.passed, len(found), is_cut=True)
                    return self._hits(found[:limit], self._cursor(found[limit - 1].key), pace)
            pace.take(step.seen, step.passed, len(found), is_cut=step.is_cut)
            if step.end is None:
                return self._hits(found, None, pace)
            if pace.spent >= budget or time.monotonic() > end:
                return self._hits(found, self._cursor(step.end), pace, is_partial=True)
            after = step.end
            better = self._leading.second(windows, pace, len(found)) if self._leading is not None else None
            if better is not None:
                windows = better
                self._begin(windows, pace)

    def _begin(self, windows: Ways, pace: Pace) -> None:
        # What reads so many of each experiment is not asked for more at once than is read.
        most = WALK if self._is_filtered(windows) and not isinstance(windows, Merged) else WINDOW
        pace.begin(windows.known.at_once if self._is_filtered(windows) else 0, most)

    def _step(self, windows: Ways, after: Key | None, pace: Pace) -> _Step:
        """Look at the next files."""
        index, passes = self._index, self._asked.passes
        if isinstance(windows, Stretches):
            part = windows.portion(after if isinstance(after, int) else None, pace, passes)
        elif index is not None and self._is_filtered(windows):
            part = passing(windows, after, pace, index, passes)
        else:
            rows = self._rows(windows.window(after, pace.size).subquery(), windows, windows.known.told)
            return _Step(rows, len(rows), rows[-1].key if len(rows) == pace.size else None)
        known = windows.known
        rows = self._rows(part.files, windows, [*known.told, *self._asked.told(known.met)])
        if len(rows) == pace.most:
            return _Step(rows, max(1, rows[-1].place), rows[-1].key, is_cut=True)
        if part.seen:
            return _Step(rows, part.seen, part.end)
        if not rows or rows[-1].place < pace.size:
            return _Step(rows, rows[-1].place if rows else 0, None)
        return _Step(rows, rows[-1].place, rows[-1].key, is_ended=not rows[-1].is_met)

    def _is_filtered(self, windows: Ways) -> bool:
        """Whether the index drops files by their numbers alone: then not all that are looked at are read."""
        if isinstance(windows, Stretches):
            return True
        is_left = self._is_indexed and self._asked.is_left(windows.known.met)
        return is_left and self._order is FileOrder.NEWEST

    def _hits(self, rows: Sequence[_Row], next_: str | None, pace: Pace, *, is_partial: bool = False) -> Hits:
        # Who may not read all files is not told how many others there are.
        searched = pace.searched if self._reach.is_all else pace.passed
        is_behind = self._is_indexed and self._index is not None and self._index.is_behind
        return Hits([row.id for row in rows], next_, is_partial, searched, is_behind)

    def _rows(self, files: Subquery, windows: Ways, told: Sequence[Node]) -> list[_Row]:
        """Return files with what SQL tells of them: those that are not meant too."""
        passed = [files.c.passed] if "passed" in files.c else []
        is_met = and_(*passed, *self.allowed(), self._asked.must(told))
        index = self._index if self._is_indexed else None
        is_there = not isinstance(windows, Walk)
        unsure = false() if index is None else index.unsure(is_there=is_there)
        wanted: Any = (
            select(FileRow.id, is_met.label("met"), unsure.label("unsure"))
            .select_from(files)
            .join(FileRow, FileRow.id == files.c.id)
            .join(VersionRow, IS_NEWEST)
            .order_by(*ordering(self._order))
        )
        if index is not None and (index.has_unsure or not is_there or self._asked.is_left(told)):
            wanted = wanted.outerjoin(SearchFileRow, SearchFileRow.file_id == FileRow.id)
        if "place" in files.c:
            rows = self._session.execute(wanted.add_columns(files.c.place))
            return [_Row(id_, met, unknown, id_, place) for id_, met, unknown, place in rows]
        if self._order is FileOrder.PATH:
            wanted = wanted.add_columns(FileRow.experiment_uid, FileRow.path)
        return [
            _Row(id_, met, unknown, (path[0], path[1]) if path else id_, place)
            for place, (id_, met, unknown, *path) in enumerate(self._session.execute(wanted), 1)
        ]

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
        only = self._query.experiment_uid
        leaves = [
            leaf
            for leaf in (plain.node.items if isinstance(plain.node, And) else [plain.node])
            if not isinstance(leaf, And) and _is_of_experiment(leaf)
        ]
        of = SearchExperimentRow.uid
        narrowed = [plain.compiler.experiments(leaf, of) for leaf in leaves]  # type: ignore[arg-type]
        is_all = self._reach.is_all and only is None and not narrowed
        asked = [leaf for leaf in plain.leaves if not is_builtin(leaf)]
        experiments = asking(self._reach, self._now, only, narrowed)
        return index_for(self._session, asked, experiments, self._own(), is_all=is_all)

    @cached_property
    def _leading(self) -> Leading | None:
        index = self._index
        if index is None or (not self._is_indexed and index.is_behind):
            return None
        ways = Sources(self._asked.compiler, index, self._now, self._dialect).ways(self._asked.top)
        return Leading(self._session, index, self._asked, ways, self._order)

    def _windows(self) -> Ways:
        """Return the cheapest way through the files to begin with."""
        found = self._leading.first() if self._leading is not None else None
        return found or Walk(self._order, [*self.allowed(), *self._ranges()])

    def _ranges(self) -> list[Condition]:
        """Return the ranges of paths that the query allows."""
        paths = [leaf for leaf in self._asked.top if hasattr(leaf, "field") and leaf.field == Builtin("path")]
        return [path_range(leaf) for leaf in paths]  # type: ignore[arg-type]

    def _cursor(self, key: Key) -> str:
        if isinstance(key, int):
            return to_cursor(self._digest, key)
        uid, path = key
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


def _digest(query: FileQuery, order: FileOrder) -> str:
    """Return what says that two pages are of one search."""
    asked = query.model_dump_json(exclude={"after", "limit", "order"})
    return hashlib.blake2b(f"{order} {asked}".encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
