"""Azimuthal integration of one frame by numpy alone, as the demo does it: `dm-library integrate FRAME CURVE`.

The geometry is read from the frame's own metadata. It prints the first ring's spacing and in which order the two
numbers of the beam's centre are meant, and writes the curve as text.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beamkeeper.domain.errors import InvalidError
from beamkeeper.library.frames import check_near, value

Array = NDArray[np.float64]

POINTS = 400
SMOOTHED = 3
PROMINENCE = 0.3
"""A ring stands above the deeper of the valleys beside it by this share of its height."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the beam meets the detector, and how far away that is: millimetres, and angstroms."""

    centre_x: float
    centre_y: float
    pixel_x: float
    pixel_y: float
    distance: float
    wavelength: float


@dataclass(frozen=True, slots=True)
class Curve:
    """What is scattered into each angle; `spread` is how unequal the pixels of one angle are."""

    q: Array
    intensity: Array
    spread: float
    is_x_fast: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Integrate a frame and say where its first ring is."""
    parser = argparse.ArgumentParser(prog="dm-library integrate", description=__doc__)
    parser.add_argument("frame", type=Path)
    parser.add_argument("curve", type=Path)
    options = parser.parse_args(argv)
    try:
        image, geometry = read(options.frame)
    except (OSError, KeyError, ValueError, InvalidError) as error:
        sys.stderr.write(f"{options.frame}: no frame with its geometry ({error})\n")
        return 1
    curve = integrate(image, geometry)
    ring = first_ring(curve)
    axis = "columns" if curve.is_x_fast else "rows"
    np.savetxt(options.curve, np.column_stack([curve.q, curve.intensity]), header="q (1/A)  intensity", fmt="%.6g")
    sys.stdout.write(f"beam centre: x counts {axis}\n")
    sys.stdout.write(f"first ring: {2 * np.pi / ring:.2f} A\n" if ring else "no ring\n")
    return 0


def read(path: Path) -> tuple[Array, Geometry]:
    """Return a frame and its geometry, from NeXus or from a TIFF with lines of `key:value` in its description."""
    if path.suffix.lower() in (".tif", ".tiff"):
        return _tiff(path)
    import h5py

    with h5py.File(path) as file:
        entry = file["entry"]
        detector, mono = entry["instrument/detector"], entry["instrument/monochromator"]
        stack = entry["data/data"]
        check_near(path, stack)
        image = np.asarray(stack[(0,) * (stack.ndim - 2)], dtype=float)
        keys = ("beam_center_x", "beam_center_y", "x_pixel_size", "y_pixel_size", "distance")
        numbers = [float(np.ravel(value(path, detector, key))[0]) for key in keys]
        wavelength = float(np.ravel(value(path, mono, "wavelength"))[0])
    return image, _geometry([*numbers, wavelength])


def _tiff(path: Path) -> tuple[Array, Geometry]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        image = file.pages[0].asarray().astype(float)
        lines = str(file.pages.first.description).splitlines()
    known = {key: value for key, _, value in (line.partition(":") for line in lines)}
    keys = ("beam_x_mm", "beam_y_mm", "pixel_mm", "pixel_mm", "distance_mm", "wavelength_A")
    return image, _geometry([float(known[key]) for key in keys])


def _geometry(numbers: Sequence[float]) -> Geometry:
    centre_x, centre_y, pixel_x, pixel_y, distance, wavelength = numbers
    return Geometry(centre_x, centre_y, pixel_x, pixel_y, distance, wavelength)


def integrate(image: Array, geometry: Geometry) -> Curve:
    """Return the curve; of the two orders in which the centre may be meant, the one in which rings are round."""
    curves = [_integrated(image, geometry, is_x_fast) for is_x_fast in (True, False)]
    return min(curves, key=lambda curve: curve.spread)


def q_map(shape: tuple[int, ...], geometry: Geometry, is_x_fast: bool) -> Array:
    """Return the length of the scattering vector at each pixel, in 1/angstrom."""
    rows, columns = np.indices(shape)
    x, y = (columns, rows) if is_x_fast else (rows, columns)
    radius = np.hypot(x * geometry.pixel_x - geometry.centre_x, y * geometry.pixel_y - geometry.centre_y)
    return np.asarray(4 * np.pi / geometry.wavelength * np.sin(np.arctan(radius / geometry.distance) / 2))


def _integrated(image: Array, geometry: Geometry, is_x_fast: bool) -> Curve:
    q = q_map(image.shape, geometry, is_x_fast)
    edges = np.linspace(q.min(), q.max(), POINTS + 1)
    place = np.clip(np.digitize(q, edges) - 1, 0, POINTS - 1).ravel()
    values = image.ravel()
    use = values >= 0
    for _ in range(2):  # the second time without hot pixels
        mean, deviation = _moments(place[use], values[use])
        use = (values >= 0) & (np.abs(values - mean[place]) <= 5 * deviation[place] + 1)
    mean, deviation = _moments(place[use], values[use])
    spread = float(np.sum(deviation[place[use]] ** 2) / max(np.var(values[use]) * use.sum(), 1e-9))
    return Curve((edges[1:] + edges[:-1]) / 2, mean, spread, is_x_fast)


def _moments(place: NDArray[np.intp], values: Array) -> tuple[Array, Array]:
    count = np.maximum(np.bincount(place, minlength=POINTS), 1)
    mean = np.bincount(place, values, POINTS) / count
    square = np.bincount(place, values**2, POINTS) / count
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def first_ring(curve: Curve) -> float:
    """Return where the first ring is, as the centre of its upper half; 0 where there is none."""
    points = len(curve.intensity)
    smooth = np.convolve(curve.intensity, np.ones(SMOOTHED) / SMOOTHED, mode="same")
    for top in range(SMOOTHED, points - SMOOTHED):
        height = smooth[top]
        if height <= 0 or height < smooth[top - 1 : top + 2].max():
            continue
        higher = np.flatnonzero(smooth > height)
        left = max(higher[higher < top], default=0)
        right = min(higher[higher > top], default=points - 1)
        valley = max(smooth[left : top + 1].min(), smooth[top : right + 1].min())
        if height - valley > PROMINENCE * height:
            above = smooth - (height + valley) / 2
            begin = max(np.flatnonzero(above[:top] < 0), default=left) + 1
            end = min(np.flatnonzero(above[top:] < 0), default=right - top) + top
            weights = curve.intensity[begin:end] - valley
            return float(np.average(curve.q[begin:end], weights=np.maximum(weights, 1e-9)))
    return 0.0


if __name__ == "__main__":
    sys.exit(main())
