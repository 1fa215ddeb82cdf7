"""Metadata of SPEC data files: who scanned what and when, and where the motors stood."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from beamkeeper.builtin.values import MAX_ITEMS, json_safe, number_or_text, text
from beamkeeper.plugins.extractors import ExtractionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

MAX_BYTES = 256 * 1024 * 1024
"""So much of a file is looked through for scans; a file of a whole run may be larger."""

LINE_BYTES = 64 * 1024
MAX_LISTED = 100
_TWO_SPACES = re.compile(r"\s{2,}")
_USER = re.compile(r"(?P<title>.*?)\s*User\s*=\s*(?P<user>\S+)")


class _Survey:
    """What has been found in a file so far."""

    def __init__(self) -> None:
        self.found: dict[str, JsonValue] = {"format": "SPEC"}
        self.scans: list[JsonValue] = []
        self.count = 0
        self.motors: dict[int, list[str]] = {}
        self.positions: dict[str, JsonValue] = {}
        self.counters: dict[str, None] = {}
        self.is_cut = False

    def take(self, line: str) -> None:
        """Take in one line that begins with `#`."""
        key, _, rest = line.partition(" ")
        value = text(rest)
        if key == "#S":
            self._scan(value)
        elif key == "#E" and value.isdigit() and len(value) < 12:
            self.found.setdefault("start_time", datetime.fromtimestamp(int(value), UTC).isoformat())
        elif key == "#D":
            self.found.setdefault("date", value)
            self.found["last_date"] = value
        elif key == "#C" and not self.count:
            self._comment(value)
        elif key == "#L" and value:
            self.counters |= dict.fromkeys(name for name in _TWO_SPACES.split(value)[:MAX_ITEMS])
        elif key == "#T" and self.count == 1:
            self._count_time(value)
        elif re.fullmatch(r"#O\d{1,3}", key):
            self.motors[int(key[2:])] = _TWO_SPACES.split(value)[:MAX_ITEMS] if value else []
        elif re.fullmatch(r"#P\d{1,3}", key) and self.count == 1:
            names = self.motors.get(int(key[2:]), [])
            for name, position in zip(names, value.split(), strict=False):
                if len(self.positions) < MAX_ITEMS:
                    self.positions[text(name, 200)] = number_or_text(position)

    def _scan(self, value: str) -> None:
        self.count += 1
        number, _, command = value.partition(" ")
        if len(self.scans) < MAX_LISTED:
            self.scans.append({"number": number_or_text(number), "command": text(command)})

    def _comment(self, value: str) -> None:
        match = _USER.fullmatch(value)
        if match:
            self.found |= (
                {"title": match["title"], "user": match["user"]} if match["title"] else {"user": match["user"]}
            )

    def _count_time(self, value: str) -> None:
        number = number_or_text(value.partition(" ")[0])
        if isinstance(number, int | float):
            self.found.setdefault("exposure_time", {"value": number, "unit": "s"})

    def metadata(self) -> dict[str, JsonValue]:
        """Return what was found."""
        last = self.found.pop("last_date", None)
        start, end = _iso(self.found.pop("date", None)), _iso(last)
        if start and "start_time" not in self.found:
            self.found["start_time"] = start
        if end:
            self.found["end_time"] = end
        self.found["scan_count"] = self.count
        for key, value in (("scans", self.scans), ("positions", self.positions), ("counters", list(self.counters))):
            if value:
                self.found[key] = json_safe(value)
        if self.is_cut:
            self.found["extraction"] = {"error": f"only the first {MAX_BYTES} bytes were looked through for scans"}
        return self.found


def read_spec(path: str) -> dict[str, JsonValue]:
    """Return the metadata of a SPEC data file."""
    survey = _Survey()
    for line in _header_lines(path, survey):
        survey.take(line)
    if not survey.count and len(survey.found) == 1:
        raise ExtractionError("SPEC cannot be read: there is neither a scan nor a header in it")
    return survey.metadata()


def _header_lines(path: str, survey: _Survey) -> Iterator[str]:
    with open(path, "rb") as file:
        read, is_start = 0, True
        while line := file.readline(LINE_BYTES):
            read += len(line)
            if is_start and line.startswith(b"#"):
                yield text(line, LINE_BYTES)
            is_start = line.endswith(b"\n")
            if read > MAX_BYTES:
                survey.is_cut = True
                return


def _iso(date: JsonValue) -> str:
    """Return `Wed Mar 04 10:20:30 2026` as ISO 8601, in the zone of whoever wrote it; empty where it is no date."""
    with suppress(ValueError):
        return datetime.strptime(str(date), "%a %b %d %H:%M:%S %Y").isoformat()  # noqa: DTZ007
    return ""
