"""Powder and SAXS: a standard gives the geometry back that its frame was made with, and curves follow."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from beamkeeper.library.__main__ import main
from library.beamline import Beamline

REAL = Path(os.environ.get("BEAMKEEPER_REAL_DATA", Path(__file__).parents[3] / "shared/data/real"))
SIDE, PIXEL_MM = 400, 0.2
LATTICE, WAVELENGTH = 4.15692, 0.7336
DISTANCE_MM, CENTRE = 180.0, (203.4, 187.8)
"""Angstroms of LaB6 (SRM 660c), and where the detector really is: millimetres, and columns and rows."""


def standard(file: Path) -> None:
    """Write a frame of LaB6 whose metadata say 1.5 mm too much and a centre that is two pixels off."""
    rows, columns = np.indices((SIDE, SIDE))
    radius = np.hypot(columns - CENTRE[0], rows - CENTRE[1]) * PIXEL_MM
    angle = np.arctan(radius / DISTANCE_MM)
    frame = np.full((SIDE, SIDE), 5.0)
    sums = sorted({h * h + k * k + m * m for h in range(6) for k in range(6) for m in range(6)} - {0})
    for total in (number for number in sums if number < 12):
        ring = 2 * np.arcsin(WAVELENGTH / 2 / (LATTICE / np.sqrt(total)))
        frame += 800 * np.exp(-((np.degrees(angle - ring) / 0.08) ** 2) / 2)
    told = {"beam_x_mm": (CENTRE[0] + 2) * PIXEL_MM, "beam_y_mm": (CENTRE[1] - 2) * PIXEL_MM}
    told |= {"pixel_mm": PIXEL_MM, "distance_mm": DISTANCE_MM + 1.5, "wavelength_A": WAVELENGTH}
    counted = np.random.default_rng(3).poisson(frame).astype(np.uint16)
    description = "\n".join(f"{key}:{value}" for key, value in told.items())
    tifffile.imwrite(file, counted, photometric="minisblack", description=description, metadata=None)


def test_a_standard_calibrates_the_detector_for_the_curves_that_follow(
    beamline: Beamline, tmp_path: Path, picture: Callable[[Path, str], None]
) -> None:
    for name in ("calibrate", "powder"):
        beamline.dm("workflow", "install", name)
    standard(tmp_path / "lab6.tif")
    beamline.keep(tmp_path / "lab6.tif")
    job = beamline.run("calibrate", "data/lab6.tif", tilt="no")
    assert float(job.variables["distance"]) == pytest.approx(DISTANCE_MM, rel=3e-4)
    assert float(job.variables["off"]) < 0.01
    poni = beamline.local("analysis/calibration/lab6.poni")
    kept = dict(line.split(": ", 1) for line in poni.read_text().splitlines() if ": " in line)
    centre = float(kept["Poni2"]) * 1000 / PIXEL_MM - 0.5, float(kept["Poni1"]) * 1000 / PIXEL_MM - 0.5
    assert centre == pytest.approx(CENTRE, abs=0.1)
    picture(beamline.local("analysis/calibration/lab6.svg"), "calibrate.svg")
    job = beamline.run("powder", "data/lab6.tif", poni="analysis/calibration/lab6.poni")
    assert float(job.variables["ring"]) == pytest.approx(LATTICE, rel=1e-3)
    q, intensity, sigma = np.loadtxt(beamline.local("analysis/curves/lab6.txt")).T
    near = np.abs(q - 2 * np.pi / LATTICE * np.sqrt(2)) < 0.1
    assert q[near][intensity[near].argmax()] == pytest.approx(2 * np.pi / LATTICE * np.sqrt(2), rel=2e-3)
    assert (sigma[intensity > 0] > 0).all()
    assert "data/lab6.tif" in beamline.dm("why", "analysis/curves/lab6.txt")
    picture(beamline.local("analysis/curves/lab6.svg"), "powder.svg")


@pytest.mark.parametrize(
    "detector",
    [
        "Detector: /others/detector.h5",
        'Detector: NexusDetector\nDetector_config: {"filename": "/others/detector.h5"}',
        'Detector: FReLoN\nDetector_config: {"splineFile": "\\u002fothers\\u002fspline"}',
    ],
)
def test_a_calibration_leads_to_no_other_file(
    detector: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    standard(tmp_path / "lab6.tif")
    poni = tmp_path / "other.poni"
    poni.write_text(f"# of 2026/11\nponi_version: 2\n{detector}\nDistance: 0.1\nWavelength: 1e-10\n")
    for words in (["powder", "--poni"], ["calibrate", "--guess"]):
        assert main([words[0], str(tmp_path / "lab6.tif"), words[1], str(poni)]) == 1
        assert "leads to another file" in capsys.readouterr().err


def test_a_guess_that_is_far_off_gives_no_calibration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    standard(tmp_path / "lab6.tif")
    assert main(["calibrate", str(tmp_path / "lab6.tif"), "--standard", "AgBh", "--rings", "2"]) == 1
    assert "rings" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.poni"))


@pytest.mark.skipif(not REAL.is_dir(), reason=f"there are no real files in {REAL}")
def test_silver_behenate_has_its_first_ring_where_it_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["powder", str(REAL / "aps/AgBehenate_228.hdf5"), "--unit", "q_nm^-1", "--points", "400"]) == 0
    told = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert float(told["first ring"].split()[0]) == pytest.approx(58.4, abs=0.6)
