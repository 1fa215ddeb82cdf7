"""Backups and copies hold everything, on both databases and from one to the other, or nothing."""

from __future__ import annotations

import gzip
import json
import stat
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import BigInteger, Table, insert, inspect, select

from beamkeeper.db import Database, backup, open_database, schema, upgrade
from beamkeeper.db.base import UtcMicroseconds, new_uid
from beamkeeper.db.kinds import Document
from beamkeeper.domain.errors import ConflictError, DestinationError, DmError, GoneError, InvalidError, NotFoundError
from beamkeeper.domain.events import NewEvent
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import Reach
from beamkeeper.testing.catalogue import new_file

Dump = dict[str, list[tuple[Any, ...]]]


def dumped(url: str, service: Service) -> Dump:
    """Return every row of a service's tables, but the sequence."""
    with closing(open_database(url, service)) as database, database.engine.connect() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in schema.kept(service)
            if table.name != "sequence"
        }


def sample(table: Table, column: Any, number: int) -> Any:
    """Return a value for a column, awkward where it may be."""
    if column.foreign_keys:
        return None if column.nullable else ("same", next(iter(column.foreign_keys)).column.name)
    if isinstance(column.type, UtcMicroseconds):
        return datetime(9999, 12, 31, 23, 59, 59, 999999 - number, tzinfo=UTC)
    if isinstance(column.type, Document):
        return {"a": [1, 2.5, None, True, "é\\", 2**63 - 1], "number": number}
    if isinstance(column.type, BigInteger) and not column.primary_key:
        return 2**63 - 1 - number
    kind = column.type.python_type
    values: dict[type, Any] = {
        int: number if column.primary_key else 2**31 - 1 - number,
        str: f'{table.name} {column.name} {number} \n"\u2028é\U0001f52c\\',
        bytes: b"\x00\xff/" + str(number).encode(),
        bool: number % 2 == 0,
        float: 0.1 + number,
    }
    return new_uid() if kind.__name__ == "UUID" else values[kind]


def fill(url: str, service: Service, rows: int = 3) -> None:
    """Put rows with awkward values into every table of a service."""
    upgrade.upgrade(url, service)
    made: dict[str, list[dict[str, Any]]] = {}
    with closing(open_database(url, service)) as database, database.write() as tx:
        for table in schema.kept(service):
            if table.name == "sequence":
                continue
            made[table.name] = [
                {column.name: sample(table, column, number) for column in table.columns}
                for number in range(1, rows + 1)
            ]
            for number, row in enumerate(made[table.name]):
                for column in table.columns:
                    if isinstance(row[column.name], tuple):
                        target = next(iter(column.foreign_keys)).column
                        row[column.name] = made[target.table.name][number][target.name]
            tx.session.execute(insert(table), made[table.name])


@pytest.fixture
def other_url(request: pytest.FixtureRequest, tmp_path: Path, database_url: str) -> str:
    """An empty database of the other kind than `database_url`."""
    if database_url.startswith("sqlite"):
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'other.db'}"


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[str, Service], Path]:
    def save(url: str, service: Service) -> Path:
        with closing(open_database(url, service)) as database:
            backup.save(database, service, tmp_path / "backup.jsonl.gz")
        return tmp_path / "backup.jsonl.gz"

    return save


@pytest.mark.parametrize("service", list(Service))
def test_a_backup_brings_everything_back_on_the_other_kind_of_database(
    database_url: str, other_url: str, saved: Callable[[str, Service], Path], service: Service
) -> None:
    fill(database_url, service)
    path = saved(database_url, service)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    checked = backup.check(path, service)
    assert backup.restore(other_url, service, path) == checked
    assert checked.rows == 3 * len(dumped(database_url, service)) + 1
    assert dumped(other_url, service) == dumped(database_url, service)


@pytest.mark.parametrize("service", list(Service))
def test_a_copy_holds_everything_and_the_feed_goes_on(database_url: str, other_url: str, service: Service) -> None:
    fill(database_url, service)
    done = backup.copy(database_url, other_url, service)
    assert dumped(other_url, service) == dumped(database_url, service)
    with closing(open_database(database_url, service)) as one, closing(open_database(other_url, service)) as two:
        with one.read() as tx:
            cursor = tx.events.cursor()
        with two.read() as tx:
            assert tx.events.cursor() == cursor
        upgrade.check(two, service)
    assert done.rows == 3 * len(dumped(database_url, service)) + 1


def catalogue_at(url: str) -> Database[Any]:
    return open_database(url, Service.CATALOG)


FILES = 1200
"""More than go in one batch."""


@pytest.fixture
def living(tmp_path: Path) -> str:
    """The URL of a catalogue with some files."""
    return catalogue_of(tmp_path, FILES)


def catalogue_of(directory: Path, count: int) -> str:
    url = f"sqlite:///{directory / 'living.db'}"
    upgrade.upgrade(url, Service.CATALOG)
    with closing(catalogue_at(url)) as database, database.write() as tx:
        tx.files.register([new_file(f"data/{i}") for i in range(count)], by="me")
        tx.events.add(NewEvent(kind="files.available"))
    return url


