"""Saving a service's database to a file, bringing it back, and copying it to the other kind of database.

A backup is one format for both databases: JSON lines, compressed by gzip. First comes an object that says
whose it is; then for each table an object with its name and columns, and a list for each row; last an object
with the number of rows of each table and the digest of all lines before it, without which it is not whole. The search
index is not in it: it is made anew from the files.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from blake3 import blake3
from sqlalchemy import Connection, LargeBinary, Table, Uuid, delete, func, insert, inspect, select
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

import beamkeeper
from beamkeeper.db import migrations, schema, upgrade
from beamkeeper.db.audit_log import protect, release
from beamkeeper.db.base import EPOCH, MICROSECOND, Database, UtcMicroseconds, translated
from beamkeeper.db.events import Events, SequenceRow
from beamkeeper.db.opening import open_database
from beamkeeper.db.search import note_all
from beamkeeper.domain.errors import ConflictError, DestinationError, InvalidError, NotFoundError
from beamkeeper.domain.status import Service

FORMAT = "beamkeeper-backup-1"
BATCH = 1000
Row = Sequence[Any]


@dataclass(slots=True)
class Done:
    """What was saved, brought back or copied: the number of rows of each table."""

    tables: dict[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many rows there are in all tables together."""
        return sum(self.tables.values())


def save(database: Database[Any], service: Service, path: Path) -> Done:
    """Save a database as it is at one instant, while it is in use; the file appears when it is whole."""
    upgrade.check(database, service)
    new = path.with_name(f".{path.name}.new")
    try:
        with _snapshot(database) as connection, _private(new) as raw, gzip.GzipFile("", "wb", 6, raw, 0) as packed:
            done = _write(connection, service, packed)
        new.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise DestinationError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        new.unlink(missing_ok=True)
    return done


def check(path: Path, service: Service) -> Done:
    """Read a backup to its end, and refuse one that is damaged, of another service or of another schema."""
    done = Done()
    with _Reader(path, service) as reader:
        for table, rows in reader.tables():
            done.tables[table.name] = sum(1 for _ in rows)
        reader.check_end(done)
    return done


def restore(url: str, service: Service, path: Path) -> Done:
    """Bring a backup back into an empty database, all or nothing; readers of its feed begin anew."""
    with restoring(url, service, path) as done:
        return done


@contextmanager
def restoring(url: str, service: Service, path: Path, *, replace: bool = False) -> Iterator[Done]:
    """Bring a backup back in a transaction that is committed with the end of the block.

    The database has to be empty; with `replace`, what is in it goes.
    """
    with _Reader(path, service) as reader, _empty(url, service, replace=replace) as connection:
        done = _load(connection, reader.tables())
        reader.check_end(done)
        with Session(connection) as session:
            Events(session, datetime.now(UTC)).begin_epoch()
            session.flush()
        yield done


def is_empty(url: str, service: Service) -> bool:
    """Whether there is nothing in a database that a restore would replace."""
    with closing(open_database(url, service)) as database, translated(database.name):
        if upgrade.is_empty(database):
            return True
        with database.engine.connect() as connection:
            there = set(inspect(connection).get_table_names())
            return not any(_has_rows(connection, table) for table in schema.tables(service) if table.name in there)


def copy(from_url: str, to_url: str, service: Service) -> Done:
    """Copy a database into an empty one of either kind, all or nothing; its feed goes on where it was."""
    with closing(open_database(from_url, service)) as source:
        upgrade.check(source, service)
        with _snapshot(source) as connection, _empty(to_url, service) as target:
            tables = schema.kept(service)
            done = _load(target, ((table, _rows(connection, table)) for table in tables))
            expected = {table.name: _count(connection, table) for table in tables}
            if done.tables != expected:
                raise ConflictError(f"the copy of the {service} database is not complete: nothing was kept")
    return done


