"""Small pictures behind the arrival of files: of the right version, told why not, and only while others do not wait."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from beamkeeper.builtin.metadata import MetadataProcessor
from beamkeeper.db.pictures import WantedPicture
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.files import NewFile
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.status import Service
from beamkeeper.engine.pictures import MOST_ATTEMPTS, PicturesLoop
from beamkeeper.engine.process import state_of
from beamkeeper.plugins.api import PROCESSORS, FileProcessor, Picture, Processed, ProcessorContext, StoredFile
from beamkeeper.plugins.load import build
from beamkeeper.testing.catalogue import new_file
from beamkeeper.testing.services import Running, running

NUMBERS = count(1)
TOLD: Metadata = {"extractor": "tiff", "format": "TIFF"}


class Scene:
    """A station's services, and files that are available and want pictures."""

    def __init__(self, beamline: Running, processor: MetadataProcessor) -> None:
        self.beamline = beamline
        self.processor: FileProcessor = processor
        self.database: Any = beamline.contexts[Service.ACQUISITION].database
        self.experiment: Experiment
        self.told: list[str] = []

    def wanted(self, path: Path) -> NewFile:
        """Have a picture wanted of a file that is catalogued."""
        new = new_file(f"data/{path.name}", experiment_uid=self.experiment.uid)
        self.beamline.as_service().files.register([new])
        state = state_of(os.fsencode(path))
        with self.database.write() as tx:
            tx.pictures.add(
                [WantedPicture(new.version_uid, self.experiment.uid, os.fsencode(path), "metadata", TOLD, state)]
            )
        return new

    def step(self, is_busy: Callable[[], bool] = lambda: False) -> None:
        """Take one step, as a process that has just started does."""
        loop = PicturesLoop(
            self.database,
            self.beamline.as_service(),
            lambda name: self.processor,
            is_busy=is_busy,
            report=self.told.append,
        )
        try:
            loop.step()
        finally:
            loop.ended()

    def metadata(self, new: NewFile) -> Mapping[str, Any]:
        [found] = self.beamline.client.files.lookup(self.experiment.uid, [new.relpath])
        return found.metadata

    def pictures(self, *files: NewFile) -> Sequence[bytes]:
        uids = [new.version_uid for new in files]
        return list(self.beamline.client.thumbnails.of(self.experiment.uid, uids).values())

    @property
    def left(self) -> int:
        with self.database.read() as tx:
            return int(tx.pictures.count())

    def hurry(self) -> None:
        """Let what was put off be tried now."""
        with self.database.write() as tx:
            rows = tx.session.connection()
            rows.exec_driver_sql("UPDATE pictures SET next_at = 0")


@pytest.fixture(scope="module")
def beamline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(Service.ACQUISITION, Service.CATALOG, directory=tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.fixture(scope="module")
def processor() -> Iterator[MetadataProcessor]:
    made = build(PROCESSORS, "metadata", {})
    yield made
    made.artist.close()


@pytest.fixture
def scene(beamline: Running, processor: MetadataProcessor) -> Scene:
    made = Scene(beamline, processor)
    new = NewExperiment(name=f"e{next(NUMBERS)}", station=beamline.settings.station.name)
    made.experiment = beamline.client.experiments.create(new)
    return made


def frame(path: Path, largest: int = 900) -> Path:
    made = np.full((40, 50), 3, np.uint16)
    made[7, 8] = largest
    tifffile.imwrite(path, made)
    return path


def test_pictures_and_numbers_follow_and_what_cannot_be_read_says_why(scene: Scene, tmp_path: Path) -> None:
    fine, cut = frame(tmp_path / "fine.tif"), frame(tmp_path / "cut.tif")
    cut.write_bytes(cut.read_bytes()[:-900])
    files = [scene.wanted(fine), scene.wanted(cut)]
    scene.step()
    assert scene.left == 0
    assert len(scene.pictures(*files)) == 1
    assert scene.metadata(files[0])["frame"]["max"] == 900
    assert "the first frame cannot be read" in scene.metadata(files[1])["extraction"]["error"]
    assert scene.told == []


def test_a_version_never_gets_the_picture_of_the_next(scene: Scene, tmp_path: Path) -> None:
    file = scene.wanted(frame(tmp_path / "a.tif"))
    frame(tmp_path / "b.tif", 500).replace(tmp_path / "a.tif")
    scene.step()
    assert (scene.left, scene.pictures(file), scene.metadata(file)) == (0, [], {})


def test_a_file_that_is_away_for_a_while_is_tried_again_and_in_the_end_says_why(scene: Scene, tmp_path: Path) -> None:
    back, gone = scene.wanted(frame(tmp_path / "back.tif")), scene.wanted(frame(tmp_path / "gone.tif"))
    aside = tmp_path / "aside"
    (tmp_path / "back.tif").rename(aside)
    (tmp_path / "gone.tif").unlink()
    scene.step()
    assert (scene.left, scene.pictures(back)) == (2, [])
    aside.rename(tmp_path / "back.tif")
    for _ in range(MOST_ATTEMPTS - 1):
        scene.hurry()
        scene.step()
    assert (scene.left, len(scene.pictures(back))) == (0, 1)
    why = "the first frame cannot be read: No such file or directory"
    assert scene.metadata(gone) == {"extraction": {"error": why}}


class Plugin:
    """A processor that notes when it is asked, and trips over one file."""

    def __init__(self, told: list[str]) -> None:
        self.told = told

    def process(self, files: Sequence[StoredFile], context: ProcessorContext) -> Sequence[Processed]:
        return []

    def picture(self, path: Path, told: Mapping[str, Any]) -> Picture | None:
        self.told.append(path.name)
        if path.name == "odd":
            raise ZeroDivisionError("no bins")
        return Picture({}, b"no PNG") if path.name == "bad" else None


def test_while_files_are_on_their_way_pictures_wait(scene: Scene, tmp_path: Path) -> None:
    scene.wanted(frame(tmp_path / "a.tif"))
    order: list[str] = []
    scene.processor = Plugin(order)

    def is_busy() -> bool:
        order.append("busy")
        return len(order) < 4

    scene.step(is_busy)
    assert order == [*["busy"] * 4, "a.tif"]


def test_a_plugin_that_fails_holds_up_no_other_file(scene: Scene, tmp_path: Path) -> None:
    odd, bad, none = (scene.wanted(frame(tmp_path / name)) for name in ("odd", "bad", "none"))
    scene.processor = Plugin([])
    scene.step()
    assert scene.left == 0
    assert "ZeroDivisionError: no bins" in scene.metadata(odd)["extraction"]["error"]
    assert "no PNG" in scene.metadata(bad)["extraction"]["error"]
    assert (scene.metadata(none), scene.told) == ({}, [])
