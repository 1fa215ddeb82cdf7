"""Which parts of something are asked for: the header Range, as RFC 9110 has it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

MOST = 32
"""Who asks for more parts than this gets the whole."""

_PART = re.compile(r"(\d{0,18})-(\d{0,18})")


class NotSatisfiableError(Exception):
    """None of the parts that are asked for is there."""


def wanted(headers: Mapping[str, str], size: int, etag: str) -> Sequence[tuple[int, int]] | None:
    """Return the parts that are asked for, each from its first byte up to one; None where the whole is meant.

    A Range whose If-Range names another state of the thing counts for nothing, as does one that is malformed.
    """
    given = headers.get("range", "")
    unit, _, text = given.partition("=")
    if unit.strip().lower() != "bytes" or headers.get("if-range", etag) != etag:
        return None
    matches = [_PART.fullmatch(part.strip()) for part in text.split(",")]
    if len(matches) > MOST or any(match is None or match[0] == "-" for match in matches):
        return None
    found = [part for match in matches if match is not None and (part := _part(match[1], match[2], size)) is not None]
    if any(begin >= end for begin, end in found):
        return None
    parts = _merged([part for part in found if part[0] < size])
    if not parts:
        raise NotSatisfiableError
    return parts


def _part(first: str, last: str, size: int) -> tuple[int, int] | None:
    if not first:  # the last so many bytes
        return (max(0, size - int(last)), size) if int(last) else None
    begin = int(first)
    if not last:
        return (begin, max(size, begin + 1))
    return (begin, min(int(last) + 1, max(size, begin + 1))) if int(last) >= begin else (1, 0)


def _merged(parts: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """Return parts that overlap or touch as one, in order."""
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(parts):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged
