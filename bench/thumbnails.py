"""Small pictures of frames, as they are made behind arrival: `make bench-portal`, or `python bench/thumbnails.py`.

One process reads frames of 512x512 pixels, as a detector writes them, for their numbers and their pictures. What
counts is the time of the processor, of that process and of the one that asks it: how many frames one core does. Each
row is a line `bench NAME FIGURE ASKED ok|short`, with tabs between.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

import h5py
import numpy as np
import tifffile

from beamkeeper.builtin.frames import picture_of
from beamkeeper.builtin.worker import ExtractionWorker
from beamkeeper.plugins.extractors import Recognised

SIDE = 512
FRAMES = 100
ASKED = 30.0
REPEATS = 3


def frames_per_second(directory: Path, kind: str = "TIFF", count: int = FRAMES) -> float:
    """Return how many frames become pictures in a second of one core: the median of some rounds."""
    paths = [_written(directory / f"frame_{number:04}", kind, number) for number in range(count)]
    extractor = "tiff" if kind == "TIFF" else "hdf5"
    worker = ExtractionWorker(timeout_s=30, idle_s=60, max_answer_bytes=64 * 1024)
    try:
        told = picture_of(extractor, worker.extract(Recognised(extractor, kind), paths[0])) or {}
        worker.picture(paths[0], told)  # has its libraries read
        rounds = []
        for _ in range(REPEATS):
            began = _cpu_seconds(worker)
            for path in paths:
                if worker.picture(path, told) is None:
                    raise RuntimeError(f"{os.fsdecode(path)} has no picture")
            rounds.append(count / (_cpu_seconds(worker) - began))
    finally:
        worker.close()
    return statistics.median(rounds)


def _cpu_seconds(worker: ExtractionWorker) -> float:
    """Return the time of the processor that this process and the reading one have had."""
    fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
    used = os.times()
    return used.user + used.system + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _written(path: Path, kind: str, number: int) -> bytes:
    """Write rings over noise, as a detector counts them."""
    numbers = np.random.default_rng(number)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    radius = np.hypot(y, x)
    frame = numbers.poisson(20 + 4000 * np.exp(-((radius - 120) ** 2) / 60)).astype(np.uint16)
    if kind == "TIFF":
        tifffile.imwrite(f"{path}.tif", frame)
        return os.fsencode(f"{path}.tif")
    with h5py.File(f"{path}.h5", "w") as file:
        file.create_dataset("entry/data/data", data=frame[None], chunks=(1, SIDE, SIDE), compression="gzip")
    return os.fsencode(f"{path}.h5")


def main() -> None:
    """Measure both kinds of files, and say whether it is enough."""
    for kind in ("TIFF", "HDF5"):
        with tempfile.TemporaryDirectory() as directory:
            found = frames_per_second(Path(directory), kind)
        verdict = "ok" if found >= ASKED else "short"
        print(f"bench\tthumbnails of {kind}, {SIDE}x{SIDE}, frames/s\t{found:.0f}\t{ASKED:.0f}\t{verdict}")


if __name__ == "__main__":
    main()
