"""What of a file's metadata is indexed: its terms, and the words of full text."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
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
_KEPT = 4096
"""So many short texts and values are kept with what was made of them: most files of a scan have the same."""


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
    found: list[_Entry] = []
    _enter(found, "", metadata, only)
    is_partial = not all(entry.is_whole for entry in found)
    if len(found) > MAX_KEYS and only is None:
        found.sort(key=lambda entry: (entry.key.count("."), entry.key))
        del found[MAX_KEYS:]
        is_partial = True
    return Terms([term for entry in found for term in entry.terms], is_partial)


def is_indexed(key: str, only: Collection[str] | None) -> bool:
    """Whether values under a key have terms, where `only` names the keys that are wanted."""
    return len(key) <= MAX_KEY and not key.endswith((".value", ".unit")) and (only is None or key in only)


def words_of(path: str, metadata: Metadata) -> list[str]:
    """Return the different words of a path as it is shown, and of the texts of metadata, in small letters."""
    words: dict[str, None] = {}
    for text in (path, *_texts(metadata)):
        found = _words_of_short(text) if len(text) <= TEXT_CHARACTERS else dict.fromkeys(words_in(text))
        words.update(found)
        if len(words) >= MAX_WORDS:
            break
    return list(islice(words, MAX_WORDS))


def words_in(text: str) -> list[str]:
    """Return the words of a text, as full text has them."""
    return [word[:WORD_CHARACTERS] for word in _WORD.findall(text.casefold())]


@lru_cache(_KEPT)
def _words_of_short(text: str) -> dict[str, None]:
    return dict.fromkeys(words_in(text))


def _texts(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, str):
                yield item
            elif isinstance(item, dict | list):
                yield from _texts(item)


class _Entry(NamedTuple):
    """A scalar, list or quantity: its key, its terms, and whether they are all that there is of it."""

    key: str
    terms: Sequence[Term]
    is_whole: bool


def _enter(found: list[_Entry], prefix: str, document: Metadata, only: Collection[str] | None) -> None:
    """Add all entries of a document whose keys are wanted."""
    for name, value in document.items():
        if not name or "." in name or value is None or (prefix and name in ("value", "unit")):
            continue
        key = prefix + name
        is_wanted = only is None or key in only
        if isinstance(value, dict):
            if is_wanted and (terms := _stood_for(key, value)):
                found.append(_fitting(key, terms, True))
            _enter(found, key + ".", value, only)
        elif not is_wanted:
            continue
        elif isinstance(value, list):
            scalars = [item for item in value if isinstance(item, str | int | float)]
            if scalars:
                several = [_term(key, ordinal, item) for ordinal, item in enumerate(scalars[:MAX_ITEMS])]
                different = {term[2:]: term for term in several}
                found.append(_fitting(key, list(different.values()), len(scalars) <= MAX_ITEMS))
        else:
            found.append(_fitting(key, _scalar(key, value, None), True))


def _stood_for(key: str, document: Metadata) -> Sequence[Term]:
    """Return the terms of the value that an object stands for, if it does for one."""
    value, unit = document.get("value"), document.get("unit")
    if not isinstance(value, str | int | float):
        return ()
    return _scalar(key, value, unit if isinstance(unit, str) else None)


def _scalar(key: str, value: str | float, unit: str | None) -> Sequence[Term]:
    is_short = not (isinstance(value, str) and len(value) > TEXT_CHARACTERS) and len(unit or key) <= TEXT_CHARACTERS
    return _terms_of_short(key, value, unit) if is_short else _terms_of_scalar(key, value, unit)


def _terms_of_scalar(key: str, value: str | float, unit: str | None) -> Sequence[Term]:
    term = _term(key, 0, value)
    if (quantity := quantity_of({"value": value, "unit": unit})) and (si := to_si(*quantity, key=key)):
        return (term, Term(key, 1, si.dimension, si.value, None))
    return (term,)


_terms_of_short = lru_cache(_KEPT, typed=True)(_terms_of_scalar)  # True, 1 and 1.0 are three values


def _fitting(key: str, terms: Sequence[Term], is_whole: bool) -> _Entry:
    return _Entry(key, terms, is_whole) if len(key) <= MAX_KEY else _Entry(key, (), False)


def _term(key: str, ordinal: int, value: str | float) -> Term:
    if isinstance(value, str):
        return Term(key, ordinal, TEXT, None, value[:TEXT_CHARACTERS])
    return Term(key, ordinal, BOOLEAN if isinstance(value, bool) else PLAIN, float(value), None)
