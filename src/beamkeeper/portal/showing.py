"""How times, sizes and states look on a page."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from markupsafe import Markup

GOOD = frozenset({"done", "available", "verified", "running", "up", "yes"})
BAD = frozenset({"failed", "quarantined", "suspect", "down", "aborted", "no", "unknown"})

_TIME = Markup('<time datetime="%s" title="%s UTC">%s</time>')
_SECONDS = "%Y-%m-%d %H:%M:%S"


def when(at: datetime | None, zone: str) -> Markup:
    """Return a time in the station's zone; the hover has it in UTC."""
    if at is None:
        return Markup("")
    local = at.astimezone(ZoneInfo(zone))
    utc = at.astimezone(UTC)
    return _TIME % (utc.isoformat(), utc.strftime(_SECONDS), local.strftime(_SECONDS))


def clock(at: datetime, zone: str) -> Markup:
    """Return the time of day in the station's zone; the hover has all of it in UTC."""
    utc, local = at.astimezone(UTC), at.astimezone(ZoneInfo(zone))
    return _TIME % (utc.isoformat(), utc.strftime(_SECONDS), local.strftime("%H:%M"))


def size(number: float | None) -> str:
    """Return a number of bytes as people read it."""
    if number is None:
        return ""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} PB"


def count(number: int | None) -> str:
    """Return a whole number with a thin gap between thousands."""
    return "" if number is None else f"{number:,}".replace(",", "\u202f")


def duration(seconds: float | None) -> str:
    """Return a duration in the two largest units that it has."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    for unit, below, name, small in ((60, 3600, "min", "s"), (3600, 86400, "h", "min"), (86400, 1 << 62, "d", "h")):
        if whole < below:
            part = {"s": 1, "min": 60, "h": 3600}[small]
            return f"{whole // unit} {name} {whole % unit // part} {small}"
    return ""


def tone(state: object) -> str:
    """Return the class of a state: good, bad, or neither. The word itself is always shown as well."""
    text = str(state)
    return "good" if text in GOOD else "bad" if text in BAD else "plain"
