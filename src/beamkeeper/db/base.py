"""What every table and query stands on: column types, the engine for both databases, opening transactions."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Generic, Protocol, TypeVar, cast
from uuid import UUID
from weakref import WeakSet

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    Insert,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    TypeDecorator,
    create_engine,
    event,
    make_url,
)
from sqlalchemy import Uuid as SqlUuid
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DatabaseError, DataError, DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Session, registry

from beamkeeper.db.kinds import Document, insert_into
from beamkeeper.db.many import execute_many
from beamkeeper.db.news import News, Topic
from beamkeeper.domain.errors import InvalidError, SettingsError, UnavailableError
from beamkeeper.domain.names import Metadata

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
SQLITE_BUSY_S = 30.0
OFFLINE_GRACE = timedelta(hours=24)

LONGEST_WAIT = timedelta(minutes=10)
"""Nothing that is tried again waits longer than this."""

_COUNTED = [f"7{number:03x}" for number in range(4096)]
"""The version of a UUIDv7, and the number of one within its millisecond."""
_VARIANT = bytes(0x80 | byte & 0x3F for byte in range(256))
"""The ninth byte of one, of any byte."""


def new_uid() -> UUID:
    """Return a new UUIDv7 (RFC 9562): in the order of making, so that indexes grow at one end.

    Twelve bits tell parts of a millisecond; after those come 62 that are random.
    """
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    high = (milliseconds & 0xFFFF_FFFF_FFFF) << 16 | 0x7000 | (rest << 12) // 1_000_000
    return UUID(int=high << 64 | 0x8000_0000_0000_0000 | random.getrandbits(62))


def new_uids(count: int) -> Iterator[UUID]:
    """Yield so many new UUIDv7 in rising order, at a tenth of what they cost one by one."""
    for text in new_hexes(count):
        yield UUID(int=int(text, 16))


def new_hexes(count: int) -> Iterator[str]:
    """Yield the same as 32 hexadecimal digits, as uids are bound: for rows of which nobody needs to be told."""
    at = time.time_ns() // 1_000_000
    random_ = bytearray(os.urandom(8 * count))
    random_[::8] = random_[::8].translate(_VARIANT)
    tails = random_.hex()
    for first in range(0, count, len(_COUNTED)):
        high = f"{at + first // len(_COUNTED):012x}"
        for number, counted in enumerate(_COUNTED[: count - first], first):
            yield high + counted + tails[16 * number : 16 * number + 16]


def to_microseconds(value: datetime | None) -> int | None:
    """Return the microseconds from 1970 to an aware time."""
    return None if value is None else (value - EPOCH) // MICROSECOND


class UtcMicroseconds(TypeDecorator[datetime]):
    """An aware UTC time, stored as integer microseconds: compares alike on both databases, loses nothing."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Store the microseconds since 1970."""
        return to_microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Give the time back."""
        return None if value is None else EPOCH + timedelta(microseconds=value)


JsonDocument = Document()
"""A JSON document; what is None is `null`."""

NullableDocument = Document(none_as_null=True)
"""A JSON document, or nothing."""

BigId = BigInteger().with_variant(Integer(), "sqlite")
"""A local key that never leaves the service; SQLite counts by itself only for INTEGER PRIMARY KEY."""

ByteText = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that compares by bytes on both databases."""

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Every table; `services` of each says in whose databases it exists."""

    metadata = MetaData(naming_convention=NAMING)
    registry = registry(
        type_annotation_map={
            datetime: UtcMicroseconds(),
            UUID: SqlUuid(),
            Metadata: JsonDocument,
            bytes: LargeBinary(),
            str: ByteText,
        }
    )


class OpenedTransaction(Protocol):
    """What a database needs of a transaction class."""

    about: Topic | None
    """What all news of this transaction is about, which is told then; None where it may be about anything."""

    def __init__(self, database: Database[Any], session: Session, now: datetime) -> None: ...

    def finish(self) -> bool:
        """Write what was collected; tell whether there is news for readers of the feed."""
        ...


TransactionT = TypeVar("TransactionT", bound=OpenedTransaction)


class Database(News, Generic[TransactionT]):
    """One service's database: opens transactions, and wakes those who wait for news."""

    def __init__(
        self,
        url: str,
        transaction: type[TransactionT],
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__()
        self.engine = make_engine(url)
        # SQLite gives every transaction one view; PostgreSQL only where it is asked to.
        is_postgres = self.engine.dialect.name == "postgresql"
        self._reader = self.engine.execution_options(isolation_level="REPEATABLE READ") if is_postgres else self.engine
        self._transaction = transaction
        self._clock = clock
        self.home: str | None = None
        """The station that this database is of; what it has of other stations is a copy. None: all is its own."""
        self.offline_grace = OFFLINE_GRACE
        """So long logins count at a mirror that hears nothing of the site."""
        self.offline_key: bytes | None = None
        """What seals the logins that a station gives while it is cut off; None where it gives and takes none."""
        self._writing = threading.Lock()
        self._writer = 0

    @property
    def name(self) -> str:
        """The kind of database, for people."""
        return "PostgreSQL" if self.engine.dialect.name == "postgresql" else "SQLite"

    @contextmanager
    def read(self) -> Iterator[TransactionT]:
        """Open a transaction that only reads: one consistent view, nothing is kept."""
        with translated(self.name), Session(self._reader, expire_on_commit=False, autoflush=False) as session:
            yield self._transaction(self, session, self._clock())

    @contextmanager
    def write(self, last: Callable[[TransactionT], None] | None = None) -> Iterator[TransactionT]:
        """Open a transaction that is committed at the end, or rolled back by any exception.

        `last` is called with it when all else is written.
        """
        with (
            self._turn(),
            translated(self.name),
            self.engine.connect().execution_options(beamkeeper_write=True) as connection,
            Session(connection, expire_on_commit=False, autoflush=False) as session,
            session.begin(),
        ):
            tx = self._transaction(self, session, self._clock())
            yield tx
            is_news = tx.finish()
            if last is not None:
                last(tx)
        if tx.about is not None:
            self.tell(tx.about, *((Topic.EVENTS,) if is_news else ()))
        elif is_news:
            self.tell()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for the other writers here: SQLite would look again after pauses that grow to a tenth of a second.

        A thread that opened another before it has written in the first does not wait for itself. A transaction may
        end in another thread than it began in, as those of requests do.
        """
        me, is_mine = threading.get_ident(), False
        if self.engine.dialect.name == "sqlite" and self._writer != me:
            is_mine = self._writing.acquire(timeout=SQLITE_BUSY_S)
        if is_mine:
            self._writer = me
        try:
            yield
        finally:
            if is_mine:
                self._writer = 0
                self._writing.release()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Turn a database that does not answer into one sentence."""
    try:
        yield
    except OperationalError as error:
        raise UnavailableError(
            f"the {name} database does not answer ({_first_line(error)}): "
            f"see that it runs and has space, then try again"
        ) from error
    except DataError as error:
        raise InvalidError(f"the {name} database refuses a value ({_first_line(error)}): give another") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise UnavailableError(f"the {name} database ended the connection: try again") from error
        if type(error) is DatabaseError:  # what SQLite says of a file that is none of its own, or is malformed
            raise UnavailableError(
                f"the {name} database is damaged ({_first_line(error)}): bring a backup back with `dm restore`"
            ) from error
        raise


def _first_line(error: SQLAlchemyError) -> str:
    text = str(getattr(error, "orig", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__


_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def make_engine(url: str) -> Engine:
    """Return an engine whose transactions mean the same on both databases."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(
            parsed,
            json_serializer=_dump,
            connect_args={"timeout": SQLITE_BUSY_S, "check_same_thread": False, "factory": _SqliteConnection},
        )
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "reset", _end_reading)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if not find_spec("psycopg"):
        raise SettingsError("PostgreSQL needs psycopg: install it with `pip install 'beamkeeper[postgresql]'`")
    return create_engine(
        parsed,
        json_serializer=_dump,
        pool_pre_ping=True,
        pool_size=10,
        max_overflow=20,
        isolation_level="READ COMMITTED",
        connect_args={"options": "-c timezone=UTC", "connect_timeout": 5},
    )


class _SqliteConnection(sqlite3.Connection):
    """Knows what is being read by it.

    A query that is not read to its end keeps SQLite's view of the data as it was, also beyond the end of its
    transaction: whoever had the connection next would read the past, and not find what was just written.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cursors: WeakSet[sqlite3.Cursor] = WeakSet()

    def cursor(self, *args: Any, **options: Any) -> sqlite3.Cursor:  # type: ignore[override]
        made: sqlite3.Cursor = super().cursor(*args, **options)
        self.cursors.add(made)
        return made


def _end_reading(connection: _SqliteConnection, _record: object, _state: object) -> None:
    for cursor in list(connection.cursors):
        cursor.close()


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # we begin transactions ourselves, below
    _use_wal(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY", "cache_size=-8000"):
        connection.execute(f"PRAGMA {pragma}")


def _use_wal(connection: sqlite3.Connection) -> None:
    # A new file changes its mode once, alone; SQLite does not wait for others who are about to do the same.
    deadline = time.monotonic() + SQLITE_BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later cannot wait for another writer: SQLite refuses it at
    # once. So one that will write takes the write lock as it begins.
    is_write = connection.get_execution_options().get("beamkeeper_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")


def is_due(at: ColumnElement[Any] | InstrumentedAttribute[Any], now: datetime) -> ColumnElement[bool]:
    """Whether the time to go on with something has come.

    A time further ahead than anything ever waits was written by a clock that was set back since: it has come too.
    """
    return (at <= now) | (at > now + LONGEST_WAIT)


def upsert(
    session: Session,
    table: type[Base],
    rows: Sequence[Mapping[str, Any]],
    *,
    key: Sequence[str],
    keep: Collection[str] = (),
    where: ColumnElement[bool] | None = None,
) -> None:
    """Insert rows; where `key` is there already, replace all columns but those of `keep`, if `where` holds."""
    if not rows:
        return
    is_postgres = session.get_bind().dialect.name == "postgresql"
    changed = tuple(name for name in rows[0] if name not in keep and name not in key)
    make = _upserting if where is None else _upserting.__wrapped__
    execute_many(session, make(table, tuple(key), changed, where, is_postgres=is_postgres), rows)


@lru_cache(maxsize=256)
def _upserting(
    table: type[Base],
    key: tuple[str, ...],
    changed: tuple[str, ...],
    where: ColumnElement[bool] | None,
    *,
    is_postgres: bool,
) -> Insert:
    """Build the statement of `upsert`: that takes longer than to execute it for a few rows."""
    statement: Any = insert_into(table, is_postgres=is_postgres)
    if not changed:
        return cast(Insert, statement.on_conflict_do_nothing(index_elements=list(key)))
    new = {name: statement.excluded[name] for name in changed}
    return cast(Insert, statement.on_conflict_do_update(index_elements=list(key), set_=new, where=where))
