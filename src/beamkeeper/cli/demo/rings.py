"""Powder rings with Poisson noise, prepared so that a frame costs next to nothing."""

from __future__ import annotations

import io
from datetime import datetime

import numpy as np
import tifffile
from numpy.typing import NDArray

Image = NDArray[np.uint16]

SIDE = 512
CENTRE_X, CENTRE_Y = SIDE / 2 + 4.25, SIDE / 2 - 7.5
PIXEL_MM = 0.172
DISTANCE_MM = 849.0
WAVELENGTH_A = 0.7336
HC = 12.398419843
"""Energy times wavelength, in keV and angstroms."""
RADII = (62.0, 101.0, 119.0, 165.0, 203.0, 238.0)
_HEIGHTS = (180.0, 420.0, 260.0, 120.0, 90.0, 60.0)
_TEMPERATURES = 4
_GEOMETRY = (
    f"beam_x_mm:{CENTRE_X * PIXEL_MM:.4f}\nbeam_y_mm:{CENTRE_Y * PIXEL_MM:.4f}\npixel_mm:{PIXEL_MM}\n"
    f"distance_mm:{DISTANCE_MM}\nwavelength_A:{WAVELENGTH_A}"
)


class Rings:
    """A sample that is heated: its rings move outwards a little from picture to picture."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self._pictures = [random.poisson(_intensity(n)).astype(np.uint16) for n in range(_TEMPERATURES)]
        self._background: Image = random.poisson(2.0, (SIDE, SIDE)).astype(np.uint16)

    def frame(self, number: int) -> Image:
        """Return a frame, always the same for a number.

        The sum of two Poisson variables is one, so rings plus a background that is shifted for each frame are
        right in their statistics, and differ, for the price of an addition.
        """
        shift = (number * 37 % SIDE, number * 101 % SIDE)
        picture = self._pictures[number % _TEMPERATURES]
        shifted: Image = np.roll(self._background, shift, axis=(0, 1))
        return picture + shifted


def _intensity(temperature: int) -> NDArray[np.float64]:
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    radius = np.hypot(y - CENTRE_Y, x - CENTRE_X)
    total = np.full((SIDE, SIDE), 3.0)
    for position, height in zip(RADII, _HEIGHTS, strict=True):
        total += height * np.exp(-((radius - position * (1 + 0.004 * temperature)) ** 2) / 8)
    return total


def tiff_bytes(image: Image, *, number: int, taken_at: datetime) -> bytes:
    """Return a frame as the bytes of a TIFF file."""
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        image,
        photometric="minisblack",
        description=f"frame:{number}\nexposure_s:0.009\ndetector:simulated\n{_GEOMETRY}",
        datetime=taken_at.strftime("%Y:%m:%d %H:%M:%S"),
        software="Beamkeeper's simulated detector",
        metadata=None,
    )
    return stream.getvalue()
