"""Between which numbers files are that were changed in some time: a search need not look at others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from beamkeeper.db.finding.compiled import Compiler
from beamkeeper.db.finding.indexed import Index
from beamkeeper.db.search.tables import ZONE, SearchZoneRow
from beamkeeper.domain.query.ast import Builtin, Compare, Node, Op

_ENDS: Final[dict[Op, tuple[Op, ...]]] = {"<": ("<",), "<=": ("<=",), ">": (">",), ">=": (">=",), "=": ("<=", ">=")}


def bounds(session: Session, compiler: Compiler, nodes: Sequence[Node], index: Index) -> tuple[int, int]:
    """Return the least and the greatest number of files in the index that may meet all of these conditions.

    Where there is none, the least is the greater of them.
    """
    row = SearchZoneRow
    met: list[Any] = []
    for node in nodes:
        if isinstance(node, Compare) and node.field == Builtin("modified"):
            for op in _ENDS.get(node.op, ()):
                end = row.low if op in ("<", "<=") else row.high
                met.append(compiler.builtin(replace(node, op=op), {"modified": end}))
    if not met:
        return 1, index.top
    first, last = session.execute(select(func.min(row.zone), func.max(row.zone)).where(*met)).one()
    return (1, 0) if first is None else (max(1, first * ZONE), min(index.top, last * ZONE + ZONE - 1))
