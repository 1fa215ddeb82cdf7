"""Looking at stored files over HTTP: the real client on a real service with its loop, on both databases."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from blake3 import blake3
from sqlalchemy import select

from beamkeeper.client import Client
from beamkeeper.db.base import new_uid
from beamkeeper.db.storage_tasks import StorageTaskRow, TaskKind
from beamkeeper.domain.errors import ConflictError, InvalidError, NotFoundError, NotPermittedError, UnavailableError
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.names import Algorithm, Checksum, to_b64
from beamkeeper.domain.status import Service
from beamkeeper.domain.storage import (
    CheckMode,
    CheckOutcome,
    NewCheck,
    NewCheckItem,
    NewDiscard,
    NewListing,
    NewPublish,
    NewPublishItem,
    TaskState,
)
from beamkeeper.engine.look import LookLoop
from beamkeeper.testing.servers import PostgresServer, drop_database, fresh_database
from beamkeeper.testing.services import Running, running

NUMBERS = count()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    server: PostgresServer | None = None
    url = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        url = fresh_database(server)
    with running(Service.STORAGE, directory=tmp_path_factory.mktemp("site"), url=url) as beamline:
        yield beamline
    if server is not None and url is not None:
        drop_database(server, url)


@pytest.fixture
def coffee(site: Running) -> Experiment:
    new = NewExperiment(name=f"e{next(NUMBERS)}", station=site.settings.station.name)
    return site.client.experiments.create(new)


@pytest.fixture
def service(site: Running) -> Client:
    return site.as_service()


@contextmanager
def looking(site: Running) -> Iterator[list[str]]:
    reports: list[str] = []
    loop = LookLoop(site.database, list(TaskKind), report=reports.append)
    loop.start()
    yield reports
    loop.stop()
    loop.join()


def data(site: Running, of: Experiment) -> Path:
    return site.area / of.directory / "data"


def check(of: Experiment, mode: CheckMode, *names: str) -> NewCheck:
    checksum = Checksum(algorithm=Algorithm.BLAKE3, value=blake3(b"frame").hexdigest())
    items = [
        NewCheckItem(path=f"data/{name}", version_uid=new_uid(), number=1, size=5, checksum=checksum) for name in names
    ]
    return NewCheck(uid=new_uid(), experiment_uid=of.uid, mode=mode, items=items)


def test_a_check_answers_for_each_file(site: Running, service: Client, coffee: Experiment) -> None:
    (data(site, coffee) / "good").write_bytes(b"frame")
    (data(site, coffee) / "bad").write_bytes(b"grime")
    asked = check(coffee, CheckMode.READ, "good", "bad", "gone")
    waiting = service.checks.request(asked)
    assert (waiting.state, [item.outcome for item in waiting.items]) == (TaskState.PENDING, [CheckOutcome.PENDING] * 3)
    with looking(site) as reports:
        done = service.checks.run(asked, patience_s=5)
    assert [item.outcome for item in done.items] == [CheckOutcome.MATCH, CheckOutcome.DIFFERENT, CheckOutcome.MISSING]
    assert [item.version_uid for item in done.items] == [item.version_uid for item in asked.items]
    assert done.items[0].checksum == asked.items[0].checksum
    assert done.items[0].read_from is not None
    assert reports == []
    assert service.checks.get(asked.uid) == service.checks.request(asked) == done


def test_plain_names_are_listed_by_pages(site: Running, service: Client, coffee: Experiment) -> None:
    for name in ("a", "b", "c"):
        (data(site, coffee) / name).write_bytes(b"frame")
    found = []
    after: str | None = None
    with looking(site):
        while True:
            new = NewListing(uid=new_uid(), experiment_uid=coffee.uid, after_b64=after, limit=2)
            page = service.listings.run(new, patience_s=5)
            found += [entry.path for entry in page.items]
            if page.is_end:
                break
            after = page.items[-1].path_b64
    assert found == ["data/a", "data/b", "data/c"]


def test_a_storage_that_is_not_there_is_unavailable_and_nothing_is_missing(
    site: Running, service: Client, coffee: Experiment
) -> None:
    asked = check(coffee, CheckMode.STAT, "a")
    listing = NewListing(uid=new_uid(), experiment_uid=coffee.uid)
    root = site.area / coffee.directory
    away = root.with_name(root.name + "-away")
    root.rename(away)
    with looking(site) as reports:
        with pytest.raises(UnavailableError, match="is not there: is the storage mounted"):
            service.checks.run(asked, patience_s=0.2)
        with pytest.raises(UnavailableError, match="is not there"):
            service.listings.run(listing, patience_s=0.2)
        assert reports
        away.rename(root)
        (data(site, coffee) / "a").write_bytes(b"frame")
        assert [i.outcome for i in service.checks.run(asked, patience_s=30).items] == [CheckOutcome.MATCH]
        assert [entry.path for entry in service.listings.run(listing, patience_s=30).items] == ["data/a"]
    shutil.rmtree(root)


def test_only_services_may_look(site: Running, coffee: Experiment) -> None:
    with pytest.raises(NotPermittedError):
        site.client.checks.request(check(coffee, CheckMode.STAT, "a"))
    with pytest.raises(NotPermittedError):
        site.client.listings.request(NewListing(uid=new_uid(), experiment_uid=coffee.uid))
    asked = check(coffee, CheckMode.STAT, "a")
    site.as_service().checks.request(asked)
    with pytest.raises(NotPermittedError):
        site.client.checks.get(asked.uid)


def test_a_uid_is_one_question_for_ever(site: Running, service: Client, coffee: Experiment) -> None:
    asked = check(coffee, CheckMode.STAT, "a")
    service.checks.request(asked)
    with pytest.raises(NotFoundError, match="another question"):
        service.checks.request(asked.model_copy(update={"mode": CheckMode.READ}))
    with pytest.raises(NotFoundError):
        service.listings.get(asked.uid)
    with pytest.raises(NotFoundError):
        service.listings.request(NewListing(uid=asked.uid, experiment_uid=coffee.uid))
    with pytest.raises(NotFoundError):
        service.checks.get(new_uid())


def test_what_cannot_be_answered_is_refused(service: Client, coffee: Experiment) -> None:
    bare = NewCheckItem(path="data/a", version_uid=new_uid(), number=1, size=5)
    with pytest.raises(InvalidError, match="no checksum"):
        service.checks.request(NewCheck(uid=new_uid(), experiment_uid=coffee.uid, mode=CheckMode.READ, items=[bare]))
    climbing = NewListing(uid=new_uid(), experiment_uid=coffee.uid, after_b64=to_b64(b"../etc"))
    with pytest.raises(InvalidError):
        service.listings.request(climbing)


def test_a_storage_that_says_nothing_is_not_waited_for_without_end(
    site: Running, service: Client, coffee: Experiment
) -> None:
    (data(site, coffee) / "good").write_bytes(b"frame")
    for mode in CheckMode:
        with pytest.raises(UnavailableError, match="it may hang"):
            service.checks.run(check(coffee, mode, "good"), patience_s=30, silence_s=0.1)
    with looking(site):  # what was asked meanwhile is in nobody's way
        assert service.checks.run(check(coffee, CheckMode.READ, "good"), patience_s=5).state is TaskState.DONE


def test_a_long_read_is_waited_for_while_the_storage_finds_its_files(
    site: Running, service: Client, coffee: Experiment
) -> None:
    (data(site, coffee) / "good").write_bytes(b"frame")
    reports: list[str] = []
    finding = LookLoop(site.database, [TaskKind.STAT], report=reports.append)
    reading = LookLoop(site.database, [TaskKind.READ], report=reports.append)
    finding.start()

    def stop() -> bool:
        is_asked = StorageTaskRow.kind == TaskKind.STAT, StorageTaskRow.experiment_uid == coffee.uid
        with site.database.engine.connect() as connection:
            has_asked = connection.execute(select(StorageTaskRow.id).where(*is_asked)).first() is not None
        if has_asked and not reading.is_alive():
            reading.start()  # once it was asked for a sign of life
        return False

    done = service.checks.run(check(coffee, CheckMode.READ, "good"), patience_s=5, silence_s=0.2, stop=stop)
    finding.stop()
    reading.stop()
    finding.join()
    reading.join()
    assert [item.outcome for item in done.items] == [CheckOutcome.MATCH]
    assert reports == []


def test_a_staging_directory_that_nobody_will_publish_is_removed_and_no_other(
    site: Running, service: Client, coffee: Experiment
) -> None:
    stagings = site.area / coffee.directory / ".dm/staging"
    unwanted, other = new_uid(), new_uid()
    for batch in (unwanted, other):
        (stagings / str(batch) / "below").mkdir(parents=True)
        (stagings / str(batch) / "below" / "file").write_bytes(b"frame")
    with looking(site):
        for _ in range(2):
            new = NewDiscard(uid=new_uid(), experiment_uid=coffee.uid, batch_uid=unwanted)
            assert service.discards.run(new).state is TaskState.DONE
    assert [path.name for path in stagings.iterdir()] == [str(other)]
    with pytest.raises(NotPermittedError):
        site.client.discards.run(NewDiscard(uid=new_uid(), experiment_uid=coffee.uid, batch_uid=other))


def test_a_staging_directory_that_is_being_published_stays(service: Client, coffee: Experiment) -> None:
    batch = new_uid()
    link = NewPublishItem(path="data/a", version_uid=new_uid(), number=1, size=0, checksums=(), link_target_b64="YQ==")
    service.publishes.request(NewPublish(uid=batch, experiment_uid=coffee.uid, items=(link,)))
    with pytest.raises(ConflictError, match="is being published"):
        service.discards.run(NewDiscard(uid=new_uid(), experiment_uid=coffee.uid, batch_uid=batch))


def test_a_staged_name_that_climbs_is_refused(service: Client, coffee: Experiment) -> None:
    item = NewPublishItem(
        path="data/a", version_uid=new_uid(), number=1, size=0, checksums=(), staged_b64=to_b64(b"../../../etc/passwd")
    )
    with pytest.raises(InvalidError, match="not a plain relative path"):
        service.publishes.request(NewPublish(uid=new_uid(), experiment_uid=coffee.uid, items=(item,)))
