"""Quality at arrival: what is wrong with the pixels of a file stands in its metadata before anybody looks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from beamkeeper.cli.demo.rings import CENTRE_X, CENTRE_Y, RADII, Rings
from beamkeeper.library import quality
from library.beamline import Beamline

SIDE = 96


def counts(number: int = 10) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Return frames as a good detector gives them."""
    return np.random.default_rng(7).poisson(40, (number, SIDE, SIDE)).astype(np.uint16)


def found(stack: np.ndarray[Any, Any], directory: Path, *options: str) -> dict[str, Any]:
    """Return what is told of frames in a file."""
    file = directory / "stack.h5"
    with h5py.File(file, "w") as opened:
        opened["entry/data/data"] = stack
    output = directory / "quality.json"
    assert quality.main([str(file), "--output", str(output), *options]) == 0
    told: dict[str, Any] = json.loads(output.read_text())["quality"]
    return told


def test_a_good_file_has_no_marks(tmp_path: Path) -> None:
    stack = counts()
    told = found(stack, tmp_path)
    assert (told["frames"], told["min"], told["max"]) == (10, stack.min(), stack.max())
    assert told["mean"] == pytest.approx(stack.mean(), rel=1e-5)
    assert (told["marks"], told["is_good"]) == ([], True)


def test_each_fault_is_counted_and_marked(tmp_path: Path) -> None:
    stack = counts()
    stack[3, 5, 5:8] = 65535
    stack[:, 20, 20] = 0
    stack[:, 50:52, 50] = 0
    stack[7] = stack[6]
    told = found(stack, tmp_path)
    assert (told["saturated"], told["dead"], told["frozen"]) == (3, 3, 1)
    assert told["marks"] == ["saturated", "dead", "frozen"]
    lenient = ["--max-saturated", "3", "--max-dead", "3", "--max-frozen", "1", "--min-mean", "1000"]
    assert found(stack, tmp_path, *lenient)["marks"] == ["dark"]


@pytest.mark.parametrize(("dtype", "gap"), [(np.int32, -1), (np.uint32, 2**32 - 1), (np.float32, np.nan)])
def test_the_gaps_of_a_detector_are_neither_dead_nor_saturated(tmp_path: Path, dtype: Any, gap: float) -> None:
    stack = counts().astype(dtype)
    stack[:, 40:44, :] = gap
    told = found(stack, tmp_path)
    assert told["masked"] == 4 * SIDE
    assert told["is_good"], told
    assert told["max"] < 200


def test_a_beam_stop_is_not_taken_for_dead_pixels(tmp_path: Path) -> None:
    stack = counts()
    stack[:, 30:60, 30:60] = 0
    assert found(stack, tmp_path)["dead"] <= 4  # the corners have five neighbours that count


def test_files_of_a_daq_are_marked_as_they_arrive(
    beamline: Beamline, tmp_path: Path, picture: Callable[[Path, str], None]
) -> None:
    assert 'workflow "quality" of' in beamline.dm("workflow", "install", "quality", "maxDead:2")
    (tmp_path / "scan").mkdir()
    daq = beamline.watch(tmp_path / "scan", "quality", saturation=2000)
    frame = Rings(1).frame(0)
    tifffile.imwrite(tmp_path / "scan" / "q_good.tif", frame)
    frame[10, 10] = 2000
    on_a_ring = int(CENTRE_Y), int(CENTRE_X + RADII[1])
    frame[on_a_ring] = frame[on_a_ring[0] + 4, on_a_ring[1]] = 0
    tifffile.imwrite(tmp_path / "scan" / "q_full.tif", frame)
    jobs = beamline.started("quality", 2)
    beamline.client.daqs.stop(daq.uid)
    good, full = (beamline.file(f"data/{name}.tif").metadata["quality"] for name in ("q_good", "q_full"))
    assert isinstance(good, dict)
    assert isinstance(full, dict)
    assert good["is_good"] is True
    assert (full["marks"], full["dead"], full["saturated"]) == (["saturated"], 2, 1)
    assert {job.variables["quality"] for job in jobs} == {"good", "saturated"}
    marked = beamline.dm("--json", "file", "find", "quality.is_good = false")
    assert [one["path"] for one in json.loads(marked)] == ["data/q_full.tif"]
    picture(beamline.left(jobs[0]) / "quality.png", "quality.png")
