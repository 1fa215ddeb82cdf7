"""The mirror over HTTP, long polls, and reading what one has just written at another service."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import httpx2
import pytest

from beamkeeper.client import Client
from beamkeeper.core import users as core
from beamkeeper.db.base import new_uid
from beamkeeper.domain.errors import (
    GoneError,
    MirrorBehindError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    UnavailableError,
)
from beamkeeper.domain.events import Cursor
from beamkeeper.domain.experiments import NewExperiment
from beamkeeper.domain.files import ReadFrom
from beamkeeper.domain.mirror import MirrorState
from beamkeeper.domain.names import Algorithm, Checksum, to_b64
from beamkeeper.domain.status import Service
from beamkeeper.domain.storage import NewPublish, NewPublishItem, Outcome, Publish, PublishState
from beamkeeper.domain.users import NewUser, Role, UserChange
from beamkeeper.server import deps
from beamkeeper.testing.services import Running, running

LONG_S = 30.0
"""A wait that no test sits out: what is waited for happens."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(Service.CATALOG, Service.ACQUISITION, directory=tmp_path_factory.mktemp("site")) as services:
        yield services


@pytest.fixture
def service(site: Running) -> Client:
    return site.as_service()


def name() -> str:
    return f"u{new_uid().hex}"


def state(service: Client) -> MirrorState:
    """Return the state of a mirror that knows all there is now."""
    whole = service.mirror.after(None)
    return MirrorState(epoch=whole.epoch, number=whole.number, heard_at="2026-01-01T00:00Z")


def experiment(site: Running) -> UUID:
    new = NewExperiment(name=f"e{new_uid().hex}", station=site.settings.station.name)
    return site.client.experiments.create(new).uid


def test_a_mirror_gets_everything_first_and_then_what_changed(site: Running, service: Client) -> None:
    first = service.mirror.after(None)
    assert first.is_whole
    username = name()
    made = site.client.users.create(NewUser(username=username))
    seen = MirrorState(epoch=first.epoch, number=first.number, heard_at=made.created_at)
    news = service.mirror.after(seen)
    assert (news.is_whole, [user.username for user in news.users]) == (False, [username])
    later = MirrorState(epoch=news.epoch, number=news.number, heard_at=made.created_at)
    assert not service.mirror.after(later).is_news
    for strange in (later.model_copy(update={"epoch": "x"}), later.model_copy(update={"number": 10**9})):
        assert service.mirror.after(strange).is_whole


def test_a_mirror_waits_for_the_next_change_and_for_no_other_news(site: Running, service: Client) -> None:
    seen = state(service)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(service.mirror.after, seen, wait_s=LONG_S)
        site.database.tell()
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.1)
        username = name()
        site.client.users.create(NewUser(username=username))
        assert [user.username for user in waiting.result(timeout=LONG_S / 2).users] == [username]


def test_a_mirror_that_waits_in_vain_gets_an_empty_answer(service: Client) -> None:
    seen = state(service)
    news = service.mirror.after(seen, wait_s=0.05)
    assert (news.is_news, news.epoch) == (False, seen.epoch)


def test_only_services_read_the_mirror(site: Running) -> None:
    with pytest.raises(NotPermittedError):
        site.client.mirror.after(None)
    with pytest.raises(NotAuthenticatedError):
        site.as_().mirror.after(None)


def test_many_that_wait_hold_no_threads(site: Running, service: Client) -> None:
    """There are 40 threads for requests: with 60 that wait, others are answered all the same."""
    seen = state(service)
    clients = [site.as_service() for _ in range(60)]
    with ThreadPoolExecutor(len(clients)) as pool:
        waiting = [pool.submit(client.mirror.after, seen, wait_s=LONG_S) for client in clients]
        begun = time.monotonic()
        while site.client.status(Service.STORAGE).service is not Service.STORAGE:
            pass
        assert time.monotonic() - begun < LONG_S / 3
        username = name()
        site.client.users.create(NewUser(username=username))
        for answer in waiting:
            assert [user.username for user in answer.result(timeout=LONG_S / 2).users] == [username]


