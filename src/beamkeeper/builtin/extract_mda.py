"""Metadata of MDA files, as the EPICS sscan record saves them: dimensions, positioners, detectors, and other PVs.

Written from the description of the format in the synApps documentation; numbers are XDR, big-endian.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from beamkeeper.builtin.known import known
from beamkeeper.builtin.values import json_safe, text
from beamkeeper.plugins.extractors import ExtractionError

if TYPE_CHECKING:
    from pydantic import JsonValue

MAX_RANK = 8
MAX_NAMES = 2000
MAX_TEXT_BYTES = 64 * 1024
MAX_LISTED = 100
MAX_PVS = 500
_STRING, _CHAR = 0, 32
_NUMBERS = {29: "i", 30: "f", 33: "i", 34: "d"}
"""The types of other PVs: short, float, long and double."""


class _Reader:
    """Reads XDR from where it stands; what lies beyond the file's end, or is beyond all measure, is an error."""

    def __init__(self, content: bytes, where: int = 0) -> None:
        self._content = content
        self.where = where

    def numbers(self, kinds: str) -> tuple[Any, ...]:
        """Return numbers of these kinds."""
        try:
            found = struct.unpack_from(f">{kinds}", self._content, self.where)
        except struct.error as error:
            raise ExtractionError("MDA cannot be read: the file ends too early") from error
        self.where += struct.calcsize(f">{kinds}")
        return found

    def count(self, limit: int = MAX_NAMES) -> int:
        """Return a number of things, which must be possible."""
        (found,) = self.numbers("i")
        if not 0 <= found <= limit:
            raise ExtractionError(f"MDA cannot be read: it is said to have {found} of something")
        return int(found)

    def text(self) -> str:
        """Return a text, which has its length twice."""
        if not self.count(MAX_TEXT_BYTES):
            return ""
        length = self.count(MAX_TEXT_BYTES)
        (found,) = self.numbers(f"{length}s")
        self.where += -length % 4
        return text(found)

    def texts(self, count: int) -> list[str]:
        """Return some texts."""
        return [self.text() for _ in range(count)]


def read_mda(path: str) -> dict[str, JsonValue]:
    """Return the metadata of an MDA file."""
    with open(path, "rb") as file:
        head = file.read(4096)
        version, number, rank = _Reader(head).numbers("fii")
        if not 0 < rank <= MAX_RANK:
            raise ExtractionError(f"MDA cannot be read: it is said to have {rank} dimensions")
        header = _Reader(head, 12)
        shape = header.numbers("i" * rank)
        _, extra = header.numbers("ii")
        found: dict[str, JsonValue] = {
            "format": "MDA",
            "version": round(version, 2),
            "run": str(number),
            "scan_number": number,
            "shape": json_safe(list(shape)),
        }
        file.seek(0)
        content = file.read(header.where + 4 * 1024 * 1024)
        found |= _scan(_Reader(content, header.where))
        if extra > 0:
            file.seek(extra)
            found |= _extra(_Reader(file.read(4 * 1024 * 1024)))
    return found


def _scan(reader: _Reader) -> dict[str, JsonValue]:
    """Return what the outermost scan says of itself."""
    rank, points, done = reader.numbers("iii")
    if not 0 < rank <= MAX_RANK:
        raise ExtractionError("MDA cannot be read: its scan has no dimension")
    if rank > 1:
        if not 0 <= points <= 10**6:
            raise ExtractionError(f"MDA cannot be read: it is said to have {points} points")
        reader.numbers("i" * points)  # where the inner scans lie
    name, time = reader.texts(2)
    positioners, detectors, triggers = reader.count(), reader.count(), reader.count()
    found: dict[str, JsonValue] = {"scanner": name, "start_time": _iso(time), "points_done": done}
    moved: list[JsonValue] = []
    for _ in range(positioners):
        reader.numbers("i")
        pv, described, _, unit, readback, _, _ = reader.texts(7)
        moved.append({"name": pv, "description": described, "unit": unit, "readback": readback})
    seen: list[JsonValue] = []
    for _ in range(detectors):
        reader.numbers("i")
        pv, described, unit = reader.texts(3)
        seen.append({"name": pv, "description": described, "unit": unit})
    fired: list[JsonValue] = []
    for _ in range(triggers):
        reader.numbers("i")
        fired.append(reader.text())
        reader.numbers("f")
    for key, value in (("positioners", moved), ("counters", seen), ("triggers", fired)):
        if value:
            found[key] = value[:MAX_LISTED]
    return found


def _iso(time: str) -> str:
    """Return `Jul 17, 2003 23:26:01.265409149` as ISO 8601, in the zone of whoever wrote it; else as it is."""
    whole, _, fraction = time.partition(".")
    with suppress(ValueError):
        shown = datetime.strptime(whole, "%b %d, %Y %H:%M:%S").isoformat()  # noqa: DTZ007
        return f"{shown}.{fraction[:6]}" if fraction.isdigit() else shown
    return time


def _extra(reader: _Reader) -> dict[str, JsonValue]:
    """Return the other PVs that were saved with the scan, and what is known of them by their descriptions."""
    values: dict[str, JsonValue] = {}
    described: dict[str, JsonValue] = {}
    for _ in range(min(reader.count(10**5), MAX_PVS)):
        name, description = reader.texts(2)
        value = _value(reader)
        values[name] = value
        if description:
            described.setdefault(description, value)
    found = known(described)
    if values:
        found["pvs"] = values
    return found


def _value(reader: _Reader) -> JsonValue:
    (kind,) = reader.numbers("i")
    if kind == _STRING:
        return reader.text()
    count, unit = reader.count(10**6), reader.text()
    if kind == _CHAR:
        (letters,) = reader.numbers(f"{count}s")
        reader.where += -count % 4
        return text(letters.split(b"\0")[0])
    if kind not in _NUMBERS:
        raise ExtractionError(f"MDA cannot be read: it has a PV of the unknown type {kind}")
    numbers = reader.numbers(_NUMBERS[kind] * count)
    value = json_safe(numbers[0] if count == 1 else list(numbers[:MAX_LISTED]))
    return {"value": value, "unit": unit} if unit and count == 1 else value
