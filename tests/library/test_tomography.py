"""Tomography: a phantom whose projections are known by a formula comes back, and its axis is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from beamkeeper.library.__main__ import main
from library.beamline import Beamline

COLUMNS, ROWS, PROJECTIONS = 128, 3, 181
AXIS = 66.3
"""The column of the axis: 2.8 beside the middle."""
ELLIPSES = ((0, 0, 44, 36, 0.010), (12, 9, 14, 10, 0.012), (-16, -6, 8, 13, -0.007), (4, -18, 5, 5, 0.020))
"""Middle (x, y), half axes, and how much each adds to the absorption of a pixel."""


def projection(radians: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the sums along parallel lines through the ellipses, by their formula."""
    place = np.arange(COLUMNS) - AXIS
    total = np.zeros(COLUMNS)
    for x, y, a, b, density in ELLIPSES:
        middle = x * np.cos(radians) + y * np.sin(radians)
        width = (a * np.cos(radians)) ** 2 + (b * np.sin(radians)) ** 2
        total += 2 * density * a * b / width * np.sqrt(np.maximum(width - (place - middle) ** 2, 0))
    return total


def scan(file: Path) -> None:
    """Write a scan as Data Exchange: counts of a detector with a dark current and an uneven beam."""
    random = np.random.default_rng(5)
    light = 30000 * (1 + 0.2 * np.sin(np.arange(COLUMNS) / 9)) * np.ones((ROWS, 1))
    degrees = np.linspace(0, 180, PROJECTIONS)
    ways = np.stack([projection(angle) for angle in np.radians(degrees)])
    with h5py.File(file, "w") as opened:
        opened["exchange/data"] = random.poisson(light * np.exp(-ways[:, None, :]) + 100).astype(np.uint16)
        opened["exchange/data_white"] = random.poisson(np.broadcast_to(light + 100, (20, ROWS, COLUMNS))).astype("u2")
        opened["exchange/data_dark"] = random.poisson(np.full((20, ROWS, COLUMNS), 100)).astype("u2")
        opened["exchange/theta"] = degrees


def phantom() -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return the slice, with the axis in column 64 of row 64 and y upwards."""
    rows, columns = np.indices((COLUMNS, COLUMNS))
    total = np.zeros((COLUMNS, COLUMNS))
    for x, y, a, b, density in ELLIPSES:
        total += density * (((columns - 64 - x) / a) ** 2 + ((64 - rows - y) / b) ** 2 <= 1)
    return total


def test_a_phantom_comes_back(beamline: Beamline, tmp_path: Path, picture: Callable[[Path, str], None]) -> None:
    beamline.dm("workflow", "install", "tomography")
    scan(tmp_path / "phantom.h5")
    beamline.keep(tmp_path / "phantom.h5")
    job = beamline.run("tomography", "data/phantom.h5", rows="1:3")
    assert float(job.variables["axis"]) == pytest.approx(AXIS, abs=0.1)
    with h5py.File(beamline.local("analysis/slices/phantom.h5")) as opened:
        slices = opened["entry/data/data"][()]
    assert slices.shape == (2, COLUMNS, COLUMNS)
    truth = phantom()
    error = np.sqrt(np.mean((slices[0] - truth) ** 2) / np.mean(truth**2))
    assert error < 0.15  # most of it is noise of counting, and the ellipses' edges
    for x, y, a, b, _ in ELLIPSES[1:]:
        rows, columns = np.indices(truth.shape)
        inside = ((columns - 64 - x) / (a - 2)) ** 2 + ((64 - rows - y) / (b - 2)) ** 2 <= 1
        assert slices[:, inside].mean() == pytest.approx(truth[inside].mean(), rel=0.03)
    picture(beamline.local("analysis/slices/phantom.png"), "tomography.png")


def test_a_scan_in_the_layout_of_nxtomo_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    scan(tmp_path / "exchange.h5")
    with h5py.File(tmp_path / "exchange.h5") as given, h5py.File(tmp_path / "nx.h5", "w") as opened:
        parts = [given[f"exchange/{name}"][()] for name in ("data_white", "data", "data_dark")]
        detector = opened.create_group("entry/instrument/detector")
        detector["data"] = np.concatenate(parts)
        detector["image_key"] = np.repeat([1, 0, 2], [len(part) for part in parts])
        angles = np.zeros(len(detector["data"]))
        angles[20:-20] = given["exchange/theta"][()]
        opened["entry/sample/rotation_angle"] = angles
    for name in ("exchange", "nx"):
        assert main(["tomography", str(tmp_path / f"{name}.h5"), "--rows", "0:1", "--keep-in", "x"]) == 0
    first, second = (line for line in capsys.readouterr().out.splitlines() if line.startswith("centre"))
    assert first == second


def test_without_two_projections_half_a_turn_apart_the_centre_must_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    scan(tmp_path / "half.h5")
    with h5py.File(tmp_path / "half.h5", "r+") as opened:
        opened["exchange/theta"][...] = np.linspace(0, 90, PROJECTIONS)
    assert main(["tomography", str(tmp_path / "half.h5")]) == 1
    assert "give it" in capsys.readouterr().err
    assert main(["tomography", str(tmp_path / "half.h5"), "--rows", "3:9"]) == 1
    assert "are no rows of 3" in capsys.readouterr().err