def test_what_was_restored_works_on(living: str, database_url: str, saved: Callable[[str, Service], Path]) -> None:
    with closing(catalogue_at(living)) as database, database.read() as tx:
        before = tx.events.cursor()
    done = backup.restore(database_url, Service.CATALOG, saved(living, Service.CATALOG))
    assert done.tables["versions"] == FILES
    with closing(catalogue_at(database_url)) as database:
        upgrade.check(database, Service.CATALOG)
        with database.write() as tx:
            assert tx.events.cursor().number == before.number
            with pytest.raises(GoneError):
                tx.events.after(before, limit=1, reach=Reach(is_all=True))
            tx.files.register([new_file("data/more")], by="me")
            tx.events.add(NewEvent(kind="files.available"))
        with database.read() as tx:
            assert tx.events.cursor().number == before.number + 1
            assert len(tx.files.find(FileQuery(glob="data/more"), Reach(is_all=True)).items) == 1


def test_a_backup_is_of_one_instant(living: str, saved: Callable[[str, Service], Path]) -> None:
    with closing(catalogue_at(living)) as database, database.write() as tx:
        tx.files.register([new_file("data/unfinished")], by="me")
        path = saved(living, Service.CATALOG)
    assert backup.check(path, Service.CATALOG).tables["files"] == FILES


def test_a_database_that_is_not_empty_is_left_alone(
    living: str, database_url: str, saved: Callable[[str, Service], Path]
) -> None:
    path = saved(living, Service.CATALOG)
    fill(database_url, Service.CATALOG)
    before = dumped(database_url, Service.CATALOG)
    with pytest.raises(ConflictError, match="is not empty"):
        backup.restore(database_url, Service.CATALOG, path)
    with pytest.raises(ConflictError, match="is not empty"):
        backup.copy(living, database_url, Service.CATALOG)
    assert dumped(database_url, Service.CATALOG) == before


def test_what_is_to_be_replaced_is_replaced_as_a_whole_or_not_at_all(
    living: str, database_url: str, saved: Callable[[str, Service], Path]
) -> None:
    path = saved(living, Service.CATALOG)
    assert backup.is_empty(database_url, Service.CATALOG)
    fill(database_url, Service.CATALOG)
    assert not backup.is_empty(database_url, Service.CATALOG)
    before = dumped(database_url, Service.CATALOG)
    with (
        pytest.raises(RuntimeError, match="interrupted"),
        backup.restoring(database_url, Service.CATALOG, path, replace=True),
    ):
        raise RuntimeError("interrupted")
    assert dumped(database_url, Service.CATALOG) == before
    with backup.restoring(database_url, Service.CATALOG, path, replace=True) as done:
        assert done.tables["versions"] == FILES
    assert dumped(database_url, Service.CATALOG) == dumped(living, Service.CATALOG)


def test_a_database_that_has_tables_and_no_rows_is_empty(living: str, database_url: str) -> None:
    upgrade.upgrade(database_url, Service.CATALOG)
    assert backup.copy(living, database_url, Service.CATALOG).tables["files"] == FILES


Damage = Callable[[bytes], bytes]


def lines_changed(change: Callable[[list[bytes]], list[bytes]]) -> Damage:
    return lambda packed: gzip.compress(b"".join(change(gzip.decompress(packed).splitlines(keepends=True))))


def with_head(**values: str) -> Damage:
    return lines_changed(lambda lines: [json.dumps({**json.loads(lines[0]), **values}).encode() + b"\n", *lines[1:]])


DAMAGE: dict[str, tuple[Damage, str]] = {
    "cut": (lambda packed: packed[: len(packed) // 2], "damaged"),
    "end missing": (lines_changed(lambda lines: lines[:-1]), "damaged"),
    "row missing": (lines_changed(lambda lines: [*lines[:-2], lines[-1]]), "damaged"),
    "row twice": (lines_changed(lambda lines: [*lines[:-1], lines[-2], lines[-1]]), "damaged|does not take"),
    "byte changed": (lines_changed(lambda lines: [line.replace(b"data/7", b"data/8") for line in lines]), "damaged"),
    "not packed": (gzip.decompress, "damaged"),
    "empty": (lambda _: b"", "no backup of Beamkeeper"),
    "another file": (lambda _: gzip.compress(b'{"a": 1}\n'), "no backup of Beamkeeper"),
    "another service": (with_head(service="storage"), "a backup of the storage service"),
    "another schema": (with_head(schema="9999", beamkeeper="99.0"), "saved by Beamkeeper 99.0"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_backup_is_refused_and_leaves_nothing(
    tmp_path: Path, saved: Callable[[str, Service], Path], name: str
) -> None:
    damage, sentence = DAMAGE[name]
    path = saved(catalogue_of(tmp_path, 20), Service.CATALOG)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InvalidError, match=sentence):
        backup.check(path, Service.CATALOG)
    url = f"sqlite:///{tmp_path / 'target.db'}"
    with pytest.raises(InvalidError, match=sentence):
        backup.restore(url, Service.CATALOG, path)
    with closing(catalogue_at(url)) as database, database.engine.connect() as connection:
        assert inspect(connection).get_table_names() == []


def test_a_backup_that_fails_leaves_the_one_before(living: str, tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl.gz"
    with closing(catalogue_at(living)) as database:
        backup.save(database, Service.CATALOG, path)
        kept = path.read_bytes()
        with pytest.raises(DmError):
            backup.save(database, Service.STORAGE, path)
        assert path.read_bytes() == kept
        with pytest.raises(DestinationError, match="nowhere"):
            backup.save(database, Service.CATALOG, tmp_path / "nowhere" / "backup.jsonl.gz")
    assert [entry.name for entry in tmp_path.iterdir() if "new" in entry.name] == []


def test_a_backup_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        backup.check(tmp_path / "none.gz", Service.CATALOG)
