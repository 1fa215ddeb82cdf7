"""Where a search looks for files, in the order of the page: along an index, or among what an index has found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select, true, tuple_, union_all

from beamkeeper.db.files.tables import FileRow
from beamkeeper.db.search.tables import SearchFileRow
from beamkeeper.domain.files import FileOrder

Condition = ColumnElement[bool]
Key: TypeAlias = tuple[UUID, bytes] | int
"""Where a page ended: experiment and path, or the number of a file."""


class Windows(Protocol):
    """A way through files in the order of a page."""

    def window(self, after: Key | None, size: int) -> Select[Any]:
        """Return the next files after a place, by their local numbers as `id`: all that there are, up to `size`.

        A file that is found in two ways may come twice, one after the other.
        """
        ...


@dataclass(frozen=True)
class Walk:
    """Along the files themselves, in either order."""

    order: FileOrder
    within: Sequence[Condition]

    def window(self, after: Key | None, size: int) -> Select[Any]:
        """Return the next files."""
        wanted = select(FileRow.id.label("id")).where(*self.within, *beyond(after))
        return wanted.order_by(*ordering(self.order)).limit(size)


@dataclass(frozen=True)
class WalkExperiments:
    """Along the newest files of a few experiments: as an index has them by experiment."""

    experiment_ids: Sequence[int]
    besides: Sequence[Select[Any]]

    def window(self, after: Key | None, size: int) -> Select[Any]:
        """Return the next files."""
        row = SearchFileRow
        parts: list[Select[Any]] = []
        for number in self.experiment_ids:
            part = select(row.file_id).where(row.experiment_id == number)
            if isinstance(after, int):
                part = part.where(row.file_id < after)
            newest = part.order_by(row.file_id.desc()).limit(size).subquery()
            parts.append(select(newest.c.file_id))
        return Found(FileOrder.NEWEST, [*parts, *self.besides]).window(after, size)


@dataclass(frozen=True)
class Found:
    """Among the files that an index gives."""

    order: FileOrder
    sources: Sequence[Select[Any]]

    def window(self, after: Key | None, size: int) -> Select[Any]:
        """Return the next files."""
        found = union_all(*self.sources).subquery()
        if self.order is FileOrder.PATH:
            wanted = select(FileRow.id.label("id")).where(FileRow.id.in_(select(found.c.file_id)), *beyond(after))
            return wanted.order_by(*ordering(self.order)).limit(size)
        # The sum keeps a database from walking all terms in the order of files, in the hope to meet some soon.
        number = found.c.file_id + 0
        newest = select(number.label("id"))
        if isinstance(after, int):
            newest = newest.where(number < after)
        return newest.order_by(number.desc()).limit(size)


@dataclass(frozen=True)
class Merged:
    """The newest of each experiment as an index has them in order, one experiment after the other: on PostgreSQL."""

    experiments: Select[Any]
    parts: Sequence[tuple[Select[Any], Any]]
    """Files, and where they have the number of their experiment."""
    besides: Sequence[Select[Any]]

    def window(self, after: Key | None, size: int) -> Select[Any]:
        """Return the next files."""
        sources: list[Select[Any]] = []
        for files, experiment in self.parts:
            of = self.experiments.subquery()
            (number,) = files.selected_columns
            part = files.where(experiment == of.c.id)
            if isinstance(after, int):
                part = part.where(number < after)
            newest = part.order_by(number.desc()).limit(size).lateral()
            sources.append(select(newest.c.file_id).select_from(of.join(newest, true())))
        return Found(FileOrder.NEWEST, [*sources, *self.besides]).window(after, size)


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
