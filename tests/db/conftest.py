"""Databases for the tests of their tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from beamkeeper.db import Database, StorageTransaction
from beamkeeper.db.schema import create
from beamkeeper.domain.status import Service
from beamkeeper.testing.beamline import Clock
from beamkeeper.testing.catalogue import Catalogue
from beamkeeper.testing.queries import NOW


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def storage(database_url: str, clock: Clock) -> Iterator[Database[StorageTransaction]]:
    with closing(Database(database_url, StorageTransaction, clock=clock)) as database:
        create(database, Service.STORAGE)
        yield database


@pytest.fixture
def catalogue(database_url: str) -> Iterator[Catalogue]:
    with closing(Catalogue(database_url)) as made:
        made.clock.now = NOW
        yield made
