"""Publishing: what is durable, what is read, what is thrown away, and that one storage area holds up no other."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from beamkeeper.db import Database, StorageTransaction, schema
from beamkeeper.db.base import new_uid
from beamkeeper.db.publishes import KEPT
from beamkeeper.domain.errors import DestinationError
from beamkeeper.domain.experiments import Experiment, NewExperiment, NewStation, Station
from beamkeeper.domain.files import ReadFrom, Verify
from beamkeeper.domain.names import Algorithm, Checksum, to_b64
from beamkeeper.domain.status import Service
from beamkeeper.domain.storage import (
    NewPublish,
    NewPublishItem,
    NewStorageArea,
    Outcome,
    Publish,
    PublishState,
    Replaced,
    StorageArea,
)
from beamkeeper.engine.batch import StagedBatch
from beamkeeper.engine.beneath import Beneath
from beamkeeper.engine.publish import PublishLanes, PublishLoop
from beamkeeper.engine.readback import Reader
from beamkeeper.testing.beamline import Clock
from beamkeeper.testing.station import until


class Storage:
    """A storage service's database and its areas, without anything that runs."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.directory = directory
        self.database: Database[StorageTransaction] = Database(
            f"sqlite:///{directory / 'storage.db'}", StorageTransaction, clock=self.clock
        )
        schema.create(self.database, Service.STORAGE)
        self.area = self.add_area("main")
        with self.database.write() as tx:
            self.station: Station = tx.experiments.add_station(NewStation(name="TEST", storage_area_uid=self.area.uid))
        self.experiment = self.add_experiment("coffee", self.area)

    def add_area(self, name: str) -> StorageArea:
        path = self.directory / name
        with self.database.write() as tx:
            return tx.storage.add(NewStorageArea(name=name, station_url=path.as_uri(), path=str(path)))

    def add_experiment(self, name: str, area: StorageArea) -> Experiment:
        with self.database.write() as tx:
            made = tx.experiments.add(
                NewExperiment(name=name, station="TEST"),
                station=self.station,
                cycle="2026-1",
                area_uid=area.uid,
                directory=name,
            )
        (Path(area.path) / name / "data").mkdir(parents=True)
        return made

    @property
    def root(self) -> Path:
        return Path(self.area.path) / self.experiment.directory

    def ask(self, files: dict[str, bytes], *, of: Experiment | None = None, **options: Any) -> NewPublish:
        """Stage some files below data/, and ask for them to be published."""
        experiment, batch = of or self.experiment, new_uid()
        items = [item(f"data/{name}".encode(), content, **options.pop(name, {})) for name, content in files.items()]
        new = NewPublish(uid=batch, experiment_uid=experiment.uid, items=tuple(items), **options)
        if experiment is self.experiment:
            for name, content in files.items():
                staged = self.staged(new, name)
                staged.parent.mkdir(parents=True, exist_ok=True)
                staged.write_bytes(content)
        with self.database.write() as tx:
            tx.publishes.add(new)
        return new

    def staged(self, new: NewPublish, name: str) -> Path:
        return self.root / ".dm" / "staging" / str(new.uid) / "data" / name

    def answer(self, new: NewPublish) -> Publish:
        with self.database.read() as tx:
            found = tx.publishes.get(new.uid)
        assert found is not None
        return found

    def outcomes(self, new: NewPublish) -> list[Outcome]:
        return [one.outcome for one in self.answer(new).items]


def item(path: bytes, content: bytes, **changes: Any) -> NewPublishItem:
    values: dict[str, Any] = {"path_b64": to_b64(path), "version_uid": new_uid(), "number": 1, "size": len(content)}
    return NewPublishItem(**{**values, "checksums": (checksum(content),), **changes})


def checksum(content: bytes) -> Checksum:
    return Checksum(algorithm=Algorithm.BLAKE3, value=blake3(content).hexdigest())


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    made = Storage(tmp_path)
    with closing(made.database):
        yield made


@pytest.fixture
def publisher(storage: Storage) -> Iterator[PublishLoop]:
    made = PublishLoop(storage.database, storage.area, report=lambda _: None)
    yield made
    made.ended()


