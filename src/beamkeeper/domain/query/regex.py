"""Regular expressions in queries: RE2's, which take linear time whatever is written, from the beginning of a text."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Protocol

MAX_PATTERN = 200
MAX_MEMORY = 1024 * 1024
"""Bytes of a compiled expression: what needs more, such as `(x{500}){500}`, is refused."""

_LITERAL = re.compile(r"[\w /-]*")


class RegexError(ValueError):
    """A regular expression is refused; the message says why."""


class Regex(Protocol):
    """A compiled regular expression."""

    def match(self, text: str) -> object:
        """Return something true where the beginning of the text matches."""
        ...


@lru_cache(maxsize=256)
def compiled(pattern: str) -> Regex:
    """Return a regular expression that can be used; refuse one that cannot."""
    if len(pattern) > MAX_PATTERN:
        raise RegexError(f"a regular expression of {len(pattern)} characters is refused: at most {MAX_PATTERN}")
    if not pattern.startswith("^"):
        raise RegexError("a regular expression begins with ^, and so at the beginning of the text: write ^.* for any")
    import re2

    options = re2.Options()
    options.max_mem = MAX_MEMORY
    options.log_errors = False
    try:
        regex: Regex = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else "it is malformed"
        reason = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise RegexError(f"this regular expression is refused: {reason}") from error
    return regex


def prefix_of(pattern: str) -> str:
    """Return what every text begins with that a regular expression matches; empty where nothing is certain."""
    if "|" in pattern or "(?" in pattern:
        return ""
    literal = _LITERAL.match(pattern, 1)
    found = literal[0] if literal else ""
    follows = pattern[1 + len(found) : 2 + len(found)]
    return found[:-1] if follows and follows in "*?{" else found
