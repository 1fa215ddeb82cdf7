"""The geometry of a detector, refined by pyFAI from the rings of a standard such as LaB6 or silver behenate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from beamkeeper.domain.errors import InvalidError
from beamkeeper.library import pictures, results
from beamkeeper.library.integrate import Array
from beamkeeper.library.powder import calibration, mean, own_setup

if TYPE_CHECKING:
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

PASSES = 2
"""Rings are looked for once with the first guess, and once more where the first refinement puts them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Refine the geometry from a frame of a standard, and write it as pyFAI's .poni."""
    from pyFAI.calibrant import CALIBRANT_FACTORY

    parser = argparse.ArgumentParser(prog="dm-library calibrate", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--standard", default="LaB6", help="LaB6, CeO2, AgBh, Si and others that pyFAI knows")
    parser.add_argument("--guess", default="", help="an earlier calibration; else the frame's own geometry")
    parser.add_argument("--rings", type=int, default=8, help="use so many at most")
    parser.add_argument("--tilt", choices=("yes", "no"), default="yes", help="refine the detector's tilt too")
    parser.add_argument("--limit", type=float, default=0.02, help="degrees that rings may be off; more is a failure")
    results.add_options(parser, "calibration")
    options = parser.parse_args(argv)
    if options.standard not in CALIBRANT_FACTORY:
        known = ", ".join(sorted(CALIBRANT_FACTORY.keys()))
        raise InvalidError(f'there is no standard "{options.standard}": pyFAI knows {known}')
    image, without = mean(options.file)
    start = _start(options)
    found, off = refine(
        np.where(without, 0, image), start, options.standard, options.rings, has_tilt=options.tilt == "yes"
    )
    if off > options.limit:
        raise InvalidError(
            f"the rings are {off:.3g} degrees off, and {options.limit:g} are allowed: is the guess too far off?"
        )
    result = results.place(options, options.file)
    Path(f"{result}.poni").unlink(missing_ok=True)  # pyFAI would append
    found.save(f"{result}.poni")
    _draw(Path(f"{result}.svg"), image, without, found, options.standard)
    centre = found.getFit2D()
    sys.stdout.write(
        f"distance: {centre['directDist']:.4f} mm\ncentre: {centre['centerX']:.3f} {centre['centerY']:.3f}\n"
        f"tilt: {centre['tilt']:.4f} degrees\nrings off: {off:.6f} degrees\n"
    )
    return 0


def _start(options: argparse.Namespace) -> AzimuthalIntegrator:
    if not options.guess:
        return own_setup(options.file)
    return calibration(results.beside(options, options.file, options.guess))


def refine(image: Array, start: AzimuthalIntegrator, standard: str, rings: int, *, has_tilt: bool) -> tuple[Any, float]:
    """Return the geometry, and by how many degrees the rings are off it."""
    from pyFAI.calibrant import get_calibrant
    from pyFAI.goniometer import SingleGeometry

    known = get_calibrant(standard)
    known.wavelength = start.wavelength
    single = SingleGeometry("frame", image=image, calibrant=known, detector=start.detector, geometry=start)
    for number in range(PASSES):
        single.extract_cp(max_rings=rings)
        refinement = single.geometry_refinement
        if refinement.data is None or len(refinement.data) < 10:
            raise InvalidError(
                f"there are no rings of {standard} near the guess: {len(refinement.data)} points were found"
            )
        refinement.refine3(fix=["wavelength", "rot1", "rot2", "rot3"])
        if has_tilt and number == PASSES - 1:
            refinement.refine3(fix=["wavelength", "rot3"])
    return refinement, float(np.degrees(np.sqrt(refinement.chi2() / len(refinement.data))))


def _draw(path: Path, image: Array, without: Any, found: Any, standard: str) -> None:
    """Draw the frame's rings, as they are with this geometry, over those of the standard."""
    from pyFAI.calibrant import get_calibrant
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

    setup = AzimuthalIntegrator(detector=found.detector, wavelength=found.wavelength)
    setup.set_param(found.param[:6])
    curve = setup.integrate1d(image, 1000, unit="2th_deg", mask=without)
    known = get_calibrant(standard)
    known.wavelength = found.wavelength
    x, y = np.asarray(curve.radial), np.asarray(curve.intensity)
    angles = np.degrees([angle for angle in known.get_2th() if np.degrees(angle) < x.max()])
    pictures.curves(
        path,
        [
            pictures.Line("the frame", x, y),
            pictures.Line(standard, angles, np.zeros(len(angles)), is_marks=True),
        ],
        title=f"{path.stem}: {standard}",
        x="2θ (degrees)",
        y="intensity",
    )
