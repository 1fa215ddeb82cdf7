"""Draws how the catalogue's answers grow with its files, from the rows of the bench."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

FIGURE = Path("docs/reference/catalogue-growth.svg")
_ROW = re.compile(
    r"(?P<what>20 queries, first page, p95|facets of 5 keys, administrator): PostgreSQL, (?P<files>\S+) files"
)


def growth(rows: Iterable[tuple[str, float]]) -> dict[str, list[tuple[float, float]]]:
    """Return the curves: milliseconds by files, for what was measured at more than one size."""
    found: dict[str, list[tuple[float, float]]] = {}
    for name, figure in rows:
        if match := _ROW.fullmatch(name):
            found.setdefault(match["what"], []).append((float(match["files"]), figure))
    return {what: sorted(points) for what, points in found.items() if len(points) > 1}


def draw(rows: Iterable[tuple[str, float]], root: Path) -> bool:
    """Draw the curves, and tell whether there were any and matplotlib is there (`pip install '.[bench]'`)."""
    curves = growth(rows)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    if not curves:
        return False
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for what, points in curves.items():
        axes.loglog(*zip(*points, strict=True), marker="o", label=what)
    axes.axhline(100, color="grey", linestyle=":", label="asked of queries at 10 million files")
    axes.set_xlabel("files in the catalogue")
    axes.set_ylabel("milliseconds")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend()
    figure.savefig(root / FIGURE, metadata={"Date": None})
    return True
