"""The tables of each service, and making them in an empty database without the migrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, Table, insert

import beamkeeper.db.engine_transactions
import beamkeeper.db.transaction  # noqa: F401 - these import every noun, and so make all tables known
from beamkeeper.db.base import Base, Database, new_uid
from beamkeeper.db.events import SequenceRow
from beamkeeper.domain.status import Service


def tables(service: Service) -> Sequence[Table]:
    """Return the tables of a service, each after those that it refers to."""
    own = {mapper.local_table for mapper in Base.registry.mappers if service in mapper.class_.services}
    return [table for table in Base.metadata.sorted_tables if table in own]


def kept(service: Service) -> Sequence[Table]:
    """Return the tables that hold what nothing else says: those that a backup needs."""
    return [table for table in tables(service) if not table.info.get("is_derived")]


def create(into: Engine | Database[Any], service: Service) -> None:
    """Make the tables of a service in an empty database, and begin its first epoch."""
    engine = into.engine if isinstance(into, Database) else into
    with engine.execution_options(beamkeeper_write=True).begin() as connection:
        Base.metadata.create_all(connection, tables=list(tables(service)), checkfirst=False)
        connection.execute(insert(SequenceRow).values(**first_sequence()))


def first_sequence() -> dict[str, Any]:
    """Return the row of the sequence in a new database."""
    return {"id": 1, "epoch": new_uid().hex, "number": 0}
