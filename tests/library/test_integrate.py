"""The demo's workflow finds rings where they are, with the geometry of the frame's own metadata."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from beamkeeper.cli.demo.rings import RADII, Rings, tiff_bytes
from beamkeeper.library import integrate

REAL = Path(os.environ.get("BEAMKEEPER_REAL_DATA", Path(__file__).parents[3] / "shared/data/real"))


def told(frame: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return what it prints of a frame."""
    assert integrate.main([str(frame), str(frame.with_suffix(".txt"))]) == 0
    return dict(line.split(": ") for line in capsys.readouterr().out.splitlines())


@pytest.mark.skipif(not REAL.is_dir(), reason=f"there are no real files in {REAL}")
def test_silver_behenate_has_its_first_ring_where_it_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beamline 15-ID's x counts rows, though it is called horizontal: the module stood upright."""
    frame = tmp_path / "behenate.hdf5"
    frame.write_bytes((REAL / "aps/AgBehenate_228.hdf5").read_bytes())
    found = told(frame, capsys)
    assert float(found["first ring"].split()[0]) == pytest.approx(58.4, abs=0.6)
    assert found["beam centre"] == "x counts rows"
    q, intensity = np.loadtxt(frame.with_suffix(".txt")).T
    near = (q > 0.09) & (q < 0.13)
    assert 2 * np.pi / q[near][intensity[near].argmax()] == pytest.approx(58.4, abs=0.9)  # a point is that wide


@pytest.mark.parametrize("number", [0, 7])
def test_a_simulated_frame_has_its_rings_where_they_were_put(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    frame = tmp_path / "frame.tif"
    frame.write_bytes(tiff_bytes(Rings(1).frame(number), number=number, taken_at=datetime(2026, 1, 1, tzinfo=UTC)))
    _, geometry = integrate.read(frame)
    radius = RADII[0] * (1 + 0.004 * (number % 4)) * geometry.pixel_x
    spacing = geometry.wavelength / (2 * np.sin(np.arctan(radius / geometry.distance) / 2))
    found = told(frame, capsys)
    assert float(found["first ring"].split()[0]) == pytest.approx(spacing, rel=0.01)
    assert found["beam centre"] == "x counts columns"


def test_what_is_no_frame_is_refused_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.h5").write_bytes(b"nothing")
    assert integrate.main([str(tmp_path / "x.h5"), str(tmp_path / "x.txt")]) == 1
    assert "no frame with its geometry" in capsys.readouterr().err
