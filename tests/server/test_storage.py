"""Storage areas over HTTP: who sees them, what is refused, and the proof that one works."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from beamkeeper.client import Client
from beamkeeper.core.sessions import begin_session
from beamkeeper.domain.errors import AlreadyExistsError, ConflictError, InvalidError, NotFoundError, NotPermittedError
from beamkeeper.domain.storage import AreaKind, NewStorageArea
from beamkeeper.domain.users import NewGrant, NewUser, Role
from beamkeeper.testing.services import Running, running


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Running]:
    with running(directory=tmp_path) as services:
        yield services


def user(site: Running, name: str, role: Role | None = None) -> Client:
    made = site.client.users.create(NewUser(username=name))
    if role is not None:
        site.client.users.grant(NewGrant(username=name, role=role, station_uid=site.bootstrap.station.uid))
    with site.database.write() as tx:
        return site.as_(begin_session(tx, made, expires_at=tx.now + timedelta(days=1)).token)


def test_the_first_area_is_the_settings_own_and_works(site: Running) -> None:
    (first,) = site.client.storage_areas.list()
    assert (first.name, first.path, first.station_url) == ("main", str(site.area), site.area.as_uri())
    assert site.client.storage_areas.check("main").is_ok
    assert list(site.area.iterdir()) == []


def test_an_area_is_added_and_checked_where_it_is(site: Running, tmp_path: Path) -> None:
    path = tmp_path / "tape"
    new = NewStorageArea(name="tape", kind=AreaKind.ARCHIVE, station_url=path.as_uri(), path=str(path))
    assert site.client.storage_areas.add(new).kind is AreaKind.ARCHIVE
    shown = site.client.storage_areas.check("tape")
    assert (shown.is_ok, shown.free_bytes) == (False, None)
    assert "mounted" in shown.message
    path.mkdir()
    assert site.client.storage_areas.check("tape").is_ok
    with pytest.raises(NotFoundError, match='"other"'):
        site.client.storage_areas.check("other")


def test_areas_do_not_overlap(site: Running) -> None:
    for path in (site.area, site.area / "below", site.area.parent):
        with pytest.raises(ConflictError, match='"main"'):
            site.client.storage_areas.add(NewStorageArea(name="more", station_url="file:///m", path=str(path)))
    beside = site.area.with_name(site.area.name + "-2")
    site.client.storage_areas.add(NewStorageArea(name="more", station_url="file:///m", path=str(beside)))
    with pytest.raises(AlreadyExistsError):
        site.client.storage_areas.add(NewStorageArea(name="more", station_url="file:///m", path="/elsewhere"))


@pytest.mark.parametrize("path", ["relative", "", "/a/../b", "/a/", "/a//b", "/a\0b"])
def test_a_path_must_be_absolute_and_plain(site: Running, path: str) -> None:
    with pytest.raises(InvalidError, match="write it whole"):
        site.client.storage_areas.add(NewStorageArea(name="more", station_url="file:///m", path=path))


def test_an_address_needs_a_scheme(site: Running) -> None:
    with pytest.raises(InvalidError, match="file:///PATH"):
        site.client.storage_areas.add(NewStorageArea(name="more", station_url="/m", path="/elsewhere"))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("rsync+ssh://-esh@host/data", "plainly"),
        ("rsync+ssh://%2Desh@host/data", "plainly"),
        ("rsync://-oProxyCommand/data", "plainly"),
        ("ftp://host name/data", "plainly"),
        ("gsiftp://host:port/data", "plainly"),
        ("rsync://[host/data", "plainly"),
        ("ftp://ada:secret@host:port/data", "plainly"),
        ("ftp://ada:secret@host/data", "has no password"),
    ],
)
def test_an_address_holds_no_option_of_a_program_and_no_secret(site: Running, url: str, words: str) -> None:
    with pytest.raises(InvalidError, match=words) as caught:
        site.client.storage_areas.add(NewStorageArea(name="far", station_url=url, path="/elsewhere"))
    assert "secret" not in caught.value.message


def test_staff_sees_areas_managers_check_them_and_only_administrators_add(site: Running) -> None:
    new = NewStorageArea(name="more", station_url="file:///m", path="/elsewhere")
    viewer, manager = user(site, "vera", Role.STATION_VIEWER), user(site, "max", Role.STATION_MANAGER)
    assert [area.name for area in viewer.storage_areas.list()] == ["main"]
    assert manager.storage_areas.check("main").is_ok
    with pytest.raises(NotPermittedError):
        viewer.storage_areas.check("main")
    stranger = user(site, "eve")
    with pytest.raises(NotPermittedError):
        stranger.storage_areas.list()
    for client in (viewer, manager, stranger):
        with pytest.raises(NotPermittedError):
            client.storage_areas.add(new)
