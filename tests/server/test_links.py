"""Links for people without an account: who may make them, what they lead to, and all that ends them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest

from beamkeeper.client import Client
from beamkeeper.domain.downloads import Link, LinkState
from beamkeeper.domain.errors import ConflictError, InvalidError, NotFoundError, NotPermittedError
from beamkeeper.domain.experiments import ExperimentChange
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import Publicity, Role, UserChange
from beamkeeper.testing.services import Running, running
from beamkeeper.testing.shelf import Shelf

WEEK = timedelta(days=7)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(Service.CATALOG, directory=tmp_path_factory.mktemp("site")) as beamline:
        yield beamline


@pytest.fixture
def shelf(site: Running) -> Shelf:
    made = Shelf(site, Publicity.PUBLIC)
    made.put(b"data/x", b"0123456789")
    return made


def make(shelf: Shelf, by: Client, lasts: timedelta = WEEK) -> tuple[Link, str]:
    files = by.files.find(FileQuery(experiment_uid=shelf.experiment.uid))
    made = by.downloads.freeze(shelf.experiment.uid, "coffee", files)
    return by.links.create(made, datetime.now(UTC) + lasts, "for Ada")


def state(shelf: Shelf, uid: object) -> LinkState:
    return next(link.state for link in shelf.client.links.list(shelf.experiment.uid) if link.uid == uid)


def test_a_link_gives_its_files_to_whoever_has_it_and_nothing_else(shelf: Shelf) -> None:
    link, url = make(shelf, shelf.person(Role.PI))
    got = httpx2.get(url, trust_env=False)
    with tarfile.open(fileobj=io.BytesIO(got.content)) as tar:
        assert tar.getnames() == ["coffee/data/x"]
    part = httpx2.get(url, headers={"Range": "bytes=0-9", "If-Range": got.headers["etag"]}, trust_env=False)
    assert (part.status_code, part.content) == (206, got.content[:10])
    assert httpx2.get(url.replace("/shared/", "/shared/x"), trust_env=False).status_code == 404
    (listed,) = shelf.client.links.list(shelf.experiment.uid)
    assert (listed.uid, listed.state, listed.downloads, listed.note) == (link.uid, LinkState.VALID, 2, "for Ada")
    secret = url.split("/shared/")[1].split("/")[0]
    for database in Path(shelf.site.settings.data_dir).glob("storage.db*"):
        assert secret.encode() not in database.read_bytes()


def test_who_has_no_link_holds_up_nobody_who_writes(shelf: Shelf, site: Running) -> None:
    with site.database.write():
        got = httpx2.get(f"{shelf.client.url}/api/v1/shared/wrong/coffee.tar", trust_env=False, timeout=3)
    assert got.status_code == 404


@pytest.mark.parametrize(
    ("role", "is_bound", "may"),
    [
        (Role.ADMINISTRATOR, False, True),
        (Role.STATION_MANAGER, False, True),
        (Role.STATION_VIEWER, False, False),
        (Role.PI, False, True),
        (Role.MANAGER, False, True),
        (Role.USER, False, False),
        (Role.MANAGER, True, False),
        (None, False, False),
    ],
)
def test_only_those_who_lead_an_experiment_make_links(
    shelf: Shelf, role: Role | None, is_bound: bool, may: bool
) -> None:
    person = shelf.person(role, is_bound=is_bound)
    link, _ = make(shelf, shelf.client)
    if may:
        assert state(shelf, make(shelf, person)[0].uid) is LinkState.VALID
        assert person.links.revoke(link.uid).state is LinkState.REVOKED
        return
    with pytest.raises(NotPermittedError):
        make(shelf, person)
    if not is_bound:
        with pytest.raises(NotPermittedError):
            person.links.list(shelf.experiment.uid)
        with pytest.raises((NotPermittedError, NotFoundError)):
            person.links.revoke(link.uid)


def test_a_revoked_link_and_one_that_has_expired_lead_nowhere(shelf: Shelf, site: Running) -> None:
    link, url = make(shelf, shelf.client)
    shelf.client.links.revoke(link.uid)
    assert httpx2.get(url, trust_env=False).status_code == 404
    other, later = make(shelf, shelf.client, timedelta(seconds=1))
    with site.database.write() as tx:
        held = tx.downloads.link(other.uid)
        assert held.expires_at > tx.now - WEEK
    while datetime.now(UTC) <= other.expires_at:
        pass
    assert httpx2.get(later, trust_env=False).status_code == 404
    assert (state(shelf, link.uid), state(shelf, other.uid)) == (LinkState.REVOKED, LinkState.EXPIRED)
    for lasts in (timedelta(days=400), timedelta(seconds=-1)):
        with pytest.raises(InvalidError, match="expires within"):
            make(shelf, shelf.client, lasts)


def test_a_link_dies_with_its_makers_right(shelf: Shelf) -> None:
    name, person = shelf.named(Role.MANAGER)
    link, url = make(shelf, person)
    assert httpx2.get(url, trust_env=False).status_code == 200
    shelf.client.experiments.add_user(shelf.experiment.uid, name, Role.USER)
    assert (httpx2.get(url, trust_env=False).status_code, state(shelf, link.uid)) == (404, LinkState.DEAD)
    shelf.client.experiments.add_user(shelf.experiment.uid, name, Role.PI)
    assert httpx2.get(url, trust_env=False).status_code == 200
    shelf.client.users.change(name, UserChange(is_enabled=False))
    assert (httpx2.get(url, trust_env=False).status_code, state(shelf, link.uid)) == (404, LinkState.DEAD)


def test_links_into_a_proprietary_experiment_are_made_only_where_that_was_allowed(site: Running) -> None:
    shelf = Shelf(site)
    shelf.put(b"data/x", b"one")
    manager, pi = shelf.person(Role.MANAGER), shelf.person(Role.PI)
    with pytest.raises(ConflictError, match="dm link allow"):
        make(shelf, manager)
    with pytest.raises(NotPermittedError):
        manager.links.allow(shelf.experiment.uid, True)
    assert pi.links.allow(shelf.experiment.uid, True).is_allowed
    _, url = make(shelf, manager)
    assert httpx2.get(url, trust_env=False).status_code == 200
    pi.links.allow(shelf.experiment.uid, False)
    assert httpx2.get(url, trust_env=False).status_code == 404
    assert not manager.links.sharing(shelf.experiment.uid).is_allowed


def test_a_link_dies_where_its_experiment_becomes_proprietary(shelf: Shelf) -> None:
    link, url = make(shelf, shelf.client)
    shelf.client.experiments.update(shelf.experiment.uid, ExperimentChange(publicity=Publicity.PROPRIETARY))
    assert (httpx2.get(url, trust_env=False).status_code, state(shelf, link.uid)) == (404, LinkState.DEAD)