def test_what_was_staged_gets_its_name_once_it_was_read_back(storage: Storage, publisher: PublishLoop) -> None:
    new = storage.ask({"a": b"frame", "below/b": b""})
    publisher.step()
    answer = storage.answer(new)
    assert answer.state is PublishState.DONE
    assert {(one.outcome, one.read_from is not None) for one in answer.items} == {(Outcome.STORED, True)}
    assert (storage.root / "data/a").read_bytes() == b"frame"
    assert (storage.root / "data/below/b").read_bytes() == b""
    assert list((storage.root / ".dm/staging").iterdir()) == []


@pytest.mark.parametrize("mode", list(Verify))
def test_a_link_is_made_as_it_is(storage: Storage, publisher: PublishLoop, mode: Verify) -> None:
    link = {"checksums": (), "link_target_b64": to_b64(b"../elsewhere"), "size": 0}
    new = storage.ask({"a": b"", "b": b"frame"}, verify=mode, a=link)
    publisher.step()
    assert storage.outcomes(new) == [Outcome.STORED, Outcome.STORED]
    assert os.readlink(storage.root / "data/a") == "../elsewhere"


def test_other_bytes_than_were_sent_get_no_name(storage: Storage, publisher: PublishLoop) -> None:
    new = storage.ask({"a": b"frame", "b": b"other"})
    storage.staged(new, "a").write_bytes(b"fRame")
    publisher.step()
    assert storage.outcomes(new) == [Outcome.DAMAGED, Outcome.STORED]
    assert not (storage.root / "data/a").exists()


@pytest.mark.parametrize("mode", [Verify.DEFERRED, Verify.NONE])
def test_without_reading_a_file_gets_its_name_and_nobody_says_that_it_was_read(
    storage: Storage, publisher: PublishLoop, mode: Verify
) -> None:
    """That it was not read is shown by a wrong byte, which reading would have found."""
    new = storage.ask({"a": b"frame"}, verify=mode)
    storage.staged(new, "a").write_bytes(b"fRame")
    publisher.step()
    (one,) = storage.answer(new).items
    assert (one.outcome, one.read_from) == (Outcome.STORED, None)
    assert (storage.root / "data/a").read_bytes() == b"fRame"


@pytest.mark.parametrize("mode", list(Verify))
def test_a_file_of_another_size_is_never_stored(storage: Storage, publisher: PublishLoop, mode: Verify) -> None:
    new = storage.ask({"a": b"frame"}, verify=mode)
    storage.staged(new, "a").write_bytes(b"fram")
    publisher.step()
    assert storage.outcomes(new) == [Outcome.DAMAGED]
    assert not (storage.root / "data/a").exists()


@pytest.mark.parametrize("mode", list(Verify))
def test_a_new_version_is_exchanged_in_even_by_a_second_try(
    storage: Storage, publisher: PublishLoop, mode: Verify
) -> None:
    """A first try that ended right after the exchange left the old bytes in staging: as many, and no new version."""
    (storage.root / "data/a").write_bytes(b"first")
    replaces = Replaced(number=1, checksum=checksum(b"first"))
    new = storage.ask({"a": b"other"}, verify=mode, a={"number": 2, "replaces": replaces})
    storage.staged(new, "a").write_bytes(b"first")
    (storage.root / "data/a").write_bytes(b"other")
    publisher.step()
    assert storage.outcomes(new) == [Outcome.STORED]
    assert (storage.root / "data/a").read_bytes() == b"other"
    assert (storage.root / ".dm/versions/data/a/1").read_bytes() == b"first"


@pytest.mark.parametrize(("number", "trouble"), [(errno.EIO, "failed"), (errno.ENOSPC, "full")])
def test_what_could_not_be_made_durable_is_thrown_away_and_not_synced_again(
    storage: Storage, publisher: PublishLoop, monkeypatch: pytest.MonkeyPatch, number: int, trouble: str
) -> None:
    new = storage.ask({"a": b"1", "b": b"2"})
    synced: list[int] = []

    def failing(descriptor: int) -> None:
        synced.append(descriptor)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", failing)
    publisher.step()
    monkeypatch.undo()
    answer = storage.answer(new)
    assert (answer.state, answer.trouble) == (PublishState.DONE, trouble)
    assert [one.outcome for one in answer.items] == [Outcome.LOST, Outcome.LOST]
    assert len(synced) == 1
    assert not storage.staged(new, "a").exists()
    assert list((storage.root / "data").iterdir()) == []
    assert not publisher.step()


