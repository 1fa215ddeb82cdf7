"""Globs on paths: `*` any characters, `?` one."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence

Pattern = re.Pattern[str]


def compiled(patterns: Sequence[str]) -> Pattern | None:
    """Return patterns as one; None where there are none."""
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns)) if patterns else None


def matches(pattern: Pattern | None, path: bytes) -> bool:
    """Whether a path below a directory, or its last name alone, is as a pattern says."""
    if pattern is None:
        return False
    text = path.decode("utf-8", "surrogateescape")
    return bool(pattern.match(text) or pattern.match(text.rpartition("/")[2]))


def matcher(patterns: Sequence[str]) -> Callable[[bytes], bool]:
    """Return what tells whether one of these patterns matches a path."""
    pattern = compiled(patterns)
    return lambda path: matches(pattern, path)
