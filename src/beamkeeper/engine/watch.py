"""inotify below one directory: hints of what may have changed, and word of when hints were lost.

Hints only: a scan is what makes completeness true. The reader thread empties the kernel's queue at once into a
set, so that it stays short; names are bytes throughout.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from inotify_simple import Event, INotify, flags

from beamkeeper.config.failpoints import FailPoint, hit
from beamkeeper.domain.acquisition import CANARY_PREFIX, TEMPORARY_NAMES
from beamkeeper.engine.finish import Hints

MASK = (
    flags.CREATE
    | flags.MOVED_TO
    | flags.MOVED_FROM
    | flags.CLOSE_WRITE
    | flags.MODIFY
    | flags.DELETE
    | flags.DELETE_SELF
    | flags.MOVE_SELF
    | flags.ONLYDIR
    | flags.DONT_FOLLOW
    | flags.EXCL_UNLINK
)
MAX_HINTS = 50_000
"""Beyond this many names, hints are given up for a full scan: memory stays bounded whatever happens."""

CANARY = CANARY_PREFIX.encode()
UNWATCHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG})
"""Why one directory may be without a watch: the scan that follows finds out, and says so."""

READ_MS = 500
"""How long the reader sleeps without events before it looks whether it should end."""


_TEMPORARY = re.compile("|".join(fnmatch.translate(pattern) for pattern in TEMPORARY_NAMES))


def is_temporary(name: bytes) -> bool:
    """Whether a name is one that writers use until a file is whole."""
    return _TEMPORARY.match(name.decode("utf-8", "surrogateescape")) is not None


@dataclass(slots=True)
class News:
    """What the watch has to tell since it was last asked."""

    files: dict[bytes, Hints] = field(default_factory=dict)
    directories: set[bytes] = field(default_factory=set)
    is_dirty: bool = False
    """Hints were lost, or may have been: a full scan has to follow."""
    is_overflow: bool = False
    """The kernel's queue ran over: a full scan has to follow."""


class Watch:
    """One inotify instance for a directory and all below it; `canary` is the beginning of its canary's names."""

    def __init__(
        self, root: bytes, wake: Callable[[], None], *, canary: bytes = CANARY, max_hints: int = MAX_HINTS
    ) -> None:
        self.root = root
        self.limit_reached = False
        self.overflows = 0
        self.canary_heard_at = 0.0
        """When the kernel last told of the canary (monotonic)."""
        self.fault = ""
        """Why the reader has ended by itself."""
        self._canary = canary
        self._max_hints = max_hints
        self._wake = wake
        self._inotify = INotify(closefd=False)
        self._lock = threading.Lock()
        self._news = News()
        self._path_of: dict[int, bytes] = {}
        self._watch_of: dict[bytes, int] = {}
        self._moved_from: dict[int, bytes] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._read, name="inotify", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether hints still arrive, as far as the thread shows."""
        return self._thread.is_alive()

    def add(self, directory: bytes) -> None:
        """Watch one directory (relative to the root, empty for itself). To be called before it is scanned."""
        with self._lock:
            self._add(directory)

    def _add(self, directory: bytes) -> None:
        path = os.path.join(self.root, directory) if directory else self.root
        try:
            number = self._inotify.add_watch(path, MASK)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.ENOMEM):
                self.limit_reached = True
            elif error.errno not in UNWATCHED:
                raise
            return
        self._path_of[number] = directory
        self._watch_of[directory] = number

    def take(self) -> News:
        """Return the news, and begin anew."""
        with self._lock:
            news, self._news = self._news, News()
        return news

    def close(self) -> None:
        """End the thread and all watches."""
        self._stopping.set()
        self._thread.join(timeout=2 * READ_MS / 1000)
        with suppress(OSError):
            # Whoever closed our descriptor may have had its number given to another file since.
            if os.readlink(f"/proc/self/fd/{self._inotify.fileno()}") == "anon_inode:inotify":
                os.close(self._inotify.fileno())

    def _read(self) -> None:
        try:
            while not self._stopping.is_set():
                hit(FailPoint.WATCH_READING)
                events = self._inotify.read(timeout=READ_MS, read_delay=2)
                if events:
                    with self._lock:
                        for event in events:
                            self._take_in(event)
                    self._wake()
        except Exception as error:
            # Told by `is_alive`: whoever looks after the watch starts another.
            self.fault = str(error) or type(error).__name__
            self._wake()

    def _take_in(self, event: Event) -> None:
        mask = event.mask
        if mask & flags.Q_OVERFLOW:
            self.overflows += 1
            self._news.is_dirty = self._news.is_overflow = True
            return
        directory = self._path_of.get(event.wd)
        if directory is None:
            self._news.is_dirty = self._news.is_dirty or not mask & flags.IGNORED
            return
        if mask & (flags.DELETE_SELF | flags.MOVE_SELF | flags.UNMOUNT | flags.IGNORED):
            self._lose(event.wd, directory, is_root=directory == b"" and not mask & flags.IGNORED)
            return
        name = os.fsencode(event.name)
        if name.startswith(CANARY):
            if name.startswith(self._canary):
                self.canary_heard_at = time.monotonic()
            return
        if len(self._news.files) + len(self._news.directories) >= self._max_hints:
            self._news = News(is_dirty=True, is_overflow=self._news.is_overflow)
        path = directory + b"/" + name if directory else name
        if mask & flags.ISDIR:
            self._directory(mask, path)
        else:
            self._file(event, path, name)

    def _directory(self, mask: int, path: bytes) -> None:
        if mask & flags.MOVED_FROM:
            self._forget_below(path)
        elif mask & (flags.CREATE | flags.MOVED_TO):
            # At once, before it is scanned: of what is written meanwhile no rename and no closing would be heard.
            self._add(path)
            self._news.directories.add(path)

    def _file(self, event: Event, path: bytes, name: bytes) -> None:
        before = self._news.files.get(path, Hints())
        if event.mask & flags.MOVED_FROM:
            if len(self._moved_from) > 1000:
                self._moved_from.clear()
            self._moved_from[event.cookie] = name
            self._news.files[path] = before
        elif event.mask & flags.MOVED_TO:
            old = self._moved_from.pop(event.cookie, None)
            self._news.files[path] = Hints(is_renamed_in=old is not None and is_temporary(old))
        elif event.mask & flags.CLOSE_WRITE:
            self._news.files[path] = replace(before, is_closed=True)
        elif event.mask & (flags.MODIFY | flags.CREATE):
            self._news.files[path] = Hints()
        else:
            self._news.files[path] = before

    def _lose(self, number: int, directory: bytes, *, is_root: bool) -> None:
        self._path_of.pop(number, None)
        if self._watch_of.get(directory) == number:
            del self._watch_of[directory]
        if is_root:
            self._news.is_dirty = True

    def _forget_below(self, directory: bytes) -> None:
        """Drop the watches of a directory that got another name: their paths are no longer true."""
        prefix = directory + b"/"
        for path in [p for p in self._watch_of if p == directory or p.startswith(prefix)]:
            number = self._watch_of.pop(path)
            self._path_of.pop(number, None)
            try:
                self._inotify.rm_watch(number)
            except OSError:
                continue  # gone with its directory
