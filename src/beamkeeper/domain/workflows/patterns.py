"""Output variables: what the patterns of a stage find in what its commands print."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Protocol

from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.workflows.names import RESERVED, is_variable

MAX_PATTERN = 1000
MAX_MEMORY = 1024 * 1024
"""Bytes of a compiled pattern: what needs more, such as `(x{500}){500}`, is refused."""

MAX_LINES = 200_000
MAX_LINE = 64 * 1024
MAX_VALUE = 8 * 1024

_GROUP = re.compile(r"(?<!\\)(?:\\\\)*\(\?P?<([A-Za-z_][A-Za-z0-9_]*)>")


class _Match(Protocol):
    def groupdict(self) -> dict[str, str | None]: ...


class _Regex(Protocol):
    def search(self, text: str) -> _Match | None: ...


def names_in(patterns: Iterable[str]) -> frozenset[str]:
    """Return the variables that patterns may set."""
    return frozenset(found[1] for pattern in patterns for found in _GROUP.finditer(pattern))


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> _Regex:
    import re2

    options = re2.Options()
    options.max_mem = MAX_MEMORY
    options.log_errors = False
    try:
        regex: _Regex = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else "it is malformed"
        reason = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise InvalidError(
            f"the pattern {pattern[:200]!r} is refused: {reason}; patterns are RE2's, which know no look-around and no "
            "references back, and take time in proportion to the text"
        ) from error
    return regex


def check_pattern(pattern: str) -> None:
    """Refuse a pattern that cannot be used, or that sets what no stage may set."""
    names = names_in([pattern])
    if not names:
        raise InvalidError(f"the pattern {pattern[:200]!r} has no named group: write (?P<name>...)")
    for name in sorted(names):
        if name in RESERVED or not is_variable(name):
            raise InvalidError(
                f'the pattern {pattern[:200]!r} sets "{name}", which no stage may set: choose another name'
            )
    _compiled(pattern)


def outputs_of(patterns: Iterable[str], text: str) -> dict[str, str]:
    """Return the variables that the patterns find in the lines of a text: the last match of each counts.

    Of a text of very many lines the last are looked at, and of a very long line its beginning; so the time has a bound.
    """
    regexes = [_compiled(pattern) for pattern in patterns]
    found: dict[str, str] = {}
    for line in text.split("\n")[-MAX_LINES:] if regexes else ():
        for regex in regexes:
            match = regex.search(line[:MAX_LINE].rstrip("\r"))
            if match is not None:
                found.update(_values(match.groupdict()))
    return found


def _values(groups: Mapping[str, str | None]) -> dict[str, str]:
    """Return what named groups hold, as far as an environment can hold it."""
    return {name: value.replace("\0", "")[:MAX_VALUE] for name, value in groups.items() if value is not None}
