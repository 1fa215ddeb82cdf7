"""The first start of a storage service: what it makes, once, and what it leaves where it fails."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from beamkeeper.config import Settings
from beamkeeper.core import bootstrap as core
from beamkeeper.core.sessions import authenticate
from beamkeeper.db import Database, StorageTransaction
from beamkeeper.db.schema import create
from beamkeeper.domain.errors import ConflictError, DestinationError, NotAuthenticatedError
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import SITE, Action, UserChange, may

Storage = Database[StorageTransaction]


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with closing(Database(f"sqlite:///{tmp_path / 'storage.db'}", StorageTransaction)) as database:
        create(database, Service.STORAGE)
        yield database


def settings(tmp_path: Path, **storage: Any) -> Settings:
    station = {"name": "8ID", "title": "Eight", "cycle": "2026-1", "timezone": "America/Chicago"}
    return Settings.model_validate({"data_dir": tmp_path / "data with space", "station": station, "storage": storage})


def test_a_fresh_database_gets_what_a_beamline_needs(storage: Storage, tmp_path: Path) -> None:
    tree = settings(tmp_path)
    with storage.write() as tx:
        assert core.is_fresh(tx)
        made = core.bootstrap(tx, tree)
        assert not core.is_fresh(tx)
    with storage.read() as tx:
        (area,) = tx.storage.list()
        (station,) = tx.experiments.stations()
        operator = authenticate(tx, made.operator.token)
        service = authenticate(tx, made.service_key)
    assert (area.name, area.path) == ("main", str(tree.storage.area_path))
    assert area.station_url == f"file://{tmp_path}/data%20with%20space/storage"
    assert tree.storage.area_path.is_dir()
    assert (station.name, station.title, station.cycle, station.timezone) == (
        "8ID",
        "Eight",
        "2026-1",
        "America/Chicago",
    )
    assert (station.storage_area_uid, station.catalog_url) == (area.uid, tree.url(Service.CATALOG))
    assert may(operator, Action.SITE_ADMINISTER, SITE)
    assert operator.username in (pwd.getpwuid(os.getuid()).pw_name, "admin")
    assert (service.is_service, service.station_uid) == (True, station.uid)
    for secret in (made.service_key, made.operator.token):
        assert secret not in (tmp_path / "storage.db").read_bytes().decode("latin-1")
        assert secret not in repr(made)


def test_it_happens_once(storage: Storage, tmp_path: Path) -> None:
    with storage.write() as tx:
        core.bootstrap(tx, settings(tmp_path))
    with storage.write() as tx, pytest.raises(ConflictError, match="first start"):
        core.bootstrap(tx, settings(tmp_path))


def test_a_storage_area_that_cannot_be_made_leaves_the_database_fresh(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    def act() -> None:
        with storage.write() as tx:
            core.bootstrap(tx, settings(tmp_path, area_path=tmp_path / "file" / "below"))

    with pytest.raises(DestinationError, match=r"storage\.area_path"):
        act()
    with storage.read() as tx:
        assert core.is_fresh(tx)


def test_the_operator_gets_another_session_and_the_services_another_key(storage: Storage, tmp_path: Path) -> None:
    tree = settings(tmp_path)
    with storage.write() as tx:
        made = core.bootstrap(tx, tree)
    with storage.write() as tx:
        again = core.operator_session(tx, tree)
        key = core.new_service_key(tx, tree)
        assert authenticate(tx, again.token).username == made.operator.session.username
        assert authenticate(tx, key).is_service
        tx.users.change(again.session.user_uid, UserChange(is_enabled=False))
        with pytest.raises(NotAuthenticatedError, match="disabled"):
            authenticate(tx, again.token)
