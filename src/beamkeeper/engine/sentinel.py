"""Sentinels: files by which a writer says that others are finished.

With the pattern `*.done`, the file `scan_1.done` speaks of `scan_1`, of `scan_1.*` beside it, and of everything
in the directory `scan_1`. A pattern without `*`, such as `FINISHED`, speaks of everything in its directory. A
sentinel never speaks of sentinels, and only of what is there when it is met.
"""

from __future__ import annotations


class Sentinels:
    """The sentinels that were met since they were last heeded."""

    def __init__(self, pattern: str | None) -> None:
        raw = None if pattern is None else pattern.encode("utf-8", "surrogateescape")
        self._before, self._star, self._after = (b"", b"", b"") if raw is None else raw.partition(b"*")
        self._is_used = raw is not None
        self._stems: set[tuple[bytes, bytes]] = set()
        self._directories: set[bytes] = set()

    def __bool__(self) -> bool:
        """Whether there is anything to heed."""
        return bool(self._stems or self._directories)

    def meet(self, path: bytes) -> None:
        """Take in a file that was met; most are no sentinels."""
        directory, _, name = path.rpartition(b"/")
        if not self._is_one(name):
            return
        if self._star:
            self._stems.add((directory, name[len(self._before) : len(name) - len(self._after)]))
        else:
            self._directories.add(directory)

    def add_directory(self, directory: bytes) -> None:
        """Speak of everything in a directory."""
        self._directories.add(directory)

    def covers(self, path: bytes) -> bool:
        """Whether one of them speaks of this path."""
        directory, _, name = path.rpartition(b"/")
        if self._is_one(name):
            return False
        if self._covers_name(directory, name):
            return True
        below = directory
        while below:
            above, _, part = below.rpartition(b"/")
            if below in self._directories or (above, part) in self._stems:
                return True
            below = above
        return b"" in self._directories

    def clear(self) -> None:
        """Forget them: they were heeded."""
        self._stems.clear()
        self._directories.clear()

    def _covers_name(self, directory: bytes, name: bytes) -> bool:
        stem = name
        while stem:
            if (directory, stem) in self._stems:
                return True
            stem = stem.rpartition(b".")[0]
        return False

    def _is_one(self, name: bytes) -> bool:
        if not self._is_used:
            return False
        if not self._star:
            return name == self._before
        is_long_enough = len(name) > len(self._before) + len(self._after)
        return is_long_enough and name.startswith(self._before) and name.endswith(self._after)
