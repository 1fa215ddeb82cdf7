"""JSON as it is sent to us: read without guessing, and refused with the reason and the place."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NoReturn

from pydantic import JsonValue

from beamkeeper.domain.errors import InvalidError

MAX_DIGITS = 4000
MAX_NESTING = 900
"""Ours, since how deep a parser goes differs between versions of Python."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?Infinity|NaN|[-+.0-9eE]+|[{}\[\]:,]', re.DOTALL)
_IS_KEY = re.compile(r"\s*:")

KEY_END = '":'
"""What follows each key, but for white space; a text may have it too, where it begins with a colon or has a quote."""

_SPACED_KEY = re.compile(rb'"\s+:')


class _RefusedError(ValueError):
    """What the parser meets and we do not take; the message is for people."""


def parse_json(content: bytes) -> JsonValue:
    """Return the value of a JSON document.

    Refused are, beside what is no JSON: a key that stands twice in one object (which of them is meant?), NaN and
    Infinity, and what is nested too deeply to be read. The position in `details` counts characters from 0.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refusal(f"it is not UTF-8 ({error.reason})", error.start) from error
    try:
        value: JsonValue = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_bounded_int
        )
    except json.JSONDecodeError as error:
        raise _refusal(error.msg, error.pos) from error
    except _RefusedError as error:
        raise _refusal(str(error), _place(text)) from error
    except RecursionError as error:
        raise _refusal("it is nested too deeply", _place(text)) from error
    if _is_too_deep(value):
        raise _refusal("it is nested too deeply", _place(text))
    return value


def refuse_repeated(content: bytes) -> None:
    """Refuse a document in which a key stands twice in one object, which other parsers take: which of them is meant?

    What is wrong otherwise is left to the parser that reads it.
    """
    try:
        json.loads(content, object_pairs_hook=_unique)
    except _RefusedError:
        parse_json(content)  # says where
    except (ValueError, RecursionError):
        return


def read_keys(content: bytes) -> int | None:
    """Return how many keys a document has, and texts that look like one; None where its bytes do not tell that.

    What a parser made of it has as many, counted in the same way, unless a key stood twice somewhere. To count takes a
    thirtieth of the time in which the document is read a second time.
    """
    if b"\\u" in content or (_has_spaced_colon(content) and _SPACED_KEY.search(content)):
        return None  # a quote or colon of a text may be written as a number, or a key not be seen
    return content.count(KEY_END.encode())


def _has_spaced_colon(content: bytes) -> bool:
    # To look for one character is ten times as fast as for two, and most documents have none of the last three.
    return b" :" in content or any(space in content and space + b":" in content for space in (b"\t", b"\n", b"\r"))


def _is_too_deep(value: JsonValue) -> bool:
    """Go down level by level, so that what is deep cannot exhaust the stack here."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_NESTING):
        if not level:
            return False
        inside = (child for item in level for child in (item.values() if isinstance(item, dict) else item))
        level = [child for child in inside if isinstance(child, dict | list)]
    return bool(level)


def _unique(pairs: Sequence[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RefusedError(f'the key "{key[:80]}" stands twice in one object')
            seen.add(key)
    return found


def _no_constant(name: str) -> NoReturn:
    raise _RefusedError(f"JSON knows no {name}")


def _bounded_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _RefusedError(f"a number has {len(digits)} digits")
    return int(digits)


def _refusal(reason: str, position: int) -> InvalidError:
    return InvalidError(f"the JSON cannot be taken at character {position}: {reason}", position=position, reason=reason)


def _place(text: str) -> int:
    """Return where the first thing stands that is refused: looked for only when something is."""
    keys: list[set[str] | None] = []
    for token in _TOKEN.finditer(text):
        word, at = token.group(), token.start()
        if word in ("{", "["):
            keys.append(set() if word == "{" else None)
            if len(keys) > MAX_NESTING:
                return at
        elif word in ("}", "]") and keys:
            keys.pop()
        elif word.endswith(("Infinity", "NaN")) or (word[0] in "-0123456789" and len(word) > MAX_DIGITS):
            return at
        elif word[0] == '"' and keys and (seen := keys[-1]) is not None and _IS_KEY.match(text, token.end()):
            if word in seen:
                return at
            seen.add(word)
    return 0
