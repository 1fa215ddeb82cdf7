"""Small pictures of results: curves as SVG, images as PNG. Nothing but numpy is needed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

WIDTH, HEIGHT = 560, 340
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 26, 44
COLOURS = ("#1f4e9c", "#c0392b", "#2e8b57", "#8e44ad", "#b9770e", "#117a8b", "#7f8c8d", "#d35487")
POINTS = 600


@dataclass(frozen=True, slots=True)
class Line:
    """One curve; with `is_marks` its points are drawn, and not what joins them."""

    label: str
    x: ArrayLike
    y: ArrayLike
    is_marks: bool = False


def curves(path: Path, lines: Sequence[Line], *, title: str, x: str, y: str, is_log: bool = False) -> None:
    """Write curves over one axis, which is logarithmic where that is asked for."""
    kept = [(line, *_points(line, is_log)) for line in lines]
    low_x, high_x = _span([xs for _, xs, _ in kept])
    low_y, high_y = _span([ys for _, _, ys in kept])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="11"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{WIDTH / 2}" y="16" text-anchor="middle" font-size="13">{escape(title)}</text>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x)}</text>',
        f'<text transform="translate(13 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">{escape(y)}</text>',
    ]
    for place in np.linspace(0, 1, 5):
        across, up = _across(place), _up(place)
        value = low_x + place * (high_x - low_x)
        shown = f"{10**value if is_log else value:.3g}", f"{low_y + place * (high_y - low_y):.3g}"
        parts.append(
            f'<path d="M{across:.1f} {TOP}V{HEIGHT - BOTTOM}M{LEFT} {up:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
            f'<text x="{across:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{shown[0]}</text>'
            f'<text x="{LEFT - 5}" y="{up + 4:.1f}" text-anchor="end">{shown[1]}</text>'
        )
    for number, (line, xs, ys) in enumerate(kept):
        colour = COLOURS[number % len(COLOURS)]
        parts += _drawn(line, _across((xs - low_x) / (high_x - low_x)), _up((ys - low_y) / (high_y - low_y)), colour)
        if line.label:
            parts.append(
                f'<text x="{WIDTH - RIGHT - 6}" y="{TOP + 14 + 14 * number}" text-anchor="end" fill="{colour}">'
                f"{escape(line.label)}</text>"
            )
    path.write_text("\n".join([*parts, "</svg>\n"]))


def _points(line: Line, is_log: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    xs, ys = np.asarray(line.x, float), np.asarray(line.y, float)
    use = np.isfinite(xs) & np.isfinite(ys) & ((xs > 0) | (not is_log))
    xs, ys = xs[use], ys[use]
    step = max(1, len(xs) // POINTS)
    return (np.log10(xs) if is_log else xs)[::step], ys[::step]


def _span(many: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    values = np.concatenate(many) if many else np.empty(0)
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _across(share: NDArray[np.float64]) -> NDArray[np.float64]:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _up(share: NDArray[np.float64]) -> NDArray[np.float64]:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _drawn(line: Line, xs: NDArray[np.float64], ys: NDArray[np.float64], colour: str) -> list[str]:
    pairs = list(zip(xs, ys, strict=True))
    if line.is_marks:
        return [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{colour}"/>' for x, y in pairs]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)
    return [f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.4"/>']


def image(path: Path, values: ArrayLike, *, largest: int = 320) -> None:
    """Write an image in grey, from its dark to its bright hundredth, and no larger than `largest` pixels a side."""
    array = np.asarray(values, float)
    step = max(1, -(-max(array.shape) // largest))
    rows, columns = (side // step * step for side in array.shape)
    small = array[:rows, :columns].reshape(rows // step, step, columns // step, step).mean(axis=(1, 3))
    dark, bright = np.nanpercentile(small, (1, 99)) if small.size else (0.0, 1.0)
    share = np.nan_to_num((small - dark) / max(bright - dark, 1e-12))
    grey = np.round(np.clip(share, 0, 1) * 255).astype(np.uint8)
    height, width = grey.shape
    lines = b"".join(b"\0" + row.tobytes() for row in grey)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
