"""Powder and SAXS: azimuthal integration by pyFAI, with a calibration or with the geometry that the frame tells."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from beamkeeper.domain.errors import InvalidError
from beamkeeper.library import integrate, pictures, results
from beamkeeper.library.frames import frames, masked
from beamkeeper.library.integrate import Array

if TYPE_CHECKING:
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

UNITS = {"q_A^-1": "q (1/Å)", "q_nm^-1": "q (1/nm)", "2th_deg": "2θ (degrees)"}


def main(argv: Sequence[str] | None = None) -> int:
    """Integrate the mean of a file's frames, and write the curve as text and as a picture."""
    parser = argparse.ArgumentParser(prog="dm-library powder", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--poni", default="", help="the calibration, as pyFAI writes it; else the frame's own geometry")
    parser.add_argument("--mask", default="", help="an image that is not 0 where pixels are left out")
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--unit", choices=UNITS, default="q_A^-1")
    results.add_options(parser, "curves")
    options = parser.parse_args(argv)
    image, without = mean(options.file)
    if options.mask:
        without |= mean(results.beside(options, options.file, options.mask))[0] != 0
    setup = _setup(options, image)
    if image.shape != tuple(setup.detector.shape):
        raise InvalidError(
            f"the calibration is for frames of {setup.detector.shape} pixels, and these are {image.shape}"
        )
    curve = setup.integrate1d(image, options.points, unit=options.unit, mask=without, error_model="poisson")
    result = results.place(options, options.file)
    x, y = np.asarray(curve.radial), np.asarray(curve.intensity)
    header = f"{UNITS[options.unit]}  intensity  sigma\n{_told(setup)}"
    np.savetxt(f"{result}.txt", np.column_stack([x, y, np.asarray(curve.sigma)]), header=header, fmt="%.6g")
    pictures.curves(
        Path(f"{result}.svg"), [pictures.Line("", x, y)], title=result.name, x=UNITS[options.unit], y="intensity"
    )
    ring = integrate.first_ring(integrate.Curve(x, y, 0.0, True))
    sys.stdout.write(f"first ring: {_spacing(ring, options.unit, setup):.4f} A\n" if ring else "no ring\n")
    return 0


def mean(path: Path) -> tuple[Array, Any]:
    """Return the mean of a file's frames, and which pixels never mean anything."""
    with frames(path) as found:
        total, count = np.zeros(found.shape), np.zeros(found.shape, np.int64)
        for frame in found:
            bad = masked(frame)
            total += np.where(bad, 0, frame)
            count += ~bad
    return total / np.maximum(count, 1), count == 0


def _setup(options: argparse.Namespace, image: Array) -> AzimuthalIntegrator:
    if options.poni:
        setup = calibration(results.beside(options, options.file, options.poni))
        if setup.detector.shape is None:
            setup.detector.shape = setup.detector.max_shape = image.shape
        return setup
    return own_setup(options.file)


def calibration(poni: Path) -> AzimuthalIntegrator:
    """Return the geometry that a file of pyFAI's tells; InvalidError where it leads to another file.

    A detector may be told by a file of its own, and a job's account may read more than who wrote the calibration.
    """
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

    lines = poni.read_text(errors="replace").splitlines()  # and a missing file is told in the system's words
    if any(character in line for line in lines if not line.lstrip().startswith("#") for character in "/\\"):
        raise InvalidError(f"{poni} leads to another file, such as one of a detector: it has to tell all by itself")
    return AzimuthalIntegrator.sload(str(poni))


def own_setup(path: Path) -> AzimuthalIntegrator:
    """Return the geometry that a frame tells itself; of the two orders of its centre that with round rings."""
    from pyFAI.detectors import Detector
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

    try:
        image, told = integrate.read(path)
    except (KeyError, ValueError) as error:
        raise InvalidError(f"{path} does not tell its geometry ({error}): give a calibration by --poni") from error
    is_x_fast = integrate.integrate(image, told).is_x_fast
    fast, slow = (told.centre_x, told.pixel_x), (told.centre_y, told.pixel_y)
    if not is_x_fast:
        fast, slow = slow, fast
    detector = Detector(slow[1] / 1000, fast[1] / 1000, max_shape=image.shape)
    return AzimuthalIntegrator(
        dist=told.distance / 1000,
        poni1=(slow[0] + slow[1] / 2) / 1000,  # pyFAI's first pixel ends at one pixel, and ours is around zero
        poni2=(fast[0] + fast[1] / 2) / 1000,
        detector=detector,
        wavelength=told.wavelength * 1e-10,
    )


def _told(setup: AzimuthalIntegrator) -> str:
    """Return the geometry as a comment of the curve."""
    return " ".join(f"{key}={value}" for key, value in setup.get_config().items() if key != "poni_version")


def _spacing(ring: float, unit: str, setup: AzimuthalIntegrator) -> float:
    """Return the distance of the planes that a ring comes from, in angstroms."""
    if unit == "2th_deg":
        return float(setup.wavelength * 1e10 / (2 * np.sin(np.radians(ring) / 2)))
    return float(2 * np.pi / ring * (10 if unit == "q_nm^-1" else 1))