def test_an_answer_says_what_a_mirror_must_have_reached_only_where_identities_changed(site: Running) -> None:
    headers = {"Authorization": f"Bearer {site.bootstrap.operator.token}"}
    with httpx2.Client(base_url=site.client.url, headers=headers, trust_env=False) as http:
        before = http.post("/api/v1/users", json={"username": name()})
        said = Cursor.parse(before.headers[deps.MIRROR_HEADER])
        assert http.get("/api/v1/whoami").headers.get(deps.MIRROR_HEADER) is None
        refused = http.post("/api/v1/users", json={"username": "Not A Name"})
        assert (refused.status_code, refused.headers.get(deps.MIRROR_HEADER)) == (422, None)
        again = http.post("/api/v1/users", json={"username": before.json()["username"]})
        assert (again.status_code, again.headers.get(deps.MIRROR_HEADER)) == (409, None)
        after = http.post("/api/v1/users", json={"username": name()})
        assert Cursor.parse(after.headers[deps.MIRROR_HEADER]) > said
        http.headers.pop("Authorization")
        logged_in = http.post("/api/v1/sessions", json={"username": "nobody", "password": "x"})
        assert (logged_in.status_code, logged_in.headers.get(deps.MIRROR_HEADER)) == (401, None)


def test_what_one_did_at_storage_counts_at_the_other_services_at_once(site: Running) -> None:
    username = name()
    site.client.users.create(NewUser(username=username, password="correct horse"))
    ada = site.as_(username=username, password="correct horse")
    for other in (Service.CATALOG, Service.ACQUISITION):
        assert ada.status(other).service is other
    site.client.users.change(username, UserChange(is_enabled=False))
    for other in (Service.CATALOG, Service.ACQUISITION):
        kept = site.as_(ada.credentials.token)
        with pytest.raises(NotAuthenticatedError):
            kept.status(other)


def test_a_role_is_known_to_the_catalogue_as_soon_as_it_is_given(site: Running) -> None:
    uid, username = experiment(site), name()
    site.client.users.create(NewUser(username=username, password="correct horse"))
    ada = site.as_(username=username, password="correct horse")
    with pytest.raises(NotFoundError):
        ada.files.summary(uid)
    site.client.experiments.add_user(uid, username, Role.USER)
    assert ada.files.summary(uid).files == 0
    site.client.experiments.remove_user(uid, username)
    with pytest.raises(NotFoundError):
        ada.files.summary(uid)


def test_a_service_that_has_not_heard_waits_and_then_says_so(tmp_path: Path) -> None:
    with running(Service.CATALOG, directory=tmp_path) as site:
        site.contexts[Service.CATALOG].mirror_patience_s = 0.1
        with site.contexts[Service.CATALOG].database.read() as tx:
            here = core.mirror_cursor(tx)
        client = site.client
        client.credentials.mirror = str(Cursor(here.epoch, here.number + 1))
        with pytest.raises(MirrorBehindError, match="try again"):
            client.status(Service.CATALOG)
        client.credentials.mirror = str(Cursor("0" * len(here.epoch), here.number + 1000))
        assert client.status(Service.CATALOG).service is Service.CATALOG
        assert client.status(Service.STORAGE).service is Service.STORAGE


def test_events_are_waited_for_and_followed(site: Running) -> None:
    uid = experiment(site)
    feed = site.client.events(Service.STORAGE)
    cursor = feed.after().next
    assert feed.after(cursor).items == ()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(feed.after, cursor, LONG_S)
        site.client.experiments.delete(uid)
        page = waiting.result(timeout=LONG_S / 2)
    assert [event.experiment_uid for event in page.items] == [uid]
    assert next(feed.follow(cursor)).number == page.items[0].number
    with pytest.raises(GoneError) as caught:
        feed.after("other.1")
    assert feed.after(str(caught.value.details["next"])).items == ()


def test_events_are_for_those_who_may_read_the_experiment(site: Running) -> None:
    username = name()
    site.client.users.create(NewUser(username=username, password="correct horse"))
    ada = site.as_(username=username, password="correct horse")
    cursor = ada.events(Service.STORAGE).after().next
    own, other = experiment(site), experiment(site)
    site.client.experiments.add_user(own, username)
    seen = {event.experiment_uid for event in ada.events(Service.STORAGE).after(cursor).items}
    assert seen == {own}
    service = {event.experiment_uid for event in site.as_service().events(Service.STORAGE).after(cursor).items}
    assert service == {own, other}


