"""Opening the databases of the settings, and the first start of a site."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from beamkeeper import db
from beamkeeper.config import Settings
from beamkeeper.core import bootstrap as core
from beamkeeper.db import upgrade
from beamkeeper.db.base import Database
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewSession
from beamkeeper.server.deps import Context

FIRST_SESSION = "first-session.json"
"""In the data directory: the administrator's first login, which `dm up` takes over and removes."""


def make_tables(settings: Settings, services: Sequence[Service]) -> None:
    """Make the tables of new databases in a process that ends: what makes them is 12 MB that would stay.

    What fails there is left to `opened`, which says why. Beside other threads nothing is forked.
    """
    fresh = [service for service in services if _is_empty(settings, service)]
    if not fresh or threading.active_count() > 1:
        return
    child = os.fork()
    if child == 0:
        try:
            for service in fresh:
                upgrade.upgrade(settings.database_url(service), service)
        finally:
            os._exit(0)  # nothing of the parent's is closed or told here
    os.waitpid(child, 0)


def _is_empty(settings: Settings, service: Service) -> bool:
    with closing(db.open_database(settings.database_url(service), service)) as database:
        return upgrade.is_empty(database)


def opened(settings: Settings, service: Service) -> Database[Any]:
    """Return a service's database, made where it is new; an older schema is refused with what to do."""
    url = settings.database_url(service)
    database = db.open_database(url, service)
    if upgrade.is_empty(database):
        upgrade.upgrade(url, service)
    upgrade.check(database, service)
    database.home = settings.station.name
    database.offline_grace = timedelta(hours=settings.station.offline_grace_hours)
    return database


def bootstrap(context: Context) -> None:
    """On a site's first start: its station, storage area, administrator, and the keys for both of them."""
    settings = context.settings
    # The keys are on disk before the commit that makes them valid: a crash between leaves keys to nothing.
    with context.database.write() as tx:
        if not core.is_fresh(tx):
            return
        first = core.bootstrap(tx, settings)
        write_private(settings.service_key_file, first.service_key + "\n")
        write_session(settings, first.operator)


def write_session(settings: Settings, new: NewSession) -> None:
    """Leave the operator's session where `dm up` finds it."""
    session = {
        "url": settings.url(Service.STORAGE),
        "username": new.session.username,
        "token": new.token,
        "expires_at": new.session.expires_at.isoformat(),
        "station": settings.station.name,
    }
    write_private(settings.data_dir / FIRST_SESSION, json.dumps(session))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


@contextmanager
def reached(settings: Settings, service: Service) -> Iterator[Database[Any]]:
    """Give a database that is there already, with this version's schema, and close it afterwards."""
    with closing(db.open_database(settings.database_url(service), service)) as database:
        upgrade.check(database, service)
        yield database
