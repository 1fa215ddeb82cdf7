"""What text says: numbers, quantities with their units, and lines of keys and values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from beamkeeper.domain.jsonable import MAX_ITEMS, MAX_KEY, json_safe, text
from beamkeeper.plugins.extractors import ExtractionError

if TYPE_CHECKING:  # the extraction worker starts without pydantic
    from pydantic import JsonValue

__all__ = [
    "MAX_ITEMS",
    "from_lines",
    "from_output",
    "json_safe",
    "nameable",
    "number_or_text",
    "quantity_or_text",
    "text",
]

MAX_LINE = 10_000

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_QUANTITY = re.compile(
    r"(?P<number>[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)\s*"
    r"(?P<unit>[kMGmuµμn]?eV|[kcmuµμnpf]?m|[AÅ]|[aA]ng(strom)?s?|[munµμ]?s|sec(onds)?|min|h|ms|[mu]?rad|deg(rees)?|°C?|degC"
    r"|K|[mk]?V|[mnu]?A|[kMG]?Hz|[kMm]?bar|[kM]?Pa|torr|%|pixels?|px|mm/s|photons|counts)"
)
_KEY_WITH_UNIT = re.compile(r"(?P<key>.*?\S)\s*[(\[](?P<unit>[^()\[\]]{1,20})[)\]]")
_LINE = re.compile(r"[#\s]*(?P<key>[^:=\s][^:=]{0,198}?)\s*[:=]\s*(?P<value>.*)")


@contextmanager
def nameable(path: str) -> Iterator[str]:
    """Give a name of a file for libraries that take text only: its own where that is text."""
    try:
        path.encode()
    except UnicodeEncodeError:
        with open(path, "rb") as file:
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        yield path


def number_or_text(value: str) -> JsonValue:
    """Return the number that a text is, or the text."""
    stripped = value.strip()
    if not _NUMBER.fullmatch(stripped):
        return text(stripped)
    is_whole = stripped.lstrip("+-").isdigit() and len(stripped) < 400
    return json_safe(int(stripped) if is_whole else float(stripped))


def quantity_or_text(value: str) -> JsonValue:
    """Return the number that a text is, with its unit where it has one that is known, or the text."""
    match = _QUANTITY.fullmatch(value.strip()) if len(value) < 100 else None
    if match is None:
        return number_or_text(value)
    number = number_or_text(match["number"])
    return {"value": number, "unit": match["unit"]} if isinstance(number, int | float) else text(value)


def from_lines(lines: Iterable[str]) -> dict[str, JsonValue]:
    """Return what `key: value` and `key = value` lines say; other lines are passed over.

    A unit may stand after the number, or in brackets after the key: `Energy: 12.4 keV`, `Energy (keV): 12.4`.
    """
    found: dict[str, JsonValue] = {}
    for line in lines:
        match = _LINE.fullmatch(line.strip()) if len(line) < MAX_LINE else None
        if match and len(found) < MAX_ITEMS:
            key, value = match["key"], quantity_or_text(match["value"])
            bracketed = _KEY_WITH_UNIT.fullmatch(key)
            if bracketed and isinstance(value, int | float):
                key, value = bracketed["key"], {"value": value, "unit": text(bracketed["unit"])}
            found[text(key, MAX_KEY)] = value
    return found


def from_output(output: bytes) -> dict[str, JsonValue]:
    """Return the metadata that a program printed: one JSON object, or lines."""
    shown = output.decode("utf-8", "replace")
    if not shown.lstrip().startswith("{"):
        return from_lines(shown.splitlines())
    try:
        value = json_safe(json.loads(shown))
    except (ValueError, RecursionError) as error:
        raise ExtractionError(f"its output is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ExtractionError("its output is not one JSON object")
    return value
