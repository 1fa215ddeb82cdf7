"""XPCS: from speckles of particles in Brownian motion comes the relaxation time with which they were moved."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from beamkeeper.library.__main__ import main
from beamkeeper.testing.speckles import DIFFUSION, apart
from library.beamline import Beamline


def test_the_relaxation_time_of_brownian_motion_is_found_again(
    beamline: Beamline, tmp_path: Path, picture: Callable[[Path, str], None]
) -> None:
    beamline.dm("workflow", "install", "xpcs", "rings:6")
    apart(tmp_path / "brown.h5")
    beamline.keep(tmp_path / "brown.h5")
    job = beamline.run("xpcs", "data/brown.h5", qMin=0.0028, qMax=0.0095)
    assert float(job.variables["diffusion"]) == pytest.approx(DIFFUSION, rel=0.1)
    with h5py.File(beamline.local("analysis/xpcs/brown.h5")) as opened:
        found = opened["xpcs/multitau"]
        q, rates, contrast = (found[name][()] for name in ("q", "rate", "contrast"))
    assert 1 / rates == pytest.approx(1 / (DIFFUSION * q**2), rel=0.1)
    assert contrast == pytest.approx(np.ones(6), abs=0.15)
    assert np.isclose(float(job.variables["relaxation"]), 1 / rates, rtol=1e-5).any()
    picture(beamline.local("analysis/xpcs/brown.svg"), "xpcs.svg")


def test_another_program_may_correlate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """boost_corr itself needs Python 3.12: what it is called with, and what becomes of its file, is here."""
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "boost_corr"
    program.write_text(
        f"#!{sys.executable}\nimport pathlib, sys\nwords = dict(zip(sys.argv[1::2], sys.argv[2::2]))\n"
        "into = pathlib.Path(words['--output'])\ninto.mkdir()\n(into / 'a_results.hdf').write_text(repr(words))\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    file = tmp_path / "data" / "a.h5"
    words = ["xpcs", str(file), "--in-experiment", "data/a.h5", "--correlator", "boost-corr", "--gpu", "1"]
    assert main(words) == 1
    assert "map of q" in capsys.readouterr().err
    assert main([*words, "--qmap", "analysis/q.h5"]) == 0
    called = (tmp_path / "xpcs/a.h5").read_text()
    assert f"'--raw': '{file}'" in called
    assert f"'--qmap': '{tmp_path}/analysis/q.h5'" in called
    assert "'--gpu-id': '1'" in called


def test_a_file_without_a_time_or_a_geometry_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as opened:
        opened["entry/data/data"] = np.ones((40, 8, 8), np.uint16)
    assert main(["xpcs", str(tmp_path / "x.h5")]) == 1
    assert "geometry" in capsys.readouterr().err
