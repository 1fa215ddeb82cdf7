"""Pictures that are still to be made, and what their frames told: in the databases of both services."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pytest

from beamkeeper.db import AcquisitionTransaction, CatalogTransaction, Database
from beamkeeper.db.base import new_uid
from beamkeeper.db.pictures import WantedPicture
from beamkeeper.db.schema import create
from beamkeeper.domain.files import NewFile
from beamkeeper.domain.frames import NewFrame
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.status import Service
from beamkeeper.testing.beamline import Clock
from beamkeeper.testing.catalogue import EXPERIMENT, new_file

NUMBERS: Metadata = {"min": 0, "max": 9, "mean": 1.5, "saturated": 0}
OTHER = new_uid()


@pytest.fixture
def acquisition(database_url: str, clock: Clock) -> Iterator[Database[AcquisitionTransaction]]:
    with closing(Database(database_url, AcquisitionTransaction, clock=clock)) as database:
        create(database, Service.ACQUISITION)
        yield database


@pytest.fixture
def catalog(database_url: str, clock: Clock) -> Iterator[Database[CatalogTransaction]]:
    with closing(Database(database_url, CatalogTransaction, clock=clock)) as database:
        create(database, Service.CATALOG)
        yield database


def test_pictures_are_told_in_the_order_of_arrival_and_those_put_off_when_it_is_time(
    acquisition: Database[AcquisitionTransaction], clock: Clock
) -> None:
    wanted = [
        WantedPicture(new_uid(), EXPERIMENT, b"/data/\xff%d" % number, "metadata", {"format": "TIFF"}, "1 2")
        for number in range(40)
    ]
    with acquisition.write() as tx:
        tx.pictures.add(wanted)
        tx.pictures.add(wanted[:2])  # by a step that was written twice
        assert list(tx.pictures.due(3)) == wanted[:3]
        tx.pictures.settle({one.version_uid for one in wanted[3:]})
        tx.pictures.put_off({wanted[0].version_uid}, tx.now + timedelta(minutes=1))
        assert list(tx.pictures.due(9)) == wanted[1:3]
    clock.now += timedelta(minutes=2)
    with acquisition.read() as tx:
        assert [(one.version_uid, one.attempts) for one in tx.pictures.due(9)] == [
            (wanted[1].version_uid, 0),
            (wanted[2].version_uid, 0),
            (wanted[0].version_uid, 1),
        ]
        assert tx.pictures.count() == 3


def metadata_of(catalog: Database[CatalogTransaction], new: NewFile) -> Metadata:
    with catalog.read() as tx:
        return tx.files.lookup(new.experiment_uid, [new.relpath])[0].metadata


def test_numbers_of_a_frame_come_to_the_newest_version_and_replace_nothing(
    catalog: Database[CatalogTransaction],
) -> None:
    plain, own = new_file("data/a", metadata={"format": "TIFF"}), new_file("data/own", metadata={"frame": "dark"})
    old, foreign = new_file("data/again"), new_file("data/a", experiment_uid=OTHER)
    new = new_file("data/again", content=b"other", number=2)
    with catalog.write() as tx:
        answers = tx.files.register([plain, own, old, foreign], by="service")
        tx.files.register([new], by="service")
    told = [NewFrame(version_uid=one.version_uid, numbers=NUMBERS) for one in (plain, own, old, foreign)]
    for expected in ([answers[0].file_uid], []):
        with catalog.write() as tx:
            assert [uid for uid, _ in tx.files.note_frames(EXPERIMENT, told)] == expected
    assert metadata_of(catalog, plain) == {"format": "TIFF", "frame": NUMBERS}
    assert metadata_of(catalog, own) == {"frame": "dark"}
    assert "frame" not in metadata_of(catalog, new) | metadata_of(catalog, foreign)


def test_why_a_frame_cannot_be_read_is_told_beside_what_was_wrong_before(catalog: Database[CatalogTransaction]) -> None:
    fine, broken = new_file("data/a"), new_file("data/b", metadata={"extraction": {"error": "1 object is broken"}})
    with catalog.write() as tx:
        tx.files.register([fine, broken], by="service")
    for _ in range(2):
        with catalog.write() as tx:
            frames = [NewFrame(version_uid=one.version_uid, error="it ends too early") for one in (fine, broken)]
            tx.files.note_frames(EXPERIMENT, frames)
    assert metadata_of(catalog, fine) == {"extraction": {"error": "it ends too early"}}
    assert metadata_of(catalog, broken) == {"extraction": {"error": "1 object is broken; it ends too early"}}


def test_what_people_have_removed_does_not_come_back(catalog: Database[CatalogTransaction]) -> None:
    new = new_file("data/a")
    with catalog.write() as tx:
        [answer] = tx.files.register([new], by="service")
        assert answer.file_uid is not None
        tx.files.set_metadata(answer.file_uid, {"frame": None}, by="kim")
        assert not tx.files.note_frames(EXPERIMENT, [NewFrame(version_uid=new.version_uid, numbers=NUMBERS)])
    assert metadata_of(catalog, new) == {}
