"""The migrations make what the models say, on both databases, and a start says what is to be done."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from beamkeeper.db import Database, migrations, open_database, schema, upgrade
from beamkeeper.db.base import Base
from beamkeeper.db.kinds import ONLY_ON
from beamkeeper.db.search.tables import WORDS
from beamkeeper.domain.errors import SettingsError, UnavailableError
from beamkeeper.domain.status import Service
from beamkeeper.testing.servers import PostgresServer, drop_database, fresh_database

EVERY = pytest.mark.parametrize("service", list(Service))


def described(connection: Connection) -> list[str]:
    """Return everything that a database says of its tables, but for those of the migrations themselves."""
    if connection.dialect.name == "sqlite":
        tables = connection.execute(text("SELECT sql FROM sqlite_master WHERE tbl_name NOT LIKE 'alembic%'"))
        # The order of the constraints within a table says nothing.
        return sorted(" ".join(sorted(line.strip(" ,\t") for line in (row.sql or "").splitlines())) for row in tables)
    queries = (
        "SELECT table_name, column_name, data_type, collation_name, is_nullable, column_default, is_identity "
        "FROM information_schema.columns WHERE table_schema = 'public' AND table_name NOT LIKE 'alembic%'",
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename NOT LIKE 'alembic%'",
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text NOT LIKE 'alembic%'",
    )
    return sorted(str(tuple(row)) for query in queries for row in connection.execute(text(query)))


def described_at(database: Database[Any]) -> list[str]:
    with database.engine.connect() as connection:
        return described(connection)


@EVERY
def test_an_upgrade_from_nothing_makes_what_the_models_say(database_url: str, service: Service) -> None:
    upgrade.upgrade(database_url, service)
    names = {table.name for table in schema.tables(service)}

    def is_ours(thing: Any, name: str | None, kind: str, __: bool, ___: object) -> bool:
        # The full-text index is made by hand: each database has a kind of its own, which the comparison does not know.
        is_here = not hasattr(thing, "info") or thing.info.get(ONLY_ON, database_url[:6]) == database_url[:6]
        return is_here and name != WORDS and (kind != "table" or name in names)

    with closing(open_database(database_url, service)) as database:
        upgrade.check(database, service)
        with database.engine.connect() as connection:
            made = {name for name in inspect(connection).get_table_names() if not name.startswith(WORDS)}
            assert made == {*names, upgrade.VERSION_TABLE}
            context = MigrationContext.configure(connection, opts={"include_object": is_ours})
            assert compare_metadata(context, Base.metadata) == []
        with database.read() as tx:
            assert tx.events.cursor().number == 0


@EVERY
def test_on_sqlite_both_ways_make_the_same_tables(tmp_path: Path, service: Service) -> None:
    made, migrated = (f"sqlite:///{tmp_path / name}.db" for name in ("made", "migrated"))
    assert _both(made, migrated, service)


@EVERY
def test_on_postgresql_both_ways_make_the_same_tables(
    postgres_url: str, postgres_server: PostgresServer, service: Service
) -> None:
    other = fresh_database(postgres_server)
    assert _both(postgres_url, other, service)
    drop_database(postgres_server, other)


def _both(made: str, migrated: str, service: Service) -> Sequence[str]:
    upgrade.upgrade(migrated, service)
    with closing(open_database(made, service)) as one, closing(open_database(migrated, service)) as two:
        schema.create(one, service)
        expected = described_at(one)
        assert described_at(two) == expected
    return expected


def test_an_upgrade_of_what_is_new_enough_changes_nothing(database_url: str) -> None:
    upgrade.upgrade(database_url, Service.CATALOG)
    with closing(open_database(database_url, Service.CATALOG)) as database:
        with database.read() as tx:
            cursor = tx.events.cursor()
        upgrade.upgrade(database_url, Service.CATALOG)
        with database.read() as tx:
            assert tx.events.cursor() == cursor


def test_two_who_upgrade_at_once_do_not_meet(database_url: str) -> None:
    faults: list[Exception] = []

    def run() -> None:
        try:
            upgrade.upgrade(database_url, Service.STORAGE)
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_an_upgrade_that_fails_leaves_nothing(database_url: str) -> None:
    with closing(open_database(database_url, Service.CATALOG)) as database:
        with database.engine.connect().execution_options(beamkeeper_write=True) as connection, connection.begin():
            connection.execute(text("CREATE TABLE verifications (id INTEGER)"))
        with pytest.raises(Exception, match="verifications"):
            upgrade.upgrade(database_url, Service.CATALOG)
        with database.engine.connect() as connection:
            assert inspect(connection).get_table_names() == ["verifications"]


def test_a_start_says_what_is_to_be_done(database_url: str) -> None:
    with closing(open_database(database_url, Service.CATALOG)) as database:
        assert upgrade.is_empty(database)
        with pytest.raises(SettingsError, match="dm db upgrade"):
            upgrade.check(database, Service.CATALOG)
        upgrade.upgrade(database_url, Service.CATALOG)
        assert not upgrade.is_empty(database)
        upgrade.check(database, Service.CATALOG)
        with pytest.raises(SettingsError, match="that of another service"):
            upgrade.check(database, Service.STORAGE)
        for found, sentence in (("0001", "an older Beamkeeper.*dm db upgrade"), ("9999", "a newer Beamkeeper")):
            with database.engine.connect().execution_options(beamkeeper_write=True) as connection, connection.begin():
                connection.execute(text("UPDATE alembic_version SET version_num = :found"), {"found": found})
            with pytest.raises(SettingsError, match=sentence):
                upgrade.check(database, Service.CATALOG)


def test_a_database_that_does_not_answer_is_unavailable() -> None:
    url = "postgresql+psycopg://nobody:x@127.0.0.1:1/none"
    with closing(open_database(url, Service.CATALOG)) as database, pytest.raises(UnavailableError):
        upgrade.check(database, Service.CATALOG)


def test_without_its_driver_postgresql_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SettingsError, match=r"beamkeeper\[postgresql\]"):
        open_database("postgresql+psycopg://nobody:x@127.0.0.1:1/none", Service.CATALOG)


def test_a_start_looks_for_the_newest_step_without_alembic(tmp_path: Path) -> None:
    settings = Config()
    settings.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(settings).get_current_head() == migrations.HEAD
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    upgrade.upgrade(url, Service.CATALOG)
    code = (
        "import sys\n"
        "from beamkeeper.db import open_database, upgrade\n"
        f"upgrade.check(open_database({url!r}, 'catalog'), 'catalog')\n"
        "sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