@contextmanager
def _snapshot(database: Database[Any]) -> Iterator[Connection]:
    """Open a transaction that sees the database as it is at its first query."""
    # SQLite has one instant for each transaction anyway, and calls it serializable.
    level = "REPEATABLE READ" if database.engine.dialect.name == "postgresql" else "SERIALIZABLE"
    engine = database.engine.execution_options(isolation_level=level)
    with translated(database.name), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def _empty(url: str, service: Service, *, replace: bool = False) -> Iterator[Connection]:
    """Open the one transaction that fills an empty database, with the tables made and nothing in them."""
    with (
        closing(open_database(url, service)) as database,
        translated(database.name),
        database.engine.connect().execution_options(beamkeeper_write=True) as connection,
        connection.begin(),
    ):
        upgrade.run(connection, service)
        release(connection)
        for table in reversed(schema.tables(service)):
            if replace or table.name == SequenceRow.__tablename__:
                connection.execute(delete(table))
            elif _has_rows(connection, table):
                raise ConflictError(
                    f"the {database.name} database of the {service} service is not empty (it has {table.name}): "
                    f"name a new one, or move this one away"
                )
        yield connection
        protect(connection)


def _has_rows(connection: Connection, table: Table) -> bool:
    """Whether a table has a row; the sequence has one from the beginning, which counts for nothing."""
    is_sequence = table.name == SequenceRow.__tablename__
    return not is_sequence and connection.execute(select(table).limit(1)).first() is not None


class _Codec(NamedTuple):
    """How a value of a column is written in JSON, and read again."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def _codec(kind: TypeEngine[Any]) -> _Codec:
    if isinstance(kind, UtcMicroseconds):
        return _Codec(lambda time: (time - EPOCH) // MICROSECOND, lambda count: EPOCH + timedelta(microseconds=count))
    if isinstance(kind, Uuid):
        return _Codec(str, UUID)
    if isinstance(kind, LargeBinary):
        return _Codec(lambda raw: base64.b64encode(raw).decode(), lambda text: base64.b64decode(text, validate=True))
    return _Codec(lambda value: value, lambda value: value)


def _rows(connection: Connection, table: Table) -> Iterator[Row]:
    """Yield a table's rows in the order of its key, without holding them all."""
    wanted = select(table).order_by(*table.primary_key).execution_options(yield_per=BATCH)
    for row in connection.execute(wanted):
        yield tuple(row)


