"""Writing many rows at once: COPY on PostgreSQL, one prepared statement on SQLite, without SQLAlchemy for each row."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Connection, Dialect, LargeBinary, Table, func, select
from sqlalchemy import Uuid as SqlUuid
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.types import TypeEngine

from beamkeeper.db.base import Base, UtcMicroseconds, to_microseconds
from beamkeeper.domain.errors import CollisionError

Row = Sequence[Any]
Bound = InstrumentedAttribute[Any]

AT_ONCE = 250
"""So many rows are inserted by one statement of SQLite, which takes 32,766 values.

Row by row a thread gives the interpreter lock away for each, and where another one computes it may wait for five
milliseconds to get it back: a thousand rows took a second and more. More rows at once would only make the statements
larger that are kept.
"""

_COLLISIONS = frozenset({"23505", "40P01"})
"""PostgreSQL's codes of a unique key that is there, and of two transactions that wait for each other."""


def insert_rows(
    session: Session,
    table: type[Base],
    columns: Sequence[str],
    rows: Iterable[Row],
    *,
    as_text: Collection[str] = (),
) -> None:
    """Insert rows whose values stand in the order of `columns`; documents of `as_text` are JSON text already."""
    dialect = session.connection().dialect
    target = cast(Table, table.__table__)
    processors = [None if name in as_text else _processor(target.c[name].type, dialect) for name in columns]
    insert_bound(session, table, columns, _prepared(rows, processors))


def insert_bound(session: Session, table: type[Base], columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Insert rows whose values are those that both databases have: uids as 32 digits, times as microseconds.

    Documents are JSON text. To look at each value of each row costs as much as to insert them.
    """
    connection = session.connection()
    target = cast(Table, table.__table__)
    dialect = connection.dialect
    names = ", ".join(dialect.identifier_preparer.quote(name) for name in columns)
    with _cursor(connection) as cursor:
        if dialect.name == "postgresql":
            with cursor.copy(f"COPY {target.name} ({names}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        else:
            statement = f"INSERT INTO {target.name} ({names}) VALUES "  # noqa: S608 - names of ours
            _insert_sqlite(cursor, statement, len(columns), iter(rows))


def present(
    session: Session, column: Bound, values: Iterable[Any], *, within: tuple[Bound, Any] | None = None
) -> set[Any]:
    """Return those of the values that rows have in a column, where `within` says so of rows with that value there.

    Values are as both databases have them, and come back so: uids as 32 digits, paths as bytes. Of a thousand values
    that are new, which is what comes in bulk, to ask by SQLAlchemy took as long as to write a file's row.
    """
    connection = session.connection()
    name, of = column.key, cast(Table, column.class_.__table__).name
    more, given = (f"{within[0].key} = ? AND ", (within[1],)) if within else ("", ())
    rest, found = list(values), set[Any]()
    with _cursor(connection) as cursor:
        if connection.dialect.name == "postgresql":
            # An array as one text: the driver takes microseconds for each element of a list.
            is_uid = isinstance(column.type, SqlUuid)
            kind, elements = ("uuid[]", rest) if is_uid else ("bytea[]", [f'"\\\\x{value.hex()}"' for value in rest])
            statement = f"SELECT {name} FROM {of} WHERE {more.replace('?', '%s')}{name} = ANY(%s::{kind})"  # noqa: S608
            return {
                value.hex if isinstance(value, UUID) else bytes(value)
                for (value,) in cursor.execute(statement, (*given, f"{{{','.join(elements)}}}"))
            }
        for start in range(0, len(rest), AT_ONCE):
            part = rest[start : start + AT_ONCE]
            statement = f"SELECT {name} FROM {of} WHERE {more}{name} IN ({', '.join('?' * len(part))})"  # noqa: S608
            found.update(value for (value,) in cursor.execute(statement, (*given, *part)))
        return found


@contextmanager
def _cursor(connection: Connection) -> Iterator[Any]:
    """Yield a cursor of the driver, whose errors become those of SQLAlchemy, as those of all other statements do."""
    driver, dialect = connection.dialect.loaded_dbapi, connection.dialect
    held = connection.connection
    cursor = held.cursor()
    try:
        yield cursor
    except driver.Error as error:
        if getattr(error, "sqlstate", None) in _COLLISIONS:
            raise CollisionError("another call writes the same at this moment: try again") from error
        is_lost = dialect.is_disconnect(error, held.dbapi_connection, cursor)
        raise DBAPIError.instance(
            None, None, error, driver.Error, connection_invalidated=is_lost, dialect=dialect
        ) from error
    finally:
        cursor.close()


def _insert_sqlite(cursor: Any, statement: str, width: int, rows: Iterator[Row]) -> None:
    marks = f"({', '.join('?' * width)})"
    many = statement + ", ".join([marks] * AT_ONCE)
    while len(part := list(islice(rows, AT_ONCE))) == AT_ONCE:
        cursor.execute(many, list(chain.from_iterable(part)))
    cursor.executemany(statement + marks, part)


def _processor(type_: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """Return what binds a value, in one call for the types of which rows have most."""
    if isinstance(type_, UtcMicroseconds):
        return to_microseconds
    if dialect.name == "sqlite" and isinstance(type_, SqlUuid):
        return _to_hex
    if dialect.name == "sqlite" and isinstance(type_, LargeBinary):
        return None  # bytes are bound as they are
    return type_.dialect_impl(dialect).bind_processor(dialect)


def _to_hex(value: UUID | None) -> str | None:
    return None if value is None else value.hex


def _prepared(rows: Iterable[Row], processors: Sequence[Callable[[Any], Any] | None]) -> Iterable[Row]:
    at = [(place, process) for place, process in enumerate(processors) if process is not None]
    if not at:
        return rows
    return (_processed(row, at) for row in rows)


def _processed(row: Row, at: Sequence[tuple[int, Callable[[Any], Any]]]) -> Row:
    values = list(row)
    for place, process in at:
        values[place] = process(values[place])
    return values


def take_ids(session: Session, table: type[Base], count: int) -> Sequence[int]:
    """Return so many new keys for a table whose key counts by itself; in rising order.

    On SQLite the transaction that writes is alone, so that the next numbers stay free until it ends.
    """
    target = cast(Table, table.__table__)
    if session.get_bind().dialect.name == "postgresql":
        return _take_of_sequence(session, target.name, count)
    last = session.execute(select(func.max(target.c.id))).scalar_one() or 0
    return range(last + 1, last + 1 + count)


def _take_of_sequence(session: Session, table: str, count: int) -> Sequence[int]:
    """Return the next numbers of a sequence: by their ends, unless somebody else took numbers in between."""
    connection = session.connection()
    taken = "SELECT nextval((SELECT pg_get_serial_sequence(%s, 'id')::regclass)) AS id FROM generate_series(1, %s)"
    ends = f"SELECT min(id), max(id) FROM ({taken}) AS taken"  # noqa: S608 - a statement of ours
    first, last = connection.exec_driver_sql(ends, (table, count)).one() if count else (1, 0)
    if last - first + 1 == count:
        return range(first, last + 1)
    return sorted(connection.exec_driver_sql(taken, (table, count)).scalars())
