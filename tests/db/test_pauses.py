"""Storage areas that are paused, and what is claimed meanwhile, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from beamkeeper.db.base import new_uid
from beamkeeper.db.journal import Batch, Seen
from beamkeeper.domain.acquisition import JournalState
from beamkeeper.domain.experiments import NewExperiment
from beamkeeper.domain.files import SourceIdentity
from beamkeeper.domain.storage import NewStorageArea
from beamkeeper.testing.beamline import STATION, Beamline, options

J = JournalState
SECOND = timedelta(seconds=1)


@pytest.fixture
def beamline(database_url: str, tmp_path: Path) -> Iterator[Beamline]:
    made = Beamline(database_url, tmp_path / "storage")
    yield made
    made.close()


def daq(beamline: Beamline, path: bytes, area_uid: UUID | None = None) -> UUID:
    """A DAQ with two files that are ready, for the beamline's storage area or another one."""
    with beamline.database.write() as tx:
        experiment = tx.experiments.add(
            NewExperiment(name=path.decode(), station=STATION),
            station=beamline.station,
            cycle="2026-1",
            area_uid=area_uid or beamline.area.uid,
            directory=path.decode(),
        )
        uid = tx.acquisitions.add(experiment, options(path)).uid
        identity = SourceIdentity(dev=1, ino=1, size=10, mtime_ns=0, ctime_ns=0)
        tx.journal.see(uid, [Seen(b"%d" % number, J.READY, identity=identity) for number in range(2)])
    return uid


def claim(beamline: Beamline, *without: UUID) -> Batch | None:
    with beamline.database.write() as tx:
        return tx.journal.claim(new_uid(), files=10, size=10**9, without=without)


@pytest.fixture
def other(beamline: Beamline) -> UUID:
    with beamline.database.write() as tx:
        return tx.storage.add(NewStorageArea(name="other", station_url="file:///other", path="/other")).uid


def test_files_for_an_area_that_is_paused_are_not_claimed_and_others_are(beamline: Beamline, other: UUID) -> None:
    waiting, going = daq(beamline, b"one"), daq(beamline, b"two", other)
    batch = claim(beamline, beamline.area.uid)
    assert batch is not None
    assert (batch.acquisition_uid, len(batch.files)) == (going, 2)
    assert claim(beamline, beamline.area.uid) is None
    batch = claim(beamline)
    assert batch is not None
    assert batch.acquisition_uid == waiting


def test_a_batch_that_is_staged_is_gone_on_with_though_its_area_is_paused(beamline: Beamline) -> None:
    """Only to hear what became of its publish."""
    daq(beamline, b"one")
    batch = claim(beamline)
    assert batch is not None
    with beamline.database.write() as tx:
        tx.journal.step(batch, J.STAGED, {file.id: {"number": 1} for file in batch.files}, free=True)
    again = claim(beamline, beamline.area.uid)
    assert again is not None
    assert again.uid == batch.uid


def test_a_trial_takes_few_files_and_of_its_area_only(beamline: Beamline, other: UUID) -> None:
    daq(beamline, b"one")
    meant = daq(beamline, b"two", other)
    with beamline.database.write() as tx:
        batch = tx.journal.claim_for(other, new_uid(), files=1, size=10**9)
        none = tx.journal.claim_for(new_uid(), new_uid(), files=1, size=10**9)
    assert batch is not None
    assert (batch.acquisition_uid, len(batch.files), none) == (meant, 1, None)


def test_a_pause_counts_its_failures_and_remembers_the_most_that_was_wanted(beamline: Beamline) -> None:
    uid = beamline.area.uid
    with beamline.database.write() as tx:
        first = tx.pauses.begin(uid, "full", "no space", wanted_bytes=100, pause=SECOND)
    since = beamline.clock.now
    beamline.clock.tick(5)
    with beamline.database.write() as tx:
        second = tx.pauses.begin(uid, "failed", "an error", wanted_bytes=10, pause=SECOND)
    assert (first.failures, second.failures) == (1, 2)
    assert (second.trouble, second.since, second.wanted_bytes) == ("failed", since, 100)
    assert second.failed_at == beamline.clock.now


def test_a_pause_is_due_when_its_time_has_come_and_not_while_a_trial_is_on_its_way(beamline: Beamline) -> None:
    uid = beamline.area.uid

    def due() -> int:
        with beamline.database.read() as tx:
            return len(tx.pauses.due())

    with beamline.database.write() as tx:
        tx.pauses.begin(uid, "full", "no space", wanted_bytes=1, pause=SECOND)
    assert due() == 0
    beamline.clock.tick(2)
    assert due() == 1
    with beamline.database.write() as tx:
        tx.pauses.grant(uid)
    assert due() == 0
    with beamline.database.write() as tx:
        tx.pauses.take(uid)
    assert due() == 0
    beamline.clock.tick(200)
    assert due() == 1
    with beamline.database.write() as tx:
        tx.pauses.end(uid)
        assert tx.pauses.all() == []


def test_files_that_wait_for_an_area_are_counted(beamline: Beamline, other: UUID) -> None:
    daq(beamline, b"one")
    daq(beamline, b"two", other)
    daq(beamline, b"three", other)
    with beamline.database.read() as tx:
        assert (tx.pauses.waiting(beamline.area.uid), tx.pauses.waiting(other)) == (2, 4)
