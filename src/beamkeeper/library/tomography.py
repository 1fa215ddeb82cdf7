"""Tomography: flat field, centre of rotation, and filtered back-projection by scikit-image, in blocks of rows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamkeeper.domain.errors import InvalidError
from beamkeeper.library import pictures, results
from beamkeeper.library.frames import check_near, value

Array = NDArray[np.float64]

BLOCK = 32
"""So many rows are read and reconstructed at once: what is in memory is bounded."""
OPPOSITE = 2.0
"""Degrees that two projections may miss half a turn by, to find the centre from them."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan as it lies in a file, with the means of its flat and dark fields, and the angles of its projections."""

    data: Any
    which: NDArray[np.intp]
    flat: Array
    dark: Array
    degrees: Array

    def absorption(self, rows: slice) -> Array:
        """Return what the sample takes away on each way, for some rows: projections, rows, columns."""
        raw = np.asarray(self.data[:, rows, :], np.float64)[self.which]
        light = np.maximum(self.flat[rows] - self.dark[rows], 1.0)
        return np.asarray(-np.log(np.clip((raw - self.dark[rows]) / light, 1e-6, None)))


def main(argv: Sequence[str] | None = None) -> int:
    """Reconstruct the slices of a scan."""
    parser = argparse.ArgumentParser(prog="dm-library tomography", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", default="", help="BEGIN:END; empty for all")
    parser.add_argument("--centre", default="", help="the column of the axis; empty to find it")
    parser.add_argument("--filter", choices=("ramp", "shepp-logan", "cosine", "hamming", "hann"), default="ramp")
    results.add_options(parser, "slices")
    options = parser.parse_args(argv)
    with h5py.File(options.file, locking=False) as file:
        scan = read(options.file, file)
        begin, end = _rows(options.rows, scan.data.shape[1])
        centre = float(options.centre) if options.centre else find_centre(scan, begin, end)
        result = results.place(options, options.file)
        with h5py.File(f"{result}.h5", "w") as output:
            slices = _output(output, scan, end - begin, centre)
            for low in range(begin, end, BLOCK):
                block = scan.absorption(slice(low, min(low + BLOCK, end)))
                for row in range(block.shape[1]):
                    slices[low - begin + row] = reconstructed(block[:, row], scan.degrees, centre, options.filter)
            pictures.image(Path(f"{result}.png"), slices[len(slices) // 2])
    sys.stdout.write(f"centre: {centre:.3f}\nslices: {end - begin}\n")
    return 0


def read(path: Path, file: h5py.File) -> Scan:
    """Return a scan in the layout of Data Exchange, or in that of NXtomo."""
    for name in (
        *(f"exchange/{part}" for part in ("data", "data_white", "data_dark")),
        "entry/instrument/detector/data",
    ):
        if name in file:
            check_near(path, file[name])
    if "exchange/data" in file:
        group = file["exchange"]
        data = group["data"]
        if "data_white" not in group:
            raise InvalidError(f"{file.filename} has no flat field (exchange/data_white)")
        dark = _mean(group["data_dark"][()]) if "data_dark" in group else np.zeros(data.shape[1:])
        theta = value(path, group, "theta") if "theta" in group else np.linspace(0, 180, len(data), endpoint=False)
        return Scan(data, np.arange(len(data)), _mean(group["data_white"][()]), dark, np.asarray(theta, float))
    if "entry/instrument/detector/image_key" not in file:
        raise InvalidError(f"{file.filename} is no scan: neither exchange/data is in it, nor an image_key as in NXtomo")
    detector = file["entry/instrument/detector"]
    data, key = detector["data"], value(path, detector, "image_key")
    fields = [np.flatnonzero(key == kind) for kind in (0, 1, 2)]
    if not len(fields[1]):
        raise InvalidError(f"{file.filename} has no flat field (image_key 1)")
    dark = _mean(data[fields[2]]) if len(fields[2]) else np.zeros(data.shape[1:])
    degrees = np.asarray(value(path, file, "entry/sample/rotation_angle"), float)[fields[0]]
    return Scan(data, fields[0], _mean(data[fields[1]]), dark, degrees)


def _mean(fields: Any) -> Array:
    mean: Array = np.asarray(fields, np.float64).reshape(-1, *fields.shape[-2:]).mean(axis=0)
    return mean


def _rows(text: str, count: int) -> tuple[int, int]:
    words = text.split(":") if text else ["0", str(count)]
    if len(words) != 2 or not all(word.isdigit() for word in words) or not 0 <= int(words[0]) < int(words[1]) <= count:
        raise InvalidError(f'"{text}" are no rows of {count}: write BEGIN:END')
    return int(words[0]), int(words[1])


def find_centre(scan: Scan, begin: int, end: int) -> float:
    """Return the column of the axis: two projections half a turn apart are mirror images around it."""
    from skimage import registration

    apart = np.abs(np.abs(scan.degrees[:, None] - scan.degrees[None, :]) - 180)
    first, second = np.unravel_index(apart.argmin(), apart.shape)
    if apart[first, second] > OPPOSITE:
        raise InvalidError("no two projections are half a turn apart, so the centre cannot be found: give it")
    rows = slice(begin, min(end, begin + 8 * BLOCK))
    block = scan.absorption(rows)
    mirrored = block[second][:, ::-1]
    register: Any = registration.phase_cross_correlation  # not annotated
    moved, _, _ = register(block[first], mirrored, upsample_factor=50, normalization=None)
    return float((scan.data.shape[2] - 1 + moved[1]) / 2)


def reconstructed(sinogram: Array, degrees: Array, centre: float, filter_name: str) -> Array:
    """Return a slice of a sinogram (projections, columns), in absorption a pixel."""
    from scipy.ndimage import shift
    from skimage import transform

    back_project: Any = transform.iradon  # not annotated
    columns = sinogram.shape[1]
    centred = shift(sinogram, (0, columns // 2 - centre), order=1, mode="nearest")
    return np.asarray(back_project(centred.T, theta=degrees, filter_name=filter_name, circle=True))


def _output(file: h5py.File, scan: Scan, rows: int, centre: float) -> Any:
    columns = scan.data.shape[2]
    entry = file.create_group("entry")
    entry.attrs.update(NX_class="NXentry", default="data")
    data = entry.create_group("data")
    data.attrs.update(NX_class="NXdata", signal="data")
    entry["centre"] = centre
    return data.create_dataset(
        "data", (rows, columns, columns), np.float32, chunks=(1, columns, columns), compression="gzip", shuffle=True
    )