def test_what_vanishes_from_staging_in_the_middle_is_missing_or_adopted(storage: Storage) -> None:
    """Another publisher, or whoever discarded the batch, was faster."""
    new = storage.ask({"a": b"1", "b": b"2"})
    reader = Reader()
    with Beneath(storage.root) as beneath:
        batch = StagedBatch(beneath, f".dm/staging/{new.uid}".encode(), reader, Verify.READ_BACK)
        batch.look(list(new.items))
        storage.staged(new, "a").rename(storage.root / "data/a")
        storage.staged(new, "b").unlink()
        outcomes = [batch.publish_one(one)[0] for one in new.items]
    reader.close()
    assert outcomes == [Outcome.STORED, Outcome.MISSING]


def test_a_batch_says_what_it_waits_for(storage: Storage, publisher: PublishLoop) -> None:
    new = storage.ask({"a": b"1"})
    storage.root.rename(storage.root.with_name("elsewhere"))
    with pytest.raises(DestinationError, match="is the storage mounted"):
        publisher.step()
    answer = storage.answer(new)
    assert (answer.state, answer.trouble) == (PublishState.PENDING, "unreachable")
    assert "is the storage mounted?" in answer.message
    storage.root.with_name("elsewhere").rename(storage.root)
    storage.clock.tick(2)
    publisher.step()
    answer = storage.answer(new)
    assert (answer.state, answer.trouble, answer.message) == (PublishState.DONE, "", "")


def test_a_storage_area_that_fails_holds_up_no_other(storage: Storage) -> None:
    broken = storage.add_area("broken")
    other = storage.add_experiment("tea", broken)
    waiting = [storage.ask({"a": b"1"}, of=other) for _ in range(3)]
    (Path(broken.path) / "tea").rename(Path(broken.path) / "gone")
    new = storage.ask({"a": b"1"})
    lanes = PublishLanes(storage.database, report=lambda _: None)
    lanes.start()
    until(lambda: storage.answer(new).state is PublishState.DONE, "the batch of the other area")
    assert storage.outcomes(new) == [Outcome.STORED]
    until(lambda: any(storage.answer(one).trouble == "unreachable" for one in waiting), "the failure")
    lanes.stop()
    lanes.join()
    assert {storage.answer(one).state for one in waiting} == {PublishState.PENDING}


def test_what_is_settled_once_stays_so(storage: Storage, publisher: PublishLoop) -> None:
    new = storage.ask({"a": b"1"})
    with storage.database.read() as tx:
        work = tx.publishes.pending(storage.area.uid)
    assert work is not None
    publisher.step()
    with storage.database.write() as tx:
        tx.publishes.settle(work, [(Outcome.MISSING, "", None)])
    (one,) = storage.answer(new).items
    assert (one.outcome, one.read_from) in {(Outcome.STORED, ReadFrom.DEVICE), (Outcome.STORED, ReadFrom.CACHE)}


def test_what_was_done_long_ago_is_forgotten_and_may_be_asked_for_again(
    storage: Storage, publisher: PublishLoop
) -> None:
    lanes = PublishLanes(storage.database, report=lambda _: None)
    old = storage.ask({"a": b"1"})
    publisher.step()
    storage.clock.now += KEPT
    new = storage.ask({"b": b"2"})
    publisher.step()
    lanes.step()
    assert storage.outcomes(old) == storage.outcomes(new) == [Outcome.STORED]
    storage.clock.now += timedelta(seconds=1)
    again = PublishLanes(storage.database, report=lambda _: None)
    again.step()
    for one in (lanes, again):
        one.stop()
        one.ended()
    with storage.database.write() as tx:
        assert tx.publishes.get(old.uid) is None
        tx.publishes.add(old)
    assert storage.outcomes(new) == [Outcome.STORED]
    publisher.step()
    assert storage.outcomes(old) == [Outcome.STORED]
