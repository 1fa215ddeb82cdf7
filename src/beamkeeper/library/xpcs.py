"""XPCS: multi-tau correlations of speckles on rings of equal q, and the relaxation times that fit them."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamkeeper.domain.errors import InvalidError
from beamkeeper.library import integrate, pictures, results
from beamkeeper.library.frames import frames, masked, value

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

BUFFERS = 16
"""Delays a level: of the next level each is twice as long."""
PROGRAM = "boost_corr"
"""The APS's own correlator: only the station's PATH says where it is, and no job does."""
FRAME_TIMES = ("entry/instrument/detector/frame_time", "entry/instrument/detector/count_time")


@dataclass(frozen=True, slots=True)
class Correlation:
    """What a scan says: for each ring its q (1/angstrom), g2 at each delay (seconds), and what fits it."""

    q: Array
    delays: Array
    g2: Array
    """Delays, rings."""
    contrast: Array
    rates: Array
    """How fast each ring forgets, in 1/s; no number where nothing fits. g2 - 1 falls by exp(-2 rate delay)."""

    @property
    def diffusion(self) -> float:
        """The rates over q squared, in square angstroms a second, as they are where particles move by themselves."""
        return float(np.nanmedian(self.rates / self.q**2))


def main(argv: Sequence[str] | None = None) -> int:
    """Correlate the frames of a file, and write the correlations as HDF5 and as a picture."""
    parser = argparse.ArgumentParser(prog="dm-library xpcs", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rings", type=int, default=8)
    parser.add_argument("--q-min", type=float, default=0, help="1/angstrom; 0 for what the detector sees")
    parser.add_argument("--q-max", type=float, default=0, help="1/angstrom; 0 for what the detector sees")
    parser.add_argument("--frame-time", type=float, default=0, help="seconds from frame to frame; 0 for the file's own")
    parser.add_argument("--correlator", choices=("scikit-beam", "boost-corr"), default="scikit-beam")
    parser.add_argument("--qmap", default="", help="the map of q for boost_corr")
    parser.add_argument("--gpu", type=int, default=-1, help="for boost_corr; -1 for none")
    results.add_options(parser, "xpcs")
    options = parser.parse_args(argv)
    if options.correlator == "boost-corr":
        return _boost(options)
    labels, q = partition(options)
    found = correlate(options.file, labels, q, _frame_time(options))
    result = results.place(options, options.file)
    _write(Path(f"{result}.h5"), found, labels)
    _draw(Path(f"{result}.svg"), found)
    if not np.isfinite(found.rates).any():
        sys.stdout.write("relaxation: none\n")
        return 0
    middle = int(np.flatnonzero(np.isfinite(found.rates))[np.isfinite(found.rates).sum() // 2])
    sys.stdout.write(
        f"relaxation: {1 / found.rates[middle]:.6g} s at {found.q[middle]:.6g} 1/A\n"
        f"diffusion: {found.diffusion:.6g} A^2/s\n"
    )
    return 0


def _frame_time(options: argparse.Namespace) -> float:
    if options.frame_time > 0:
        return float(options.frame_time)
    with h5py.File(options.file, locking=False) as file:
        for name in FRAME_TIMES:
            if name in file:
                return float(np.ravel(value(options.file, file, name))[0])
    raise InvalidError(f"{options.file} does not tell the time from frame to frame: give it")


def partition(options: argparse.Namespace) -> tuple[Labels, Array]:
    """Return which ring each pixel belongs to, from 1, or 0 for none; and the mean q of each."""
    try:
        first, geometry = integrate.read(options.file)
    except (KeyError, ValueError) as error:
        raise InvalidError(f"{options.file} does not tell its geometry ({error})") from error
    q = integrate.q_map(first.shape, geometry, is_x_fast=True)
    low, high = options.q_min or q.min(), options.q_max or q.max()
    if not low < high:
        raise InvalidError(f"there are no rings from {low:g} to {high:g} 1/angstrom")
    edges = np.linspace(low, high, options.rings + 1)
    labels = np.digitize(q, edges)
    labels[(q < low) | (q >= high) | masked(first) | (first < 0)] = 0
    kept = [ring for ring in range(1, options.rings + 1) if (labels == ring).any()]
    if not kept:
        raise InvalidError(f"no pixel lies from {low:g} to {high:g} 1/angstrom")
    numbered = np.zeros(options.rings + 2, np.int64)
    numbered[kept] = np.arange(1, len(kept) + 1)
    return numbered[labels], np.array([q[labels == ring].mean() for ring in kept])


def correlate(path: Path, labels: Labels, q: Array, frame_time: float) -> Correlation:
    """Return the correlations of a file's frames, which are read one after another."""
    from skbeam.core.correlation import multi_tau_auto_corr

    with frames(path) as found:
        if found.count < 2 * BUFFERS:
            raise InvalidError(f"{path} has {found.count} frames, and {2 * BUFFERS} are needed to correlate them")
        levels = int(np.log2(found.count / BUFFERS)) + 1
        g2, lags = multi_tau_auto_corr(levels, BUFFERS, labels, found)
    use = (lags > 0) & (lags < found.count / 2)
    delays, g2 = lags[use] * frame_time, np.asarray(g2[use], float)
    fits = [fitted(delays, g2[:, ring]) for ring in range(len(q))]
    return Correlation(q, delays, g2, np.array([fit[0] for fit in fits]), np.array([fit[1] for fit in fits]))


