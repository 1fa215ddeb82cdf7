"""What is read from files and programs, made safe to keep as JSON: bounded, finite, without NUL or lone surrogates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the processes that read files start without pydantic
    from pydantic import JsonValue

MAX_TEXT = 2000
MAX_KEY = 200
MAX_ITEMS = 500
MAX_DEPTH = 8
SAFE_INT = 2**53


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
