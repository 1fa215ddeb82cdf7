"""One statement for many rows, bound without SQLAlchemy's work for each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Executable
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler

FROM_ROWS = 32
"""From so many rows on it pays to compile the statement here, where nothing is kept for the next time."""

Values = Mapping[str, Any]


def execute_many(session: Session, statement: Executable, rows: Sequence[Values]) -> int:
    """Execute a statement for each row, all of which have the same keys; returns how many rows were met."""
    connection = session.connection()
    dialect = connection.dialect
    compiled = None
    if dialect.name == "sqlite" and len(rows) >= FROM_ROWS:
        compiled = statement.compile(dialect=dialect, column_keys=list(rows[0]))  # type: ignore[attr-defined]
    if not isinstance(compiled, SQLCompiler) or compiled.positiontup is None:
        return int(connection.execute(statement, list(rows)).rowcount)
    prepare = _prepared(compiled, compiled.positiontup, dialect, rows[0])
    result = connection.exec_driver_sql(compiled.string, [prepare(row) for row in rows])
    return int(result.rowcount)


def _prepared(
    compiled: SQLCompiler, names: Sequence[str], dialect: Dialect, first: Values
) -> Callable[[Values], tuple[Any, ...]]:
    """Return what gives a row's values in the order of the statement's marks."""
    given = compiled.params
    constants: list[Any] = []
    varying: list[tuple[int, str, Callable[[Any], Any] | None]] = []
    for place, name in enumerate(names):
        process = compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect)
        if name in first:
            varying.append((place, name, process))
            constants.append(None)
        else:
            constants.append(process(given[name]) if process else given[name])

    def prepare(row: Values) -> tuple[Any, ...]:
        values = constants.copy()
        for place, name, process in varying:
            value = row[name]
            values[place] = process(value) if process is not None else value
        return tuple(values)

    return prepare
