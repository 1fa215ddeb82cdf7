"""What is of one kind on SQLite and of another on PostgreSQL: documents, words, partial indexes, inserts and lists.

PostgreSQL's dialect takes 3 MB of memory: it is imported where there is such a database, and not for the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    ForeignKeyConstraint,
    Index,
    Integer,
    Select,
    Text,
    any_,
    bindparam,
    event,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

_INTEGER = Integer()


class Document(TypeDecorator[Any]):
    """A JSON document; JSONB on PostgreSQL."""

    impl = JSON
    cache_ok = True

    def __init__(self, none_as_null: bool = False) -> None:
        super().__init__(none_as_null=none_as_null)
        self.none_as_null = none_as_null
        self.should_evaluate_none = not none_as_null

    @property
    def python_type(self) -> type[Any]:
        """An object, mostly."""
        return dict

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return how this database keeps it."""
        if dialect.name != "postgresql":
            return dialect.type_descriptor(JSON(none_as_null=self.none_as_null))
        from sqlalchemy.dialects.postgresql import JSONB

        return dialect.type_descriptor(JSONB(none_as_null=self.none_as_null))


class Words(TypeDecorator[str]):
    """The words of a document: a tsvector on PostgreSQL."""

    impl = Text
    cache_ok = True

    @property
    def python_type(self) -> type[Any]:
        """Their text."""
        return str

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return how this database keeps them."""
        if dialect.name != "postgresql":
            return dialect.type_descriptor(Text())
        from sqlalchemy.dialects.postgresql import TSVECTOR

        return dialect.type_descriptor(TSVECTOR())


def partial_index(name: str, *columns: str, on_sqlite: str, on_postgresql: str) -> Index:
    """Return an index of the rows for which a condition holds."""
    return _where(Index(name, *columns, sqlite_where=text(on_sqlite)), on_postgresql)


def _where(index: Index, condition: str) -> Index:
    """Say of which rows an index is on PostgreSQL, once it is made on one."""

    def before_create(target: Index, connection: Connection, **_: Any) -> None:
        if connection.dialect.name == "postgresql":
            target.dialect_kwargs["postgresql_where"] = text(condition)

    event.listen(index, "before_create", before_create)
    return index


ONLY_ON = "only_on"
"""What is said of a part of a table that one database alone has: which."""


def only_on_postgresql(name: str, *columns: str, where: str) -> Index:
    """Return an index, of the rows for which a condition holds, that SQLite does without."""
    made = Index(name, *columns, info={ONLY_ON: "postgresql"})
    made.ddl_if(dialect="postgresql")
    return _where(made, where)


def kept_by_us(name: str, target: str) -> ForeignKeyConstraint:
    """Return a foreign key that SQLite keeps, and that on PostgreSQL is kept by those who write: see ADR 0036."""
    return ForeignKeyConstraint([name], [target], info={ONLY_ON: "sqlite"}).ddl_if(dialect="sqlite")


def insert_into(table: Any, *, is_postgres: bool) -> Any:
    """Return an INSERT of a database's own kind, which can say what is done about a row that is there."""
    if not is_postgres:
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)


def one_of(column: Any, numbers: Sequence[int], *, is_postgres: bool) -> ColumnElement[bool]:
    """Return the condition that a column has one of these numbers of ours.

    On PostgreSQL they are one array: hundreds bound one by one cost the planner and the driver milliseconds. On SQLite,
    which has none, they stand in the statement itself.
    """
    if not is_postgres:
        found = bindparam(None, numbers, _INTEGER, expanding=True, literal_execute=True)
        return column.in_(found)  # type: ignore[no-any-return]
    return column == any_(_array(numbers, column.type))  # type: ignore[no-any-return]


def rows_of(numbers: Sequence[int], like: Any) -> Select[Any]:
    """Return these numbers of ours as rows, in a column of the name and type of another: on PostgreSQL alone."""
    return select(func.unnest(_array(numbers, like.type), type_=like.type).column_valued(like.key))


def _array(numbers: Sequence[int], type_: TypeEngine[Any]) -> Any:
    return literal(f"{{{','.join(map(str, numbers))}}}", _array_of(type_))


@cache
def _array_of(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    from sqlalchemy.dialects.postgresql import ARRAY

    class Listed(TypeDecorator[str]):
        """An array as one text, as PostgreSQL reads it: the driver looks at each element of a list."""

        impl = ARRAY
        cache_ok = True

        def bind_processor(self, dialect: Dialect) -> None:
            """Bind the text as it is."""

    return Listed(type_)
