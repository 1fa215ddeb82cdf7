"""The header that Pilatus and Eiger detectors write into CBF and TIFF."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from beamkeeper.builtin.known import with_attributes
from beamkeeper.builtin.values import MAX_ITEMS, quantity_or_text, text

if TYPE_CHECKING:
    from pydantic import JsonValue

_PILATUS_PAIR = re.compile(r"#?\s*(?P<key>[A-Z][A-Za-z_]+)\s*[:=]?\s+(?P<value>.+)")
_PILATUS_TIME = re.compile(r"#?\s*(\d{4}[-/:][A-Za-z0-9]{2,3}[-/:]\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d+)?)")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def pilatus(lines: Iterable[str]) -> dict[str, JsonValue]:
    """Return what the header of a Pilatus or Eiger says: `# Exposure_time 0.098 s`."""
    attributes: dict[str, JsonValue] = {}
    started = ""
    for line in lines:
        stripped = line.strip()
        if (time := _PILATUS_TIME.fullmatch(stripped)) is not None:
            started = started or iso_time(time[1])
        elif (pair := _PILATUS_PAIR.fullmatch(stripped)) is not None and len(attributes) < MAX_ITEMS:
            attributes[text(pair["key"], 200)] = quantity_or_text(pair["value"])
    found = with_attributes(attributes) if attributes else {}
    detector = attributes.get("Detector")
    if isinstance(detector, str) and detector:
        found["detectors"] = [detector]
    if started:
        found["start_time"] = started
    return found


def iso_time(time: str) -> str:
    """Return a time as ISO 8601 has it: `2010-Nov-29T16:13:40` names its month."""
    date, _, clock = time.replace(" ", "T").partition("T")
    year, month, day = re.split("[-/:]", date)
    number = f"{_MONTHS.index(month) + 1:02}" if month in _MONTHS else month
    return f"{year}-{number}-{day}T{clock}"
