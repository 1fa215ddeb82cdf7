"""Long lists in parts: the cursor of a page, as text that only we read, and keys a few at a time."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

from beamkeeper.domain.errors import InvalidError


def to_cursor(*key: str | int) -> str:
    """Return the cursor after the row with this key."""
    return base64.urlsafe_b64encode(json.dumps(key, separators=(",", ":")).encode()).decode("ascii").rstrip("=")


def from_cursor(cursor: str, *kinds: type[str] | type[int]) -> tuple[str | int, ...]:
    """Return the key that a cursor names, which has values of these kinds."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        key = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error) as error:
        raise _refusal(cursor) from error
    if not isinstance(key, list) or [type(value) for value in key] != list(kinds):
        raise _refusal(cursor)
    return tuple(key)


def uid_of(cursor: str) -> UUID:
    """Return the uid after which a list goes on."""
    try:
        return UUID(hex=str(from_cursor(cursor, str)[0]))
    except ValueError as error:
        raise _refusal(cursor) from error


def _refusal(cursor: str) -> InvalidError:
    return InvalidError(f"{cursor[:80]!r} is no cursor of this list: take the `next` of the page before")


def parts(keys: Iterable[Any], size: int = 500) -> Iterator[Sequence[Any]]:
    """Yield keys, a few at a time, as they are named in one query."""
    every = list(keys)
    return (every[start : start + size] for start in range(0, len(every), size))
