"""Small pictures of frames, with what a frame's numbers are: made in one pass over them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from beamkeeper.plugins.pictures import ColourMap, Scale, encode, facts_of, levels_of, palette_of, span_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 128
LEVELS = 15
"""Of colours: with the one for what is no number they fit into half a byte."""


def thumbnail(frame: NDArray[Any]) -> tuple[dict[str, float | int], bytes]:
    """Return what the numbers of a frame are, and its picture, of 9 kB at most.

    Of each square of pixels that becomes one, the largest counts: a spot of one pixel must not be lost.
    """
    facts = facts_of(frame)
    small = shrunk(frame)
    low, high = span_of(small)
    levels = levels_of(small, low, high, Scale.LOG, LEVELS)
    told = {"min": facts.least, "max": facts.most, "mean": float(f"{facts.mean:.6g}"), "saturated": facts.saturated}
    return told, encode(levels, palette_of(ColourMap.VIRIDIS, LEVELS))


def shrunk(frame: NDArray[Any]) -> NDArray[Any]:
    """Return a frame with no more than `SIDE` pixels along a side."""
    import numpy as np

    if frame.dtype.kind == "u" and frame.dtype.itemsize > 2:  # where so many counts cannot be, it is a mask
        frame = np.where(frame == np.iinfo(frame.dtype).max, 0, frame)
    step = math.ceil(max(frame.shape) / SIDE)
    if step > 1:
        for axis in (0, 1):
            starts = np.arange(0, frame.shape[axis], step)
            frame = np.fmax.reduceat(frame, starts, axis=axis)
    return frame
