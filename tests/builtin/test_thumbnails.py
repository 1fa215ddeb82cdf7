"""Small pictures on arrival: of each kind of file that has frames, with what the numbers of a frame are."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import fabio.cbfimage
import fabio.edfimage
import h5py
import hdf5plugin
import numpy as np
import pytest
import tifffile
from PIL import Image
from pyhdf.SD import SD, SDC

from beamkeeper.builtin.metadata import MetadataProcessor
from beamkeeper.domain.frames import NewFrame, with_frame
from beamkeeper.domain.thumbnails import PICTURE_BYTES
from beamkeeper.plugins.api import PROCESSORS, PictureError
from beamkeeper.plugins.load import build
from beamkeeper.testing.stored import processor_context, stored_file

SHAPE = (300, 260)


@pytest.fixture(scope="module")
def processor() -> Iterator[MetadataProcessor]:
    made = build(PROCESSORS, "metadata", {})
    yield made
    made.worker.close()
    made.artist.close()


def looked(processor: MetadataProcessor, path: Path) -> tuple[Mapping[str, Any], bytes]:
    """Return the metadata of a file with what its first frame told later, and its picture; nothing where none is."""
    file = stored_file(path)
    [answer] = processor.process([file], processor_context())
    assert answer.error == ""
    assert "frame" not in answer.metadata, "the file waited for its picture"
    metadata = dict(answer.metadata)
    if answer.picture is None:
        return metadata, b""
    try:
        made = processor.picture(path, json.loads(json.dumps(answer.picture)))
    except PictureError as error:
        return with_frame(metadata, {}, NewFrame(version_uid=file.new.version_uid, error=str(error))), b""
    return metadata | {"frame": made.numbers} if made else metadata, made.png if made else b""


def frame() -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Return a dark frame with a spot of one pixel, a bright corner, and two saturated pixels."""
    made = np.full(SHAPE, 3, np.uint16)
    made[200, 100] = 900
    made[:20, :20] = 500
    made[5, 250:252] = 65535
    return made


def tiff(path: Path) -> Path:
    tifffile.imwrite(path / "f.tif", frame())
    return path / "f.tif"


def hdf5(path: Path) -> Path:
    with h5py.File(path / "f.h5", "w") as file:
        frames = np.stack([frame(), np.zeros(SHAPE, np.uint16)])
        file.create_dataset("entry/data", data=frames, chunks=(1, *SHAPE), **hdf5plugin.Bitshuffle())
        file["entry/table"] = np.ones((5000, 3))
    return path / "f.h5"


def edf(path: Path) -> Path:
    fabio.edfimage.EdfImage(data=frame()).write(str(path / "f.edf"))
    return path / "f.edf"


def cbf(path: Path) -> Path:
    fabio.cbfimage.CbfImage(data=frame().astype(np.int32)).write(str(path / "f.cbf"))
    return path / "f.cbf"


def hdf4(path: Path) -> Path:
    file = SD(str(path / "f.hdf4"), SDC.WRITE | SDC.CREATE)
    dataset = file.create("data", SDC.UINT16, SHAPE)
    dataset[:] = frame()
    dataset.endaccess()
    file.end()
    return path / "f.hdf4"


@pytest.mark.parametrize("write", [tiff, hdf5, edf, cbf, hdf4])
def test_a_file_with_frames_gets_a_picture_and_the_numbers_of_its_first(
    processor: MetadataProcessor, write: Callable[[Path], Path], tmp_path: Path
) -> None:
    metadata, png = looked(processor, write(tmp_path))
    is_signed = write is cbf
    told = metadata["frame"]
    assert told["min"] == 3
    assert told["max"] == (65535 if is_signed else 900)
    assert told["saturated"] == (0 if is_signed else 2)
    kept = frame() if is_signed else frame()[frame() < 65535]
    assert told["mean"] == pytest.approx(kept.mean(), rel=1e-5)
    assert len(png) < PICTURE_BYTES
    with Image.open(io.BytesIO(png)) as picture:
        shown = np.asarray(picture.convert("L"))
    assert shown.shape == (100, 87)
    assert shown[2, 2] > shown[50, 50]
    assert shown[66, 33] > shown[50, 50], "a spot of one pixel is lost"


def test_the_worst_noise_fits_into_what_a_picture_may_have(processor: MetadataProcessor, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "noise.tif", np.random.default_rng(0).integers(0, 65000, (128, 128), dtype=np.uint16))
    _, png = looked(processor, tmp_path / "noise.tif")
    assert 4000 < len(png) < PICTURE_BYTES


def test_what_lies_in_other_files_is_not_read_for_a_picture(processor: MetadataProcessor, tmp_path: Path) -> None:
    hdf5(tmp_path)
    with h5py.File(tmp_path / "master.h5", "w") as file:
        layout = h5py.VirtualLayout((2, *SHAPE), "u2")
        layout[:] = h5py.VirtualSource(str(tmp_path / "f.h5"), "entry/data", (2, *SHAPE))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("raw", SHAPE, "u1", external=[(str(tmp_path / "f.h5"), 0, SHAPE[0] * SHAPE[1])])
        file["linked"] = h5py.ExternalLink("f.h5", "/entry/data")
    metadata, png = looked(processor, tmp_path / "master.h5")
    assert (metadata.get("frame"), png) == (None, b"")
    assert "extraction" not in metadata


def test_a_file_that_is_cut_keeps_its_metadata_and_says_why_it_has_no_picture(
    processor: MetadataProcessor, tmp_path: Path
) -> None:
    for write in (cbf, tiff):
        path = write(tmp_path)
        path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
        metadata, png = looked(processor, path)
        assert png == b""
        assert metadata["format"] in ("CBF", "TIFF")
        assert "the first frame cannot be read" in metadata["extraction"]["error"]


def test_pictures_are_made_by_a_process_that_lets_all_others_go_first(
    processor: MetadataProcessor, tmp_path: Path
) -> None:
    looked(processor, tiff(tmp_path))
    assert processor.worker.pid is not None
    assert processor.artist.pid is not None
    nice = [os.getpriority(os.PRIO_PROCESS, pid) for pid in (processor.worker.pid, processor.artist.pid)]
    assert nice == [os.getpriority(os.PRIO_PROCESS, 0), 19]


def test_a_frame_that_people_have_told_of_is_not_looked_at(processor: MetadataProcessor, tmp_path: Path) -> None:
    [answer] = processor.process([stored_file(tiff(tmp_path), metadata={"frame": "dark"})], processor_context())
    assert answer.picture is None


def test_a_beamline_can_do_without(tmp_path: Path) -> None:
    made = build(PROCESSORS, "metadata", {"thumbnails": False})
    metadata, png = looked(made, tiff(tmp_path))
    assert ("frame" in metadata, png) == (False, b"")
    assert made.artist.pid is None
    made.worker.close()
