"""Whether a database has the schema of this version, and bringing it there."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, inspect, select, text

from beamkeeper.db import migrations, schema
from beamkeeper.db.base import Database, translated
from beamkeeper.db.opening import open_database
from beamkeeper.domain.errors import SettingsError
from beamkeeper.domain.status import Service

VERSION_TABLE = "alembic_version"
_LOCK = 7_001_000
"""PostgreSQL's advisory lock of one who upgrades; any number that nobody else uses."""


def is_empty(database: Database[Any]) -> bool:
    """Whether a database has no tables at all, as before the first start."""
    with translated(database.name), database.engine.connect() as connection:
        return not inspect(connection).get_table_names()


def revision(connection: Connection) -> str | None:
    """Return the newest step that was made in a database; None before the first."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608
    return found


def check(database: Database[Any], service: Service) -> None:
    """Refuse a database that has not exactly this version's schema, saying what to do."""
    with translated(database.name), database.engine.connect() as connection:
        found = revision(connection)
        names = set(inspect(connection).get_table_names())
    missing = sorted({table.name for table in schema.tables(service)} - names)
    if found == migrations.HEAD and not missing:
        return
    which = f"the {database.name} database of the {service} service"
    if found is None:
        raise SettingsError(f"{which} has no tables of ours: make them with `dm db upgrade`")
    if found not in _known():
        raise SettingsError(
            f"{which} is of a newer Beamkeeper (schema {found}): start that version, or restore a backup"
        )
    if found == migrations.HEAD:
        raise SettingsError(f"{which} is that of another service, without {missing[0]}: give each service a database")
    raise SettingsError(f"{which} is of an older Beamkeeper (schema {found}): back it up, then run `dm db upgrade`")


def upgrade(url: str, service: Service) -> None:
    """Bring a database to this version's schema, all or nothing; an empty one gets every table."""
    with (
        closing(open_database(url, service)) as database,
        translated(database.name),
        database.engine.connect().execution_options(beamkeeper_write=True) as connection,
        connection.begin(),
    ):
        run(connection, service)


def run(connection: Connection, service: Service) -> None:
    """Run the missing steps in the transaction of a connection; whoever else upgrades waits for its end."""
    from alembic import command
    from alembic.config import Config

    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    settings = Config(attributes={"connection": connection, "service": str(service)})
    settings.set_main_option("script_location", str(_directory()).replace("%", "%%"))
    command.upgrade(settings, "head")


def _known() -> set[str]:
    return {path.name.partition("_")[0] for path in (_directory() / "versions").glob("[0-9]*.py")}


def _directory() -> Path:
    return Path(migrations.__file__).parent