def test_a_stream_of_events_begins_where_its_reader_left_off(site: Running) -> None:
    cursor = site.client.events(Service.STORAGE).after().next
    uids = [experiment(site), experiment(site)]
    headers = {
        "Authorization": f"Bearer {site.bootstrap.operator.token}",
        "Accept": "text/event-stream",
        "Last-Event-ID": cursor,
    }
    got: list[str] = []
    with httpx2.stream(
        "GET", f"{site.client.url}/api/v1/events", headers=headers, trust_env=False, timeout=LONG_S
    ) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data: "):
                got.append(line)
                if len(got) == 2:
                    uids.append(experiment(site))
            if len(got) == len(uids) > 2:
                break
    assert all(str(uid) in line for uid, line in zip(uids, got, strict=True))


class TestPublishes:
    """Publishing as a resource: asked for once, and read until it is done."""

    def new(self, site: Running, uid: UUID | None = None) -> NewPublish:
        item = NewPublishItem(
            path_b64=to_b64(b"data/a.tif"),
            version_uid=new_uid(),
            number=1,
            size=3,
            checksums=[Checksum(algorithm=Algorithm.BLAKE3, value="ab" * 32)],
        )
        return NewPublish(uid=uid or new_uid(), experiment_uid=experiment(site), items=[item])

    def end(self, site: Running, publish: Publish) -> None:
        with site.database.write() as tx:
            work = tx.publishes.pending(tx.experiments.get(publish.experiment_uid).storage_area_uid)
            assert work is not None
            assert work.uid == publish.uid
            tx.publishes.settle(work, [(Outcome.STORED, "", ReadFrom.DEVICE) for _ in work.items])
        site.database.tell()

    def test_asking_twice_gives_the_same_publish(self, site: Running, service: Client) -> None:
        new = self.new(site)
        first = service.publishes.request(new)
        assert first.state is PublishState.PENDING
        assert service.publishes.request(new) == service.publishes.get(new.uid) == first
        self.end(site, first)

    def test_waiting_ends_with_the_publish(self, site: Running, service: Client) -> None:
        asked = service.publishes.request(self.new(site))
        assert service.publishes.get(asked.uid, wait_s=0.05).state is PublishState.PENDING
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(service.publishes.get, asked.uid, LONG_S)
            self.end(site, asked)
            done = waiting.result(timeout=LONG_S / 2)
        assert done.state is PublishState.DONE
        assert [item.outcome for item in done.items] == [Outcome.STORED]

    def test_a_request_wakes_the_engine(self, site: Running, service: Client) -> None:
        told: list[int] = []
        new = self.new(site)
        ended = site.database.listen(lambda: told.append(1))
        asked = service.publishes.request(new)
        ended()
        assert told
        self.end(site, asked)

    def test_only_the_stations_services_publish(self, site: Running, service: Client) -> None:
        new = self.new(site)
        with pytest.raises(NotPermittedError):
            site.client.publishes.request(new)
        asked = service.publishes.request(new)
        with pytest.raises(NotPermittedError):
            site.client.publishes.get(asked.uid)
        with pytest.raises(NotFoundError):
            service.publishes.get(new_uid())
        self.end(site, asked)


def test_a_service_that_is_down_is_said_in_one_sentence(site: Running, unused_port: int) -> None:
    client = Client(f"http://127.0.0.1:{unused_port}", token="x", logins=site.client.logins)
    with client, pytest.raises(UnavailableError, match="dm up"):
        client.sessions.whoami()


@pytest.fixture
def unused_port() -> int:
    from beamkeeper.testing.servers import free_port

    return free_port()


def test_login_lasts_as_long_as_the_settings_say(tmp_path: Path) -> None:
    with running(directory=tmp_path, settings={"storage": {"session_hours": 0.5}}) as site:
        site.client.users.create(NewUser(username="ada", password="correct horse"))
        session = site.as_().sessions.login("ada", "correct horse").session
        assert session.expires_at - session.created_at == timedelta(minutes=30)
