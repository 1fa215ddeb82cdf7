"""A station that is cut off: logins count for as long as was set, and the station's own services without an end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from beamkeeper.domain.errors import NotAuthenticatedError
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewUser
from beamkeeper.testing.beamline import Clock
from beamkeeper.testing.services import Running, running

HOUR = 3600.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Iterator[Running]:
    settings = {"storage": {"session_hours": 240.0}}
    with running(Service.CATALOG, directory=tmp_path, settings=settings, clock=clock) as beamline:
        yield beamline


def test_logins_count_at_a_station_that_is_cut_off_until_its_grace_is_over(site: Running, clock: Clock) -> None:
    clock.tick(23 * HOUR)
    assert not list(site.client.files.find(FileQuery()))
    clock.tick(2 * HOUR)
    with pytest.raises(NotAuthenticatedError, match="cut off from the site since"):
        list(site.client.files.find(FileQuery()))
    assert not list(site.as_service().files.find(FileQuery()))
    assert [user.username for user in site.client.users.list()]  # at the site itself all is as it was
    site.client.users.create(NewUser(username="ada"))  # of which the station hears
    assert not list(site.client.files.find(FileQuery()))
