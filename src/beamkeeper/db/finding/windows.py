"""Where a search looks for files, in the order of the page: along an index, or among what an index has found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Subquery, and_, func, select, true, tuple_, union_all

from beamkeeper.db.files.tables import FileRow
from beamkeeper.db.search.tables import SearchFileRow
from beamkeeper.domain.files import FileOrder
from beamkeeper.domain.query.ast import Node

Condition = ColumnElement[bool]
EXPERIMENT = "experiment_id"
"""The column of a window, or of a source, that has the numbers of experiments: not each has it."""
Key: TypeAlias = tuple[UUID, bytes] | int
"""Where a page ended: experiment and path, or the number of a file."""


class Known(NamedTuple):
    """What is known of all files of a way."""

    met: Sequence[Node] = ()
    """Conditions that nearly all of them meet."""
    told: Sequence[Node] = ()
    """Those of them that all meet of which the index knows all: to look each up once more reads rows far apart."""
    at_once: int = 0
    """So many it may be asked for at first: no more work is done than for those that are taken."""


NOTHING = Known()


class Windows(Protocol):
    """A way through files in the order of a page."""

    @property
    def known(self) -> Known:
        """What is known of all of its files."""
        ...

    def window(self, after: Key | None, size: int) -> Select[Any]:
        """Return the next files after a place, by their local numbers as `id`: all that there are, up to `size`.

        The numbers of their experiments may stand beside them. A file that is found in two ways may come twice, one
        after the other.
        """
        ...


@dataclass(frozen=True)
class Walk:
    """Along the files themselves, in either order."""

    order: FileOrder
    within: Sequence[Condition]
    known: Known = NOTHING

    def window(self, after: Key | None, size: int) -> Select[Any]:
        """Return the next files."""
        wanted = select(FileRow.id.label("id")).where(*self.within, *beyond(after))
        return wanted.order_by(*ordering(self.order)).limit(size)


@dataclass(frozen=True)
class Found:
    """Among the files that an index gives."""

    order: FileOrder
    sources: Sequence[Select[Any]]
    known: Known = NOTHING

    def window(self, after: Key | None, size: int) -> Select[Any]:
        """Return the next files."""
        found = united(self.sources)
        if self.order is FileOrder.PATH:
            wanted = select(FileRow.id.label("id")).where(FileRow.id.in_(select(found.c.file_id)), *beyond(after))
            return wanted.order_by(*ordering(self.order)).limit(size)
        # The sum keeps a database from walking all terms in the order of files, in the hope to meet some soon.
        number = found.c.file_id + 0
        newest = select(number.label("id"), *(column for column in found.c if column.name == EXPERIMENT))
        if isinstance(after, int):
            newest = newest.where(number < after)
        return newest.order_by(number.desc()).limit(size)


class Part(NamedTuple):
    """Files that an index gives, of every experiment, and where it has the experiment's number if it begins with it."""

    files: Select[Any]
    experiment: Any = None
    is_ordered: bool = False
    """Whether the index gives those of one experiment by their numbers."""
    extent: Sequence[Condition] = ()
    """What the numbers of an experiment must meet, as `search_stats` has them, for it to have such files."""
    together: Sequence[Condition] = ()
    """What is said besides where the files of all experiments are asked for, so that one range of an index has them."""
    apart: Sequence[Condition] = ()
    """And where those of each experiment are a range of their own."""
    counted: Sequence[Condition] = ()
    """What a text must meet that `search_facets` counts; then `extent` is of texts that it does not count."""

    def of(self, experiment: Any) -> Select[Any]:
        """Return those of one experiment."""
        return self.files.where(self.experiment == experiment, *self.apart)


@dataclass(frozen=True)
class Merged:
    """The newest of each experiment as an index has them in order, one experiment after the other."""

    experiments: Select[Any]
    parts: Sequence[Part]
    besides: Sequence[Select[Any]]
    dialect: str
    is_led: bool = True
    """Whether it is a condition that gives the files."""
    known: Known = NOTHING

    def window(self, after: Key | None, size: int) -> Select[Any]:
        """Return the next files."""
        newest = [self._newest(part, after, size) for part in self.parts]
        return Found(FileOrder.NEWEST, [*newest, *self.besides]).window(after, size)

    def _newest(self, part: Part, after: Key | None, size: int) -> Select[Any]:
        of = self.experiments.subquery()
        (number,) = part.files.selected_columns
        each = part.of(of.c.id)
        if isinstance(after, int):
            each = each.where(number < after)
        newest = each.order_by(number.desc())
        if self.dialect == "postgresql":
            found = newest.limit(size).lateral()
            number_of = of.c.id.label(EXPERIMENT)
            return select(found.c.file_id, number_of).select_from(of.join(found, true()))
        # SQLite knows no lateral join: the oldest that is wanted of an experiment is looked up, and read from there on.
        # An outer join keeps it from going through the index first, and looking that up for each of its rows; but only
        # if nothing outside says that its numbers are there: an experiment with none gives a 0, which is no file.
        oldest = func.coalesce(newest.limit(1).offset(size - 1).correlate(of).scalar_subquery(), 0)
        asked: Any = each.whereclause
        given = func.coalesce(number, 0).label("file_id")
        return select(given).select_from(of.outerjoin(part.experiment.table, and_(asked, number >= oldest)))


@dataclass(frozen=True)
class WithWords:
    """The newest that SQLite's full text has of some words: it begins with those, and stops where they are enough."""

    files: Select[Any]
    besides: Sequence[Select[Any]]
    known: Known

    def window(self, after: Key | None, size: int) -> Select[Any]:
        """Return the next files."""
        (number,) = self.files.selected_columns
        begun = self.files.where(number < after) if isinstance(after, int) else self.files
        newest = begun.order_by(number.desc()).limit(size).subquery()
        return Found(FileOrder.NEWEST, [select(newest.c.file_id), *self.besides]).window(after, size)


def along(experiments: Select[Any], besides: Sequence[Select[Any]], dialect: str, at_once: int) -> Merged:
    """Return the way along the newest files of a few experiments, whatever they are."""
    every = Part(select(SearchFileRow.file_id), SearchFileRow.experiment_id, is_ordered=True)
    return Merged(experiments, [every], besides, dialect, is_led=False, known=Known(at_once=at_once))


def united(sources: Sequence[Select[Any]]) -> Subquery:
    """Return all of these files, with the numbers of their experiments where each of the sources has them."""
    if not all(EXPERIMENT in source.selected_columns for source in sources):
        sources = [source.with_only_columns(source.selected_columns[0]) for source in sources]
    return union_all(*sources).subquery()


def ordering(order: FileOrder) -> Sequence[Any]:
    """Return the columns of files by which a page is ordered; every order is total."""
    return (FileRow.experiment_uid, FileRow.path) if order is FileOrder.PATH else (FileRow.id.desc(),)


def beyond(after: Key | None) -> Sequence[Condition]:
    """Return the condition that a file comes after a place."""
    if after is None:
        return ()
    if isinstance(after, int):
        return (FileRow.id < after,)
    return (tuple_(FileRow.experiment_uid, FileRow.path) > tuple_(*after),)
