"""Pictures of detector frames: numbers to PNG, with a scale, a range and a colour map."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVELS = 255
"""Of the colour map; one entry more is for what is no number."""

INVALID = (90, 90, 100)
"""The colour of pixels that are masked or no number."""

_STOPS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "grey": ((0, 0, 0), (255, 255, 255)),
    "inverted": ((255, 255, 255), (0, 0, 0)),
    "viridis": (
        (68, 1, 84),
        (71, 44, 122),
        (59, 81, 139),
        (44, 113, 142),
        (33, 144, 141),
        (39, 173, 129),
        (92, 200, 99),
        (170, 220, 50),
        (253, 231, 37),
    ),
    "inferno": (
        (0, 0, 4),
        (31, 12, 72),
        (85, 15, 109),
        (136, 34, 106),
        (186, 54, 85),
        (227, 89, 51),
        (249, 140, 10),
        (249, 201, 50),
        (252, 255, 164),
    ),
}


class ColourMap(StrEnum):
    """How numbers become colours."""

    VIRIDIS = "viridis"
    INFERNO = "inferno"
    GREY = "grey"
    INVERTED = "inverted"


class Scale(StrEnum):
    """How the range of numbers is spread over the colours."""

    LOG = "log"
    LINEAR = "linear"
    ROOT = "root"


@dataclass(frozen=True)
class Facts:
    """What the numbers of a frame are."""

    least: float
    most: float
    mean: float
    saturated: int
    """How many pixels have the largest number that their type holds."""


@dataclass(frozen=True)
class Range(Facts):
    """What of a frame is between the darkest and the brightest colour, and what its numbers are."""

    low: float
    high: float


def look(frame: NDArray[Any]) -> Range:
    """Return the range that shows most of a frame, and what its numbers are."""
    facts = facts_of(frame)
    low, high = span_of(frame)
    return Range(facts.least, facts.most, facts.mean, facts.saturated, low, high)


def facts_of(frame: NDArray[Any]) -> Facts:
    """Return what the numbers of a frame are; masks do not count."""
    import numpy as np

    values = _finite(frame)
    if values.size == 0:
        return Facts(0, 0, 0, 0)
    is_whole = np.issubdtype(frame.dtype, np.integer)
    saturated = int(np.count_nonzero(frame == np.iinfo(frame.dtype).max)) if is_whole else 0
    return Facts(float(values.min()), float(values.max()), float(values.mean(dtype=np.float64)), saturated)


def span_of(frame: NDArray[Any]) -> tuple[float, float]:
    """Return the range that shows most of a frame: without the darkest and brightest thousandths."""
    import numpy as np

    values = _finite(frame)
    if values.size == 0:
        return 0, 1
    low, high = np.percentile(values, (0.5, 99.8))
    if low == high:
        low, high = values.min(), values.max()
    return float(low), float(high)


def _finite(frame: NDArray[Any]) -> NDArray[Any]:
    """Return the numbers that count: no masks, which are the largest value of a type, or negative among counts."""
    import numpy as np

    counts: NDArray[Any] = frame.view(np.uint8) if frame.dtype == bool else frame  # masks are not subtracted otherwise
    if np.issubdtype(frame.dtype, np.floating):
        counts = frame[np.isfinite(frame)]
        return counts
    if frame.dtype.kind == "u" and frame.dtype.itemsize > 1:
        counts = frame[frame != np.iinfo(frame.dtype).max]
    if frame.dtype.kind == "i" and counts.size and (counts < 0).mean() < 0.5:
        counts = counts[counts >= 0]
    return counts if counts.size else frame.ravel()


def png(frame: NDArray[Any], low: float, high: float, scale: Scale, colours: ColourMap) -> bytes:
    """Return a frame as a PNG with a palette."""
    return encode(levels_of(frame, low, high, scale), palette_of(colours))


def levels_of(frame: NDArray[Any], low: float, high: float, scale: Scale, levels: int = LEVELS) -> NDArray[np.uint8]:
    """Return which of so many colours each pixel has; what is no number has the one after them."""
    import numpy as np

    values = frame.astype(np.float32)
    is_number = np.isfinite(values)
    span = max(float(high) - float(low), 1e-30)
    with np.errstate(all="ignore"):
        part = np.clip((values - np.float32(low)) / np.float32(span), 0, 1)
        if scale is Scale.LOG:
            part = np.log1p(part * 1000) / np.float32(np.log1p(1000))
        elif scale is Scale.ROOT:
            part = np.sqrt(part)
        found: NDArray[np.uint8] = np.where(is_number, np.nan_to_num(part) * (levels - 1), levels).astype(np.uint8)
    return found


@cache
def palette_of(colours: ColourMap, levels: int = LEVELS) -> bytes:
    """Return the colours of a map, and the one of what is no number."""
    import numpy as np

    stops = np.array(_STOPS[colours], float)
    at = np.linspace(0, len(stops) - 1, levels)
    mixed = [np.interp(at, range(len(stops)), stops[:, channel]) for channel in range(3)]
    return np.stack(mixed, axis=1).round().astype("uint8").tobytes() + bytes(INVALID)


def encode(levels: NDArray[np.uint8], palette: bytes) -> bytes:
    """Return rows of palette indices as a PNG; with 16 colours at most in half the bytes."""
    import numpy as np

    height, width = levels.shape
    depth = 4 if len(palette) <= 16 * 3 else 8
    if depth == 4:
        pairs = np.zeros((height, width + width % 2), np.uint8)
        pairs[:, :width] = levels
        levels = (pairs[:, ::2] << 4 | pairs[:, 1::2]).astype(np.uint8)
    rows = np.zeros((height, levels.shape[1] + 1), np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = levels
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 3, 0, 0, 0)),
            _chunk(b"PLTE", palette),
            _chunk(b"IDAT", zlib.compress(rows.tobytes(), 3)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
