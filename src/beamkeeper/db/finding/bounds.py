"""Between which numbers files are that were changed in some time: a search need not look at others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from beamkeeper.db.finding.compiled import Compiler
from beamkeeper.db.finding.indexed import Index
from beamkeeper.db.search.tables import ZONE, SearchExperimentRow, SearchFileRow, SearchZoneRow
from beamkeeper.domain.query.ast import Builtin, Compare, Node, Op

_ENDS: Final[dict[Op, tuple[Op, ...]]] = {"<": ("<",), "<=": ("<=",), ">": (">",), ">=": (">=",), "=": ("<=", ">=")}


def bounds(session: Session, compiler: Compiler, nodes: Sequence[Node], reach: Index, index: Index) -> tuple[int, int]:
    """Return the least and the greatest number of files of these experiments that may meet all of these conditions.

    Where there is none, the least is the greater of them. Zones are of everybody's files: only who may read all files
    is shown, by how many numbers were looked at, where they lie. For them the ends of many experiments, which take
    two look-ups each, narrow little.
    """
    first, last = (1, index.top) if reach.is_all else _of_experiments(session, index)
    met = _of_zones(compiler, nodes) if reach.is_all else []
    if met:
        row = SearchZoneRow
        low, high = session.execute(select(func.min(row.zone), func.max(row.zone)).where(*met)).one()
        first, last = (1, 0) if low is None else (max(first, low * ZONE), min(last, high * ZONE + ZONE - 1))
    return max(1, first), last


def _of_experiments(session: Session, index: Index) -> tuple[int, int]:
    row, experiment = SearchFileRow, SearchExperimentRow
    own = row.experiment_id == experiment.id
    ends = [select(end(row.file_id)).where(own).correlate(experiment).scalar_subquery() for end in (func.min, func.max)]
    each = select(ends[0].label("low"), ends[1].label("high")).where(index.within(experiment.id)).subquery()
    low, high = session.execute(select(func.min(each.c.low), func.max(each.c.high))).one()
    return (1, 0) if low is None else (low, high)


def _of_zones(compiler: Compiler, nodes: Sequence[Node]) -> list[ColumnElement[bool]]:
    """Return the conditions on zones that have files of the times that are asked for."""
    row = SearchZoneRow
    met: list[ColumnElement[bool]] = []
    for node in nodes:
        if isinstance(node, Compare) and node.field == Builtin("modified"):
            for op in _ENDS[node.op]:
                end = row.low if op in ("<", "<=") else row.high
                met.append(compiler.builtin(replace(node, op=op), {"modified": end}))
    return met
