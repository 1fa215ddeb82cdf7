"""A query on its way to answers: its SQL, and the looking into documents for what SQL cannot tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from beamkeeper.db.files.tables import FileRow, VersionRow
from beamkeeper.db.finding.builtins import text_of
from beamkeeper.db.finding.compiled import Compiler, Given, is_builtin
from beamkeeper.db.finding.indexed import Index
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.query.ast import And, Builtin, Leaf, Matches, Node, Not, Or, leaves
from beamkeeper.domain.query.evaluate import holds
from beamkeeper.domain.query.regex import compiled

Condition = ColumnElement[bool]

IS_NEWEST = (VersionRow.file_id == FileRow.id) & (VersionRow.number == FileRow.number)
_DOCUMENTS = 200
"""So many documents are read at once."""


class Asked:
    """A query, for one database, moment and state of the index; without an index, documents tell."""

    def __init__(self, session: Session, now: datetime, node: Node, index: Index | None) -> None:
        self._session = session
        self._now = now
        self._index = index
        self.node = node
        self.leaves = list(dict.fromkeys(leaves(node)))
        self.compiler = Compiler(session.get_bind().dialect.name, now, index)
        self.is_by_documents = any(isinstance(leaf, Matches) for leaf in self.leaves) or (
            index is None and not all(map(is_builtin, self.leaves))
        )
        """Whether every file that may be meant is looked up in its document."""

    @property
    def top(self) -> Sequence[Node]:
        """The conditions all of which a file meets that is meant."""
        return self.node.items if isinstance(self.node, And) else [self.node]

    def must(self, told: Sequence[Node] = ()) -> Condition:
        """What a file must meet to be meant; what is told of it is right, if the index knows all of it."""
        return self.compiler.met(_without(self.node, told) if told else self.node, unknown=True)

    def passes(self, files: Given, met: Sequence[Node]) -> Condition:
        """Return the same of files of which no more is at hand, as far as the index tells; some is known to be met."""
        compiler = Compiler(self.compiler.dialect, self._now, self._index, files)
        return compiler.met(_without(self.node, met), unknown=True)

    def told(self, met: Sequence[Node]) -> Sequence[Node]:
        """Return what is told of files that have passed: all of which the index tells, but for what is met."""
        rest = [item for item in self.top if item not in met]
        return [item for item in rest if not any(map(is_builtin, leaves(item)))]

    def is_left(self, met: Sequence[Node]) -> bool:
        """Return whether there is more that the index tells of a file."""
        return not all(is_builtin(leaf) for item in self.top if item not in met for leaf in leaves(item))

    def checked(self, ids: Sequence[int]) -> Iterator[int]:
        """Yield those of these files that are meant, by what their documents say."""
        for start in range(0, len(ids), _DOCUMENTS):
            part = ids[start : start + _DOCUMENTS]
            meant = self._meant(part)
            yield from (each for each in part if each in meant)

    def _meant(self, ids: Sequence[int]) -> set[int]:
        by_sql = [leaf for leaf in self.leaves if is_builtin(leaf)]
        columns = [self._column(leaf).label(f"met_{i}") for i, leaf in enumerate(by_sql)]
        wanted = (
            select(FileRow.id, FileRow.path_shown, FileRow.metadata_, *columns)
            .join(VersionRow, IS_NEWEST)
            .where(FileRow.id.in_(ids))
        )
        found: set[int] = set()
        for id_, path, metadata, *met in self._session.execute(wanted):
            known = {leaf: _truth(leaf, each) for leaf, each in zip(by_sql, met, strict=True)}
            if _is_met(self.node, known, path, metadata):
                found.add(id_)
        return found

    def _column(self, leaf: Leaf) -> Any:
        if isinstance(leaf, Matches) and isinstance(leaf.field, Builtin):
            return text_of(leaf.field.name)
        return self.compiler.builtin(leaf)


def _without(node: Node, given: Sequence[Node]) -> Node:
    """Return what is left of a conjunction, or of this condition alone."""
    items = node.items if isinstance(node, And) else (node,)
    return And(tuple(item for item in items if item not in given))


def _truth(leaf: Leaf, found: object) -> bool:
    if isinstance(leaf, Matches):
        return isinstance(found, str) and bool(compiled(leaf.pattern).match(found))
    return bool(found)


def _is_met(node: Node, known: Mapping[Leaf, bool], path: str, metadata: Metadata) -> bool:
    match node:
        case And(items):
            return all(_is_met(item, known, path, metadata) for item in items)
        case Or(items):
            return any(_is_met(item, known, path, metadata) for item in items)
        case Not(item):
            return not _is_met(item, known, path, metadata)
        case _:
            return known[node] if node in known else holds(node, path, metadata)
