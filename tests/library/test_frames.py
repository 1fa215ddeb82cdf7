"""Frames are found where detectors leave them, and never in a file that somebody's link leads to."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from beamkeeper.domain.errors import InvalidError
from beamkeeper.library import integrate, tomography
from beamkeeper.library.frames import frames

STACK = np.arange(2 * 4 * 5, dtype=np.uint16).reshape(2, 4, 5)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory of somebody's, beside a file that is another's."""
    with h5py.File(tmp_path / "others.h5", "w") as opened:
        opened["entry/data/data"] = STACK
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


def test_a_master_file_has_the_frames_of_the_files_beside_it(place: Path) -> None:
    with h5py.File(place / "master.h5", "w") as master:
        for number in (1, 2):
            with h5py.File(place / f"part_{number}.h5", "w") as part:
                part["data"] = STACK + number
            master[f"entry/data/data_00000{number}"] = h5py.ExternalLink(f"part_{number}.h5", "data")
    with frames(place / "master.h5") as found:
        assert np.array_equal(np.stack(list(found)), np.concatenate([STACK + 1, STACK + 2]))


@pytest.mark.parametrize("way", ["link", "symlink", "virtual", "virtual of a virtual", "external"])
def test_no_way_leads_to_the_files_of_others(place: Path, way: str) -> None:
    other = "../others.h5"
    layout = h5py.VirtualLayout(STACK.shape, STACK.dtype)
    with h5py.File(place / "x.h5", "w") as opened:
        if way == "link":
            opened["entry/data/data"] = h5py.ExternalLink(other, "entry/data/data")
        elif way == "symlink":
            (place / "near.h5").symlink_to(other)
            opened["entry/data/data"] = h5py.ExternalLink("near.h5", "entry/data/data")
        elif way == "external":
            external = [(str(place.parent / "others.h5"), 0, STACK.nbytes)]
            opened.create_dataset("entry/data/data", STACK.shape, STACK.dtype, external=external)
        else:
            layout[...] = h5py.VirtualSource(other, "entry/data/data", STACK.shape)
            opened.create_virtual_dataset("entry/data/data", layout)
    name = "x.h5"
    if way == "virtual of a virtual":
        layout = h5py.VirtualLayout(STACK.shape, STACK.dtype)
        layout[...] = h5py.VirtualSource("x.h5", "entry/data/data", STACK.shape)
        with h5py.File(place / "y.h5", "w") as opened:
            opened.create_virtual_dataset("entry/data/data", layout)
        name = "y.h5"
    with pytest.raises(InvalidError, match="other directories"), frames(place / name):
        pass


@pytest.mark.parametrize("of_others", ["detector", "detector/distance", "monochromator/wavelength"])
def test_numbers_of_a_geometry_are_not_taken_from_the_files_of_others(place: Path, of_others: str) -> None:
    with h5py.File(place.parent / "geometry.h5", "w") as opened:
        for name in ("beam_center_x", "beam_center_y", "x_pixel_size", "y_pixel_size", "distance"):
            opened[f"detector/{name}"] = 1.0
        opened["monochromator/wavelength"] = 1.0
    with h5py.File(place / "x.h5", "w") as opened:
        opened["entry/data/data"] = STACK
        with h5py.File(place.parent / "geometry.h5") as told:
            for name in ("detector", "monochromator"):
                told.copy(name, opened.require_group("entry/instrument"))
        del opened[f"entry/instrument/{of_others}"]
        opened[f"entry/instrument/{of_others}"] = h5py.ExternalLink("../geometry.h5", of_others)
    with pytest.raises(InvalidError, match="other directories"):
        integrate.read(place / "x.h5")


def test_angles_of_a_scan_are_not_taken_from_the_files_of_others(place: Path) -> None:
    with h5py.File(place / "x.h5", "w") as opened:
        opened["exchange/data"] = opened["exchange/data_white"] = STACK
        opened["exchange/theta"] = h5py.ExternalLink("../others.h5", "entry/data/data")
    with h5py.File(place / "x.h5") as opened, pytest.raises(InvalidError, match="other directories"):
        tomography.read(place / "x.h5", opened)
