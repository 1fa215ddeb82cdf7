"""A site whose catalogue follows two stations'."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from beamkeeper.domain.status import Service
from beamkeeper.testing.following import Sender
from beamkeeper.testing.servers import PostgresServer, drop_database, fresh_database
from beamkeeper.testing.services import Running, running

NAMES = count()


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    server: PostgresServer | None = None
    url = None
    if getattr(request, "param", "sqlite") == "postgresql":
        server = request.getfixturevalue("postgres_server")
        url = fresh_database(server)
    with running(Service.CATALOG, directory=tmp_path_factory.mktemp("site"), url=url) as beamline:
        yield beamline
    if server is not None and url is not None:
        drop_database(server, url)


@pytest.fixture
def stations(site: Running, tmp_path: Path) -> Iterator[list[Sender]]:
    """Two stations of the site."""
    with ExitStack() as stack:
        yield [
            Sender.made(site, f"S{next(NAMES)}", f"sqlite:///{tmp_path / name}.db", stack) for name in ("one", "two")
        ]


@pytest.fixture
def station(stations: list[Sender]) -> Sender:
    return stations[0]