def fitted(delays: Array, g2: Array) -> tuple[float, float]:
    """Return the contrast and the rate of an exponential that fits one ring; no numbers where none does."""
    from scipy.optimize import curve_fit

    height = g2[0] - g2[-1]
    below = np.flatnonzero(g2 - g2[-1] < height / np.e)
    if not height > 0 or not len(below):
        return np.nan, np.nan
    guess = (1.0, height, 0.5 / delays[below[0]])
    try:
        (_, contrast, rate), _ = curve_fit(_model, delays, g2, guess, maxfev=2000)
    except RuntimeError:
        return np.nan, np.nan
    return (float(contrast), float(rate)) if contrast > 0 and rate > 0 else (np.nan, np.nan)


def _model(delay: Array, base: float, contrast: float, rate: float) -> Array:
    return np.asarray(base + contrast * np.exp(-2 * rate * delay))


def _write(path: Path, found: Correlation, labels: Labels) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("xpcs/multitau")
        values: dict[str, tuple[Any, str]] = {
            "delay": (found.delays, "s"),
            "g2": (found.g2, ""),
            "q": (found.q, "1/angstrom"),
            "contrast": (found.contrast, ""),
            "rate": (found.rates, "1/s"),
            "labels": (labels, ""),
        }
        for name, (numbers, unit) in values.items():
            group[name] = numbers
            if unit:
                group[name].attrs["units"] = unit


def _draw(path: Path, found: Correlation) -> None:
    shown = range(0, len(found.q), max(1, len(found.q) // 4))
    lines = [pictures.Line(f"q = {found.q[ring]:.3g} 1/Å", found.delays, found.g2[:, ring], True) for ring in shown]
    lines += [
        pictures.Line("", found.delays, _model(found.delays, 1.0, found.contrast[ring], found.rates[ring]))
        for ring in shown
    ]
    pictures.curves(path, lines, title=path.stem, x="delay (s)", y="g2", is_log=True)


def _boost(options: argparse.Namespace) -> int:
    """Have boost_corr correlate, and give its file the name of the result."""
    if not options.qmap:
        raise InvalidError("boost_corr needs a map of q: give --qmap")
    result = results.place(options, options.file)
    into = Path(f"{result}.boost")
    program = shutil.which(PROGRAM)
    if program is None:
        raise InvalidError(f"{PROGRAM} is not on the PATH: put its directory into the setting processing.path")
    command = [program, "--raw", options.file, "--qmap", results.beside(options, options.file, options.qmap)]
    done = subprocess.run(
        [*map(str, command), "--output", str(into), "--gpu-id", str(options.gpu), "--type", "Multitau", "--overwrite"],
        check=False,
        stdin=subprocess.DEVNULL,
    )
    made = sorted(into.rglob("*.hdf")) if into.is_dir() else []
    if done.returncode or not made:
        raise InvalidError(f"{PROGRAM} ended with {done.returncode}, and {len(made)} results")
    made[0].replace(f"{result}.h5")
    return 0
