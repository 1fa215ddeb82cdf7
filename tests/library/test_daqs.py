"""Workflows of the library run by themselves on what a DAQ brings, as by hand; others show it in their own tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tifffile
from pydantic import JsonValue

from beamkeeper.cli.demo.rings import Rings
from beamkeeper.testing.speckles import apart
from library.beamline import Beamline
from library.test_powder import standard
from library.test_tomography import scan


def rings(file: Path) -> None:
    """Write a frame of rings."""
    tifffile.imwrite(file, Rings(1).frame(0))


@dataclass(frozen=True, slots=True)
class Case:
    """A file that a detector writes, and what a workflow makes of it below analysis/."""

    workflow: str
    file: str
    write: Callable[[Path], None]
    result: str
    arguments: dict[str, JsonValue] = field(default_factory=dict)


CASES = (
    Case("calibrate", "seen.tif", standard, "calibration/seen.poni", {"tilt": "no"}),
    Case("convert", "seen_2.tif", rings, "series/seen.h5", {"output": "seen"}),
    Case("powder", "seen_3.tif", standard, "curves/seen_3.txt"),
    Case("tomography", "seen_4.h5", scan, "slices/seen_4.h5", {"rows": "1:2"}),
    Case("xpcs", "seen_5.h5", apart, "xpcs/seen_5.h5", {"qMin": 0.0028, "qMax": 0.0095, "rings": 6}),
)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.workflow)
def test_what_a_daq_brings_is_worked_on_by_itself(beamline: Beamline, tmp_path: Path, case: Case) -> None:
    name = f"daq-{case.workflow}"
    beamline.dm("workflow", "install", case.workflow, "--as", name)
    daq = beamline.watch(tmp_path, name, **case.arguments)
    case.write(tmp_path / case.file)
    beamline.started(name)
    beamline.client.daqs.stop(daq.uid)
    assert beamline.file(f"analysis/{case.result}").size > 0
    assert f"data/{case.file}" in beamline.dm("why", f"analysis/{case.result}")
