"""What a search reads next: files that the index lets pass, since what else is known of files takes long to join."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Select, Subquery, column, func, literal, or_, select, true, union_all

from beamkeeper.db.finding.compiled import Given
from beamkeeper.db.finding.indexed import Index
from beamkeeper.db.finding.pace import Pace
from beamkeeper.db.finding.windows import EXPERIMENT, Key, Known, Walk, Windows
from beamkeeper.db.search.tables import SearchFileRow
from beamkeeper.domain.query.ast import Node, Text

Condition = ColumnElement[bool]
Passes = Callable[[Given, Sequence[Node]], Condition]
"""What a file must meet as far as the index tells, but for what is known to be met."""

BLOCK = 1024
"""So many numbers of files PostgreSQL reads forwards at once."""


class Portion(NamedTuple):
    """What is read at once."""

    files: Subquery
    """Those that pass, by their numbers as `id`, with their `place` in the portion, from 1.

    Where the last of a window is there too, whether it passes or not, `passed` tells.
    """
    seen: int = 0
    """So many numbers it has, where it is a stretch of those; else the last file of all is among those that pass."""
    end: int | None = None
    """Where the next stretch begins; None: it is the last."""


@dataclass(frozen=True)
class Stretches:
    """Along all files of the index, from the newest on, one stretch of their numbers after the other."""

    number: Any
    """The column of their numbers."""
    within: Sequence[Condition]
    with_words: Mapping[Text, Condition]
    """Words that the same row tells of."""
    columns: Mapping[str, Any]
    """Fields of every file that the same row tells of."""
    index: Index
    at_once: int
    least: int
    top: int
    """Between which numbers all are that may be meant, but for those of which only the metadata tell."""

    @property
    def known(self) -> Known:
        """Nothing but what is in each row."""
        return Known(at_once=self.at_once)

    def portion(self, after: int | None, pace: Pace, passes: Passes) -> Portion:
        """Return what passes of the next stretch."""
        number, index = self.number, self.index
        high = self.top + 1 if after is None else min(after, self.top + 1)
        low = max(high - pace.size, self.least)
        is_last = low == self.least
        unsure = index.unsure(number, is_there=True)
        met = passes(Given(number, self.with_words, self.columns, unsure, number.table.c[EXPERIMENT]), ())
        files = select(number.label("id")).where(number >= low, *self.within, met)
        if index.has_unsure and number.table is not SearchFileRow.__table__:
            files = files.outerjoin(SearchFileRow, SearchFileRow.file_id == number)
        newest = self._newest(files, low, high).limit(pace.most).subquery()
        if besides := index.unsure_ids():
            more = union_all(*besides).subquery()
            first = [] if after is None else [more.c.file_id < after]
            last = [] if is_last else [more.c.file_id >= low]
            found = union_all(select(newest.c.id), select(more.c.file_id).where(*first, *last)).subquery()
            newest = select(found.c.id).order_by(found.c.id.desc()).limit(pace.most).subquery()
        files_there = select(newest.c.id, (high - newest.c.id).label("place")).subquery()
        return Portion(files_there, max(1, high - low), None if is_last else low)

    def _newest(self, files: Select[Any], low: int, high: int) -> Select[Any]:
        """Return the files below a number, the newest first."""
        number = self.number
        if self.index.dialect != "postgresql":
            return files.where(number < high).order_by(number.desc())
        # Backwards a disk gives one page of a table after the other; forwards, the system reads ahead. A join with the
        # numbers of blocks gives one block after the other, and reads no more of them than are asked for.
        begin, end, step = (literal(each, BigInteger()) for each in (high - BLOCK, low - BLOCK + 1, -BLOCK))
        blocks = func.generate_series(begin, end, step).table_valued(column("first", BigInteger)).render_derived()
        first = blocks.c.first
        of_block = files.where(number >= first, number < first + BLOCK).correlate(blocks)
        each = of_block.order_by((number + 0).desc()).lateral()
        return select(each.c.id).select_from(blocks.join(each, true()))


Ways = Windows | Stretches


def passing(windows: Windows, after: Key | None, pace: Pace, index: Index, passes: Passes) -> Portion:
    """Return what passes of the next files of a way."""
    is_there = not isinstance(windows, Walk)
    window = windows.window(after, pace.size).subquery()
    place = func.row_number().over(order_by=window.c.id.desc()).label("place")
    files = select(*window.c, place).subquery()
    unsure = index.unsure(files.c.id, is_there=is_there)
    met = passes(Given(files.c.id, {}, {}, unsure, files.c.get(EXPERIMENT)), windows.known.met)
    passed = or_(files.c.place != pace.size, met).label("passed")
    wanted: Select[Any] = select(files.c.id, files.c.place, passed).where(or_(files.c.place == pace.size, met))
    if index.has_unsure or not is_there:
        wanted = wanted.outerjoin(SearchFileRow, SearchFileRow.file_id == files.c.id)
    return Portion(wanted.order_by(files.c.id.desc()).limit(pace.most).subquery())
