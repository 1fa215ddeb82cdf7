"""What is read from files and programs, made safe to keep as JSON: bounded, finite, without NUL or lone surrogates."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from beamkeeper.plugins.extractors import ExtractionError

if TYPE_CHECKING:  # the extraction worker starts without pydantic
    from pydantic import JsonValue

MAX_TEXT = 2000
MAX_KEY = 200
MAX_ITEMS = 500
MAX_DEPTH = 8
MAX_LINE = 10_000
SAFE_INT = 2**53

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_QUANTITY = re.compile(
    r"(?P<number>[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)\s*"
    r"(?P<unit>[kMGmuµμn]?eV|[kcmuµμnpf]?m|[AÅ]|[aA]ng(strom)?s?|[munµμ]?s|sec(onds)?|min|h|ms|[mu]?rad|deg(rees)?|°C?|degC"
    r"|K|[mk]?V|[mnu]?A|[kMG]?Hz|[kMm]?bar|[kM]?Pa|torr|%|pixels?|px|mm/s|photons|counts)"
)
_KEY_WITH_UNIT = re.compile(r"(?P<key>.*?\S)\s*[(\[](?P<unit>[^()\[\]]{1,20})[)\]]")
_LINE = re.compile(r"[#\s]*(?P<key>[^:=\s][^:=]{0,198}?)\s*[:=]\s*(?P<value>.*)")


def text(value: str | bytes, limit: int = MAX_TEXT) -> str:
    """Return text that every database and every reader of JSON takes.

    Bytes are UTF-8 or, as in older files with a micro sign, Latin-1.
    """
    shown = _decoded(value) if isinstance(value, bytes) else value
    clean = shown.encode("utf-8", "surrogateescape" if _is_escaped(shown) else "replace").decode("utf-8", "replace")
    return clean.replace("\0", "").strip()[:limit]


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _is_escaped(value: str) -> bool:
    """Whether all surrogates in a text stand for bytes that were not UTF-8."""
    return all("\udc80" <= char <= "\udcff" for char in value if "\ud800" <= char <= "\udfff")


def json_safe(value: object, depth: int = MAX_DEPTH, items: int = MAX_ITEMS) -> JsonValue:
    """Return a value as JSON can hold it; what has no meaning there is None."""
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        value = value.item()  # a numpy scalar, or an array of one
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -SAFE_INT <= value <= SAFE_INT else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | bytes):
        return text(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if depth and isinstance(value, Mapping):
        return {
            text(str(key), MAX_KEY): json_safe(inner, depth - 1, items) for key, inner in islice(value.items(), items)
        }
    if depth and isinstance(value, list | tuple):
        return [json_safe(inner, depth - 1, items) for inner in islice(value, items)]
    return None


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
