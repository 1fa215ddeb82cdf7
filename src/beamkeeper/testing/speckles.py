"""Speckles of particles in Brownian motion, with a relaxation time that is known, for tests and benches of XPCS."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np

SIDE, FRAMES, PARTICLES = 64, 1200, 150
FRAME_S = 0.01
BOX = 20000.0
"""Angstroms: particles that leave at one side come in at the other, so that each pixel has a speckle of its own."""
DIFFUSION = 2.0e4
"""Square angstroms a second."""
WAVELENGTH, DISTANCE_MM = 1.0, 5000.0
PIXEL_MM = WAVELENGTH / BOX * DISTANCE_MM
"""So wide that neighbouring pixels are one wave of the box apart."""


def speckles(file: Path) -> None:
    """Write frames of a beam on particles that diffuse, with the geometry and the time as NeXus has them."""
    random = np.random.default_rng(11)
    place = random.uniform(0, BOX, (PARTICLES, 2))
    waves = 2 * np.pi / BOX * (np.arange(SIDE) - SIDE // 2)
    step = np.sqrt(2 * DIFFUSION * FRAME_S)
    stack = np.empty((FRAMES, SIDE, SIDE), np.uint16)
    for number in range(FRAMES):
        across, up = (np.exp(1j * np.outer(place[:, axis], waves)) for axis in (0, 1))
        intensity = np.abs(up.T @ across) ** 2 / PARTICLES
        stack[number] = random.poisson(50 * intensity)
        place = (place + random.normal(0, step, place.shape)) % BOX
    stack[:, SIDE // 2, SIDE // 2] = 0  # the direct beam is stopped
    with h5py.File(file, "w") as opened:
        opened["entry/data/data"] = stack
        detector = opened.create_group("entry/instrument/detector")
        detector["beam_center_x"] = detector["beam_center_y"] = SIDE // 2 * PIXEL_MM
        detector["x_pixel_size"] = detector["y_pixel_size"] = PIXEL_MM
        detector["distance"] = DISTANCE_MM
        detector["frame_time"] = FRAME_S
        opened["entry/instrument/monochromator/wavelength"] = WAVELENGTH


def apart(file: Path) -> None:
    """Make them in a process of its own, with one thread: several wait for one another on a busy machine."""
    argv = [sys.executable, "-m", __name__, str(file)]
    subprocess.run(argv, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}, check=True)


if __name__ == "__main__":
    speckles(Path(sys.argv[1]))
