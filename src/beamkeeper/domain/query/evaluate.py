"""What conditions on metadata mean of one document: for keys that are not indexed, and where the index is behind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from pydantic import JsonValue

from beamkeeper.domain.names import Metadata
from beamkeeper.domain.query.ast import Leaf, Text
from beamkeeper.domain.query.probes import Below, Points, Probe, Shape, Span, probes_of
from beamkeeper.domain.query.regex import compiled
from beamkeeper.domain.terms import BOOLEAN, PLAIN, TEXT, TEXT_CHARACTERS, words_in, words_of
from beamkeeper.domain.units import quantity_of, to_si

MAX_WORDS = 16
"""So many words of a full-text search count."""


def holds(leaf: Leaf, path: str, metadata: Metadata) -> bool:
    """Whether a condition on metadata, or on words, holds of a file with this path as it is shown."""
    if isinstance(leaf, Text):
        return _has_words(leaf.words, words_of(path, metadata))
    return any(_meets(probe, metadata) for probe in probes_of(leaf))


def wanted_words(text: str) -> list[tuple[str, bool]]:
    """Return the words of a full-text search, and whether each may go on: those before a `*` do."""
    found: dict[tuple[str, bool], None] = {}
    for part in text.split():
        words = words_in(part)
        for word in words:
            found[word, part.endswith("*") and word is words[-1]] = None
    return list(found)[:MAX_WORDS]


def _has_words(text: str, words: list[str]) -> bool:
    there = set(words)
    return all(
        any(each.startswith(word) for each in words) if is_begun else word in there
        for word, is_begun in wanted_words(text)
    )


def _meets(probe: Probe, metadata: Metadata) -> bool:
    at = _at(metadata, probe.key)
    match probe:
        case Below():
            return _has_terms(at)
        case Points(key, dimension, values):
            return any(d == dimension and value in values for d, value in _terms(at, key))
        case Span(key, dimension):
            return any(d == dimension and probe.holds(value) for d, value in _terms(at, key))
        case Shape(key, pattern, is_regex):
            texts = (value for d, value in _terms(at, key) if d == TEXT and isinstance(value, str))
            if is_regex:
                return any(compiled(pattern).match(text) for text in texts)
            return any(_glob(pattern).fullmatch(text) for text in texts)


@lru_cache(maxsize=256)
def _glob(pattern: str) -> re.Pattern[str]:
    """Return a glob as a regular expression that never goes back: each part is taken where it first is."""
    first, *others = ["".join("." if char == "?" else re.escape(char) for char in part) for part in pattern.split("*")]
    if not others:
        return re.compile(first, re.DOTALL)
    *middle, last = others
    steps = "".join(f"(?>.*?{part})" for part in middle if part)
    return re.compile(f"{first}{steps}.*{last}" if last else f"{first}{steps}.*", re.DOTALL)


def _at(metadata: JsonValue, key: str) -> JsonValue:
    here = metadata
    for part in key.split("."):
        if not isinstance(here, dict) or part not in here:
            return None
        here = here[part]
    return here


def _terms(value: JsonValue, key: str) -> Iterator[tuple[str, float | str]]:
    """Yield the terms of a value, as the index has them: by dimension."""
    quantity = quantity_of(value)
    if quantity is not None:
        si = to_si(*quantity, key=key)
        if si is not None:
            yield si.dimension, si.value
    if isinstance(value, dict):
        value = value.get("value")
        if isinstance(value, list):
            return
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            yield TEXT, item[:TEXT_CHARACTERS]
        elif isinstance(item, bool):
            yield BOOLEAN, float(item)
        elif isinstance(item, int | float):
            yield PLAIN, float(item)


def _has_terms(value: JsonValue) -> bool:
    if isinstance(value, dict):
        return any(name and "." not in name and _has_terms(each) for name, each in value.items())
    if isinstance(value, list):
        return any(isinstance(item, str | int | float) for item in value)
    return value is not None
