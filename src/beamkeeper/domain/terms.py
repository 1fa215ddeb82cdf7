"""What of a file's metadata is indexed: its terms, and the words of full text."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from pydantic import JsonValue

from beamkeeper.domain.names import Metadata
from beamkeeper.domain.units import quantity_of, to_si

MAX_KEYS = 64
"""So many keys of one file are indexed, where its experiment type does not say which; a quantity is one."""
MAX_ITEMS = 16
"""So many items of a list are indexed."""
MAX_KEY = 200
"""A longer dotted key is not indexed."""
TEXT_CHARACTERS = 200
"""A text is indexed up to here."""
MAX_WORDS = 256
"""So many different words of one file are in the full text, those of its path first."""
WORD_CHARACTERS = 40

PLAIN, BOOLEAN, TEXT = "plain", "boolean", "text"
"""`dimension` of what is no quantity: a number without unit, a truth value (as 0 or 1), a text."""

_WORD = re.compile(r"[^\W_]+")


class Term(NamedTuple):
    """One value under a dotted key; `ordinal` is its place in a list."""

    key: str
    ordinal: int
    dimension: str
    num: float | None
    text: str | None


class Terms(NamedTuple):
    """The terms of a file, and whether its metadata has values of indexed keys beyond them."""

    terms: list[Term]
    is_partial: bool


def terms_of(metadata: Metadata, only: Collection[str] | None = None) -> Terms:
    """Return the terms of metadata; `only` names the keys that are wanted.

    An object with a scalar `value`, such as `{"value": 12.4, "unit": "keV"}`, stands for that value: `energy` has the
    plain number and, where the unit is known, the number in SI units too. Its `value` and `unit` have no terms of their
    own. Neither have keys with a dot in them or empty ones, which nobody can ask for, nor null, nor objects in lists.
    """
    found: list[tuple[str, list[Term]]] = []
    is_partial = False
    for key, terms, is_whole in _entries("", metadata):
        if only is None or key in only:
            is_partial = is_partial or not is_whole
            found.append((key, terms))
    if len(found) > MAX_KEYS and only is None:
        found.sort(key=lambda entry: (entry[0].count("."), entry[0]))
        del found[MAX_KEYS:]
        is_partial = True
    return Terms([term for _, terms in found for term in terms], is_partial)


def is_indexed(key: str, only: Collection[str] | None) -> bool:
    """Whether values under a key have terms, where `only` names the keys that are wanted."""
    return len(key) <= MAX_KEY and not key.endswith((".value", ".unit")) and (only is None or key in only)


def words_of(path: str, metadata: Metadata) -> list[str]:
    """Return the different words of a path as it is shown, and of the texts of metadata, in small letters."""
    words = dict.fromkeys(islice(_words([path]), MAX_WORDS))
    for word in _words(_texts(metadata)):
        if len(words) >= MAX_WORDS:
            break
        words[word] = None
    return list(words)


def words_in(text: str) -> list[str]:
    """Return the words of a text, as full text has them."""
    return list(_words([text]))


def _words(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for word in _WORD.findall(text.casefold()):
            yield word[:WORD_CHARACTERS]


def _texts(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _entries(prefix: str, document: Metadata) -> Iterator[tuple[str, list[Term], bool]]:
    """Yield each scalar, list and quantity: its key, its terms, and whether they are all that there is of it."""
    for name, value in document.items():
        if not name or "." in name or value is None or (prefix and name in ("value", "unit")):
            continue
        key = prefix + name
        if isinstance(value, dict):
            if terms := _stood_for(key, value):
                yield _fitting(key, terms, True)
            yield from _entries(key + ".", value)
        elif isinstance(value, list):
            scalars = [item for item in value if isinstance(item, str | int | float)]
            if scalars:
                terms = [_term(key, ordinal, item) for ordinal, item in enumerate(scalars[:MAX_ITEMS])]
                different = {term[2:]: term for term in terms}
                yield _fitting(key, list(different.values()), len(scalars) <= MAX_ITEMS)
        else:
            yield _fitting(key, [_term(key, 0, value)], True)


def _stood_for(key: str, document: Metadata) -> list[Term]:
    """Return the terms of the value that an object stands for, if it does for one."""
    value = document.get("value")
    if not isinstance(value, str | int | float):
        return []
    terms = [_term(key, 0, value)]
    if (quantity := quantity_of(document)) and (si := to_si(*quantity, key=key)):
        terms.append(Term(key, 1, si.dimension, si.value, None))
    return terms


def _fitting(key: str, terms: list[Term], is_whole: bool) -> tuple[str, list[Term], bool]:
    return (key, terms, is_whole) if len(key) <= MAX_KEY else (key, [], False)


def _term(key: str, ordinal: int, value: str | float) -> Term:
    if isinstance(value, str):
        return Term(key, ordinal, TEXT, None, value[:TEXT_CHARACTERS])
    return Term(key, ordinal, BOOLEAN if isinstance(value, bool) else PLAIN, float(value), None)