def _count(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _load(connection: Connection, tables: Iterable[tuple[Table, Iterable[Row]]]) -> Done:
    done = Done()
    for table, rows in tables:
        names = [column.name for column in table.columns]
        waiting = iter(rows)
        try:
            while batch := [dict(zip(names, row, strict=True)) for row in islice(waiting, BATCH)]:
                connection.execute(insert(table), batch)
        except (DataError, IntegrityError) as error:
            reason = str(error.orig).splitlines()[0]
            raise InvalidError(f"table {table.name} has a row that the database does not take: {reason}") from error
        done.tables[table.name] = _count(connection, table)
        _go_on_counting(connection, table)
    if "files" in done.tables:
        note_all(connection, datetime.now(UTC))
    return done


def _go_on_counting(connection: Connection, table: Table) -> None:
    """Let PostgreSQL give out keys beyond those that were brought along; SQLite does so by itself."""
    key = table.autoincrement_column
    if connection.dialect.name != "postgresql" or key is None:
        return
    last = connection.execute(select(func.max(key))).scalar_one()
    if last is not None:
        connection.execute(select(func.setval(func.pg_get_serial_sequence(table.name, key.name), last)))


class _Packed:
    """Lines on their way into a file, with their digest."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file
        self._digest = blake3()

    def write(self, value: object) -> None:
        line = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        self._digest.update(line)
        self._file.write(line)

    def digest(self) -> str:
        return self._digest.hexdigest()


def _write(connection: Connection, service: Service, file: gzip.GzipFile) -> Done:
    packed, done = _Packed(file), Done()
    packed.write(
        {
            "format": FORMAT,
            "service": str(service),
            "schema": migrations.HEAD,
            "beamkeeper": beamkeeper.__version__,
            "epoch": connection.execute(select(SequenceRow.epoch)).scalar_one(),
            "saved_at": datetime.now(UTC).isoformat(),
        }
    )
    for table in schema.kept(service):
        codecs = [_codec(column.type) for column in table.columns]
        packed.write({"table": table.name, "columns": [column.name for column in table.columns]})
        done.tables[table.name] = 0
        for row in _rows(connection, table):
            packed.write([None if v is None else codec.write(v) for v, codec in zip(row, codecs, strict=True)])
            done.tables[table.name] += 1
    packed.write({"rows": done.tables, "blake3": packed.digest()})
    return done


class _Reader:
    """A backup that is read once, from its first line to its last."""

    def __init__(self, path: Path, service: Service) -> None:
        self._path = path
        self._service = service
        self._digest = blake3()
        self._end: Mapping[str, Any] = {}

    def __enter__(self) -> _Reader:
        try:
            self._file = gzip.open(self._path, "rb")
        except FileNotFoundError as error:
            raise NotFoundError(f"there is no backup {self._path}") from error
        except OSError as error:
            raise InvalidError(f"{self._path} cannot be read: {error.strerror or error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def tables(self) -> Iterator[tuple[Table, Iterable[Row]]]:
        """Yield the tables with their rows; those of one are to be taken before the next is asked for."""
        lines = self._lines()
        self._check_head(next(lines, None))
        waiting = next(lines, None)
        for table in schema.kept(self._service):
            names = [column.name for column in table.columns]
            if waiting != {"table": table.name, "columns": names}:
                raise self._damaged()
            rows = _Rows(lines, [_codec(column.type) for column in table.columns], self._damaged)
            yield table, rows
            waiting = rows.after
        if not isinstance(waiting, dict) or "rows" not in waiting:
            raise self._damaged()
        self._end = waiting

    def check_end(self, done: Done) -> None:
        """Refuse a backup whose rows are not as many, or not the same, as were saved."""
        if self._end.get("rows") != done.tables:
            raise self._damaged()

    def _lines(self) -> Iterator[Any]:
        try:
            for line in self._file:
                value = json.loads(line)
                if isinstance(value, dict) and "blake3" in value and value["blake3"] != self._digest.hexdigest():
                    raise self._damaged()
                self._digest.update(line)
                yield value
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise self._damaged() from error

    def _check_head(self, head: Any) -> None:
        if not isinstance(head, dict) or head.get("format") != FORMAT:
            raise InvalidError(f"{self._path} is no backup of Beamkeeper")
        if head.get("service") != self._service:
            raise InvalidError(f"{self._path} is a backup of the {head.get('service')} service, not of {self._service}")
        if head.get("schema") != migrations.HEAD:
            raise InvalidError(
                f"{self._path} was saved by Beamkeeper {head.get('beamkeeper')} with another schema: "
                f"restore it with that version, then run `dm db upgrade` with this one"
            )

    def _damaged(self) -> InvalidError:
        return InvalidError(f"{self._path} is damaged or not whole: use another backup")


class _Rows:
    """The rows of one table, and the line after them."""

    def __init__(self, lines: Iterator[Any], codecs: Sequence[_Codec], damaged: Callable[[], Exception]) -> None:
        self._lines = lines
        self._codecs = codecs
        self._damaged = damaged
        self.after: Any = None

    def __iter__(self) -> Iterator[Row]:
        for line in self._lines:
            if not isinstance(line, list):
                self.after = line
                return
            try:
                row = [None if v is None else codec.read(v) for v, codec in zip(line, self._codecs, strict=True)]
            except (TypeError, ValueError, OverflowError) as error:
                raise self._damaged() from error
            yield row


@contextmanager
def _private(path: Path) -> Iterator[Any]:
    """Open a new file that only its owner may read; what was written is on the disk at the end."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
