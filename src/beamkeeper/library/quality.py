"""Quality of a file at arrival, from its pixels: extremes, saturated and dead pixels, frozen frames, and marks."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from beamkeeper.domain.errors import InvalidError
from beamkeeper.library import pictures
from beamkeeper.library.frames import Frame, frames, masked

EXPECTED = 16
"""A pixel without counts is dead where its neighbours have so many: by chance one in ten million has none."""


@dataclass
class Quality:
    """What the pixels of a file say, as it becomes metadata."""

    frames: int = 0
    min: float = 0.0
    max: float = 0.0
    mean: float = 0.0
    saturated: int = 0
    """Pixels that reached the saturation level in any frame."""
    dead: int = 0
    masked: int = 0
    frozen: int = 0
    """Frames that are, pixel by pixel, the one before."""
    pixels: str = ""
    """A digest of all pixels: two files with the same have the same frames."""
    marks: list[str] = field(default_factory=list)
    is_good: bool = True


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of each is taken as good; what is over marks the file."""

    saturated: int
    dead: int
    frozen: int
    mean: float

    def marks(self, found: Quality) -> list[str]:
        """Return what is wrong with a file."""
        over = {name: getattr(found, name) > getattr(self, name) for name in ("saturated", "dead", "frozen")}
        return [name for name, is_over in {**over, "dark": found.mean < self.mean}.items() if is_over]


def main(argv: Sequence[str] | None = None) -> int:
    """Look at a file, and write what was found as JSON; a marked file is no failure."""
    parser = argparse.ArgumentParser(prog="dm-library quality", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--dataset", default="", help="where the frames are in an HDF5 file")
    parser.add_argument("--saturation", type=float, default=0, help="counts of a full pixel; 0 for the type's largest")
    parser.add_argument("--max-saturated", type=int, default=0, help="pixels")
    parser.add_argument("--max-dead", type=int, default=0, help="pixels")
    parser.add_argument("--max-frozen", type=int, default=0, help="frames")
    parser.add_argument("--min-mean", type=float, default=0, help="counts a pixel")
    parser.add_argument("--output", type=Path, default=Path("quality.json"))
    parser.add_argument("--picture", type=Path, help="write the mean frame as PNG")
    options = parser.parse_args(argv)
    limits = Limits(options.max_saturated, options.max_dead, options.max_frozen, options.min_mean)
    with frames(options.file, options.dataset) as found:
        if not found.count:
            raise InvalidError(f"{options.file}: no frames")
        level = options.saturation or _full(found.dtype)
        quality, total = look(found, level)
    quality.marks = limits.marks(quality)
    quality.is_good = not quality.marks
    options.output.write_text(json.dumps({"quality": asdict(quality)}))
    if options.picture:
        pictures.image(options.picture, total / quality.frames)
    sys.stdout.write(f"quality: {' '.join(quality.marks) or 'good'}\n")
    return 0


def _full(dtype: np.dtype[np.generic]) -> float:
    """Return what a full pixel has: of 32 bits and more no pixel is full, and the largest means no value."""
    is_small = dtype.kind in "iu" and dtype.itemsize < 4
    return float(np.iinfo(dtype).max) if is_small else float("inf")  # type: ignore[type-var]


def look(found: Iterable[Frame], level: float) -> tuple[Quality, NDArray[np.float64]]:
    """Return what frames say, and their sum."""
    quality = Quality(min=float("inf"), max=float("-inf"))
    total = full = without = None
    counts, before = 0.0, b""
    digest = blake3()
    for frame in found:
        bad = masked(frame)
        if total is None or full is None or without is None:
            total, full, without = np.zeros(frame.shape), np.zeros(frame.shape, bool), np.ones(frame.shape, bool)
        good = frame[~bad]
        if good.size:
            quality.min = min(quality.min, float(good.min()))
            quality.max = max(quality.max, float(good.max()))
            counts += float(good.mean(dtype=np.float64))
        total += np.where(bad, 0, frame)
        full |= (frame >= level) & ~bad
        without &= bad
        now = blake3(np.ascontiguousarray(frame).data.cast("B")).digest()
        digest.update(now)
        quality.frozen += now == before
        before = now
        quality.frames += 1
    if total is None or full is None or without is None:
        raise InvalidError("there are no frames")
    if quality.min > quality.max:
        quality.min = quality.max = 0.0
    quality.mean = round(counts / quality.frames, 6)
    quality.saturated, quality.masked = int(full.sum()), int(without.sum())
    quality.dead = _dead(total, without)
    quality.pixels = digest.hexdigest()[:32]
    return quality, total


def _dead(total: NDArray[np.float64], without: NDArray[np.bool_]) -> int:
    """Return how many pixels never counted though the middle one of their neighbours did."""
    edged = np.pad(np.where(without, np.nan, total), 1, constant_values=np.nan)
    rows, columns = total.shape
    candidates = np.argwhere((total == 0) & ~without)
    around = [
        edged[candidates[:, 0] + up, candidates[:, 1] + across]
        for up in range(3)
        for across in range(3)
        if (up, across) != (1, 1)
    ]
    if not len(candidates) or rows * columns < 9:
        return 0
    return int((np.nan_to_num(_median(np.stack(around))) >= EXPECTED).sum())


def _median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median along the first axis without what is no number; where nothing is left, no number."""
    ordered = np.sort(values, axis=0)  # what is no number comes last
    count = np.isfinite(values).sum(axis=0)
    middle = np.maximum(count - 1, 0) // 2
    return np.asarray(np.take_along_axis(ordered, middle[None], axis=0)[0])
