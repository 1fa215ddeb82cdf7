"""How many files a search looks at next, by what came of those that it has looked at."""

from __future__ import annotations

import math

WINDOW = 5_000
"""So many files at the most are read at once."""
WALK = 20_000
"""So many are looked up in the index at once, where it drops most of them."""
LEAST = 32
"""So many files at least are looked at next: fewer take as long."""
DROPPED = 10
"""To look up so many files in the index takes about as long as to read one."""


class Pace:
    """The pace of one page."""

    def __init__(self, limit: int, *, is_every: bool) -> None:
        """Begin a page of so many files, or where every file is meant."""
        self._wanted = limit + 1
        # Most of the files that an index gives are meant.
        self._first = min(self._wanted if is_every else limit + limit // 4 + 1, WINDOW)
        self._most_at_once = WINDOW
        self.size = self.most = self._first
        self.searched = 0
        self.passed = 0

    def begin(self, at_once: int, most: int) -> None:
        """Begin to go some way, which gives so many files at once without more work, and is asked for so many."""
        self.size, self._most_at_once = max(self._first, at_once), most
        self.most = self._first

    def take(self, seen: int, passed: int, found: int, *, is_cut: bool) -> None:
        """Take note of how many files were looked at, how many passed, and how many are meant of all so far."""
        self.searched, self.passed = self.searched + seen, self.passed + passed
        left = self._wanted - found
        if not is_cut:
            self.size = _next(self.size, left, found / max(1, self.searched), self._most_at_once)
        self.most = _next(self.most, left, found / max(1, self.passed), WINDOW)

    @property
    def spent(self) -> float:
        """How many files could have been read in the same time."""
        return self.passed + (self.searched - self.passed) / DROPPED


def _next(size: int, left: int, share: float, most: int) -> int:
    """Return how many files come next, where this share of those before was meant and so many are wanted yet."""
    likely = max(LEAST, math.ceil(1.25 * left / share)) if share else math.inf
    return int(min(likely, 4 * size, most))
