"""Drawings on pages, as SVG: provenance as a graph, and curves. Names in them are texts, never markup."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from markupsafe import Markup, escape

from beamkeeper.domain.names import show_path
from beamkeeper.domain.processing import JobRecord
from beamkeeper.domain.provenance import DerivedFrom, Provenance, Towards
from beamkeeper.portal.showing import duration, size, tone

BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y = 230, 44, 90, 18
MOST_BOXES = 60
MOST_BARS = 100
_SHOWN = 30
_BOX = Markup(
    '<g><title>{}</title><rect x="{}" y="{}" width="{}" height="{}" rx="5"/><text x="{}" y="{}">{}</text></g>'
)


@dataclass(frozen=True)
class Graph:
    """A drawn graph, and the same in words for those who cannot see it."""

    picture: Markup
    sentences: Sequence[str]
    is_cut: bool


def provenance(found: Provenance | None) -> Graph | None:
    """Return what a file was made from, or what was made from it, as a drawing; None where there is nothing."""
    if found is None or not found.links:
        return None
    columns = _columns(found)
    places = {
        number: (x * (BOX_WIDTH + GAP_X), y * (BOX_HEIGHT + GAP_Y))
        for x, column in enumerate(columns)
        for y, number in enumerate(column)
    }
    links = [link for link in found.links if link.derived in places and link.source in places]
    parts = [_arrow(places, link) for link in links]
    parts += [_box(found, number, at) for number, at in places.items()]
    width = len(columns) * (BOX_WIDTH + GAP_X) - GAP_X
    height = max(map(len, columns)) * (BOX_HEIGHT + GAP_Y) - GAP_Y
    return Graph(
        picture=Markup(
            '<svg class="graph" role="group" aria-label="Provenance" viewBox="-2 -2 {} {}" width="{}">{}</svg>'
        ).format(width + 4, height + 4, width, Markup("").join(parts)),
        sentences=[f"{_name(found, link.derived)} {_how(link)} from {_name(found, link.source)}" for link in links],
        is_cut=found.is_cut or len(places) < len(found.files),
    )


def _columns(found: Provenance) -> list[list[int]]:
    """Return the numbers of the files by how far they are from the one asked for, sources always to the left."""
    is_back = found.towards is Towards.SOURCES
    next_of: defaultdict[int, list[int]] = defaultdict(list)
    for link in found.links:
        here, there = (link.derived, link.source) if is_back else (link.source, link.derived)
        next_of[here].append(there)
    first = found.files[0].number
    seen, columns, front = {first}, [[first]], [first]
    while front and len(seen) < MOST_BOXES:
        front = list(dict.fromkeys(there for here in front for there in next_of[here] if there not in seen))
        front = front[: MOST_BOXES - len(seen)]
        seen.update(front)
        if front:
            columns.append(front)
    return columns[::-1] if is_back else columns


def _name(found: Provenance, number: int) -> str:
    for one in found.files:
        if one.number == number and one.file is not None:
            return show_path(one.file.relpath)
    return "a file that you may not see"


def _how(link: DerivedFrom) -> str:
    by = link.making.workflow if link.making else link.job
    return f"was made by {by}{f' ({link.stage})' if link.stage else ''}" if by else "was made"


def _box(found: Provenance, number: int, at: tuple[int, int]) -> Markup:
    x, y = at
    name = _name(found, number)
    end = name if len(name) <= _SHOWN else f"…{name[-_SHOWN + 1 :]}"
    file = next((one.file for one in found.files if one.number == number), None)
    box = _BOX.format(name, x, y, BOX_WIDTH, BOX_HEIGHT, x + 10, y + 27, end)
    return box if file is None else Markup('<a href="/files/{}">{}</a>').format(file.file_uid, box)


def _arrow(places: dict[int, tuple[int, int]], link: DerivedFrom) -> Markup:
    (x, y), (to_x, to_y) = places[link.source], places[link.derived]
    x, y, to_y = x + BOX_WIDTH, y + BOX_HEIGHT // 2, to_y + BOX_HEIGHT // 2
    bend = max(20, abs(to_x - x) // 2)
    label = (link.making.workflow if link.making else link.job)[:12]
    return Markup('<path d="M{} {}C{} {} {} {} {} {}"/><text class="small" x="{}" y="{}">{}</text>').format(
        x, y, x + bend, y, to_x - bend, to_y, to_x, to_y, x + 6, (y + to_y) // 2 - 5, escape(label)
    )


def curve(values: Sequence[float], label: str, width: int = 800, height: int = 240) -> Markup:
    """Return a curve of numbers; what is no number is a gap."""
    finite = [value for value in values if value == value and abs(value) != float("inf")]  # noqa: PLR0124 - NaN
    if not finite:
        return Markup('<p class="empty">There is no finite number in it.</p>')
    low, high = min(finite), max(finite)
    span, steps = (high - low) or 1.0, max(1, len(values) - 1)
    lines: list[list[str]] = [[]]
    for number, value in enumerate(values):
        if value == value and abs(value) != float("inf"):  # noqa: PLR0124 - NaN
            lines[-1].append(f"{number / steps * width:.1f},{height - (value - low) / span * height:.1f}")
        elif lines[-1]:
            lines.append([])
    drawn = Markup("").join(Markup('<polyline points="{}"/>').format(" ".join(line)) for line in lines if line)
    words = f"{label}: from {low:g} to {high:g}, {len(values)} values"
    return Markup(
        '<svg class="curve" role="img" aria-label="{}" viewBox="-4 -4 {} {}" preserveAspectRatio="none">{}</svg>'
        '<p class="small">{}</p>'
    ).format(words, width + 8, height + 8, drawn, words)


def growth(days: Sequence[tuple[date, int]], width: int = 800, height: int = 200) -> Markup:
    """Return how what is stored grew over days, as a filled curve with its ends in words."""
    (first, _), (last, most) = days[0], days[-1]
    span = max(1, (last - first).days)
    points = [f"0,{height}"]
    for day, total in days:
        points.append(f"{(day - first).days / span * width:.1f},{height - total / max(1, most) * height:.1f}")
    words = f"{size(most)} on {last}, beginning on {first}"
    return Markup(
        '<svg class="curve filled" role="img" aria-label="{}" viewBox="0 0 {} {}" preserveAspectRatio="none">'
        '<polygon points="{} {},{}"/></svg><p class="small">{}</p>'
    ).format(words, width, height, " ".join(points), width, height, words)


def stages(needs: Mapping[str, Sequence[str]], notes: Mapping[str, str]) -> Markup:
    """Return the stages of a workflow, each to the right of what it needs; `notes` are what hovering shows."""
    depth: dict[str, int] = {}
    for name, needed in needs.items():
        depth[name] = 1 + max((depth[other] for other in needed), default=-1)
    rows: defaultdict[int, int] = defaultdict(int)
    places: dict[str, tuple[int, int]] = {}
    for name in needs:
        places[name] = (depth[name] * (BOX_WIDTH + GAP_X), rows[depth[name]] * (BOX_HEIGHT + GAP_Y))
        rows[depth[name]] += 1
    parts = [_line(places[other], places[name]) for name, needed in needs.items() for other in needed]
    for name, (x, y) in places.items():
        parts.append(_BOX.format(notes.get(name, name), x, y, BOX_WIDTH, BOX_HEIGHT, x + 10, y + 27, name[:_SHOWN]))
    width = (max(depth.values(), default=0) + 1) * (BOX_WIDTH + GAP_X) - GAP_X
    height = max(rows.values(), default=1) * (BOX_HEIGHT + GAP_Y) - GAP_Y
    words = "; ".join(f"{name} after {', '.join(needed)}" if needed else name for name, needed in needs.items())
    return Markup(
        '<svg class="graph" role="img" aria-label="Stages: {}" viewBox="-2 -2 {} {}" width="{}">{}</svg>'
    ).format(words, width + 4, height + 4, width, Markup("").join(parts))


def _line(here: tuple[int, int], there: tuple[int, int]) -> Markup:
    x, y, to_x, to_y = here[0] + BOX_WIDTH, here[1] + BOX_HEIGHT // 2, there[0], there[1] + BOX_HEIGHT // 2
    return Markup('<path d="M{} {}C{} {} {} {} {} {}"/>').format(x, y, x + 40, y, to_x - 40, to_y, to_x, to_y)


def timeline(job: JobRecord, width: int = 800) -> Markup | None:
    """Return when the commands of a job ran, a bar each; None where none has begun."""
    begun = [(child, child.started_at) for child in job.child_processes if child.started_at is not None]
    if not begun:
        return None
    begun = begun[:MOST_BARS]
    first = min(at for _, at in begun)
    last = max((child.ended_at or datetime.now(UTC)) for child, _ in begun)
    span = max(0.001, (last - first).total_seconds())
    bars = []
    for row, (child, at) in enumerate(begun):
        x = (at - first).total_seconds() / span * width
        long = max(2.0, ((child.ended_at or last) - at).total_seconds() / span * width)
        words = f"{child.stage}, process {child.number}: {child.state}, {duration(child.run_time_s)}"
        bars.append(
            Markup('<g><title>{}</title><rect class="{}" x="{}" y="{}" width="{}" height="14" rx="2"/></g>').format(
                words, tone(child.state), f"{x:.1f}", row * 18, f"{long:.1f}"
            )
        )
    words = f"Timeline of {len(begun)} commands over {duration(span)}"
    return Markup(
        '<svg class="timeline" role="img" aria-label="{}" viewBox="0 0 {} {}">{}</svg><p class="small">{}</p>'
    ).format(words, width, len(begun) * 18, Markup("").join(bars), words)
