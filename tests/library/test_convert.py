"""A series of images becomes one compressed file that any reader opens, bit by bit the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from beamkeeper.cli.demo.rings import Rings
from beamkeeper.domain.errors import InvalidError
from beamkeeper.library import convert
from library.beamline import Beamline

COUNT = 9
BITSHUFFLE = 32008


def test_a_series_becomes_one_file_without_loss(
    beamline: Beamline, tmp_path: Path, picture: Callable[[Path, str], None]
) -> None:
    beamline.dm("workflow", "install", "convert")
    rings = Rings(2)
    series = np.stack([rings.frame(number) for number in range(COUNT)])
    files = [tmp_path / f"s {number:03}.tif" for number in range(COUNT)]
    for file, frame in zip(files, series, strict=True):
        tifffile.imwrite(file, frame)
    kept = beamline.keep(*files)
    job = beamline.run("convert", *(f"data/{file.name}" for file in reversed(files)), output="scan 1")
    result = beamline.local("analysis/series/scan 1.h5")
    with h5py.File(result) as opened:
        data = opened[f"{opened.attrs['default']}/data/data"]
        assert np.array_equal(data[()], series)
        assert data.dtype == np.uint16
        assert data.id.get_create_plist().get_filter(0)[0] == BITSHUFFLE
        names = [name.decode() for name in opened["entry/source_files/names"][()]]
    assert names == [file.name for file in files]
    assert result.stat().st_size < sum(file.size for file in kept) / 2
    assert beamline.file("analysis/series/scan 1.h5").metadata["images"] == str(COUNT)
    assert float(job.variables["smaller"]) > 2
    picture(beamline.left(job) / "series.png", "convert.png")


def test_a_file_that_is_not_the_series_is_refused(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.tif" for number in range(3)]
    for number, path in enumerate(paths):
        tifffile.imwrite(path, np.full((8, 8), number, np.uint16))
    convert.write(paths, tmp_path / "all.h5", "gzip")
    convert.compare(paths, tmp_path / "all.h5")
    with h5py.File(tmp_path / "all.h5", "r+") as opened:
        opened["entry/data/data"][1, 4, 4] = 7
    with pytest.raises(InvalidError, match="frame 1 is not read back"):
        convert.compare(paths, tmp_path / "all.h5")
    with pytest.raises(InvalidError, match="3 frames"):
        convert.compare(paths[:1], tmp_path / "all.h5")
    tifffile.imwrite(paths[2], np.zeros((8, 9), np.uint16))
    with pytest.raises(InvalidError, match="frames of one kind"):
        convert.write(paths, tmp_path / "all.h5", "gzip")
