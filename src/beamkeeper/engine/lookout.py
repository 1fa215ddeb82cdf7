"""The lookout over one directory: a watch that is proven alive by a canary, and replaced when it is not."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from uuid import UUID

from beamkeeper.engine.canary import Canary
from beamkeeper.engine.watch import News, Watch

PATIENCE_S = 5.0
"""So long the kernel may take to tell of a canary, before the watch counts as dead."""


class Lookout:
    """Keeps a watch over a directory. What it tells is hints; `is_trusted` says whether they can be relied on.

    `canary_s` is the time between canaries; 0 sends none, and then the watch is not trusted.
    """

    def __init__(
        self,
        root: bytes,
        uid: UUID,
        wake: Callable[[], None],
        *,
        canary_s: float,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._root = root
        self._wake = wake
        self._canary = Canary(root, uid)
        self._canary_s = canary_s
        self._patience_s = patience_s
        self._watch: Watch | None = None
        self._next_canary = 0.0
        self._sent_at: float | None = None
        self._overflows_before = 0
        self.can_prove = False
        """Whether the last canary could be sent at all."""
        self._is_failing = False
        self._why = self._begin()

    @property
    def is_trusted(self) -> bool:
        """Whether the watch was proven alive, as far as there was time to."""
        return self._watch is not None and self.can_prove and not self._is_failing and not self._watch.limit_reached

    @property
    def fault(self) -> str:
        """What is wrong with the watch; empty where nothing is known to be."""
        if self._watch is None:
            return self._why
        if self._watch.limit_reached:
            return "the kernel's limit of watches is reached (fs.inotify.max_user_watches)"
        return "the watch stopped telling of changes, and was started anew" if self._is_failing else ""

    @property
    def doubt(self) -> str:
        """Why the watch is not trusted; empty where it is."""
        if self.fault:
            return self.fault
        if self._canary_s <= 0:
            return "canaries are switched off (acquisition.canary_s), so that nothing proves its watch alive"
        return "" if self.can_prove else "nothing may be written there, so that nothing proves its watch alive"

    def add(self, directory: bytes) -> None:
        """Watch one directory; to be called before it is scanned."""
        if self._watch is not None:
            self._watch.add(directory)

    def begin_scan(self) -> None:
        """Forget that a limit was reached: a full scan tries every directory again."""
        if self._watch is not None:
            self._watch.limit_reached = False

    def take(self) -> News:
        """Return what the watch has to tell."""
        return self._watch.take() if self._watch is not None else News()

    def check(self) -> str:
        """Look whether the watch is alive, and start another where it is not; returns why it had to. Scan then."""
        now = time.monotonic()
        watch = self._watch
        if watch is not None and not watch.is_alive:
            return self._restart(f"the reader of the watch has ended ({watch.fault or 'nobody knows why'})")
        if watch is not None and self._sent_at is not None:
            if watch.canary_heard_at >= self._sent_at:
                self._sent_at, self._is_failing = None, False
            elif now - self._sent_at > self._patience_s:
                return self._unheard(watch)
        if now >= self._next_canary and self._sent_at is None:
            if watch is None:
                return self._restart(self._why)
            self._send(watch, now)
        return ""

    def close(self) -> None:
        """End the watch, and leave nothing behind."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _unheard(self, watch: Watch) -> str:
        if watch.overflows != self._overflows_before:
            self._next_canary, self._sent_at = 0.0, None  # it was lost with many others, which says nothing
            return ""
        self._is_failing = True
        return self._restart(f"the watch told nothing of a canary file for {self._patience_s:g} s")

    def _restart(self, why: str) -> str:
        had_watch = self._watch is not None
        self.close()
        self._why = self._begin()
        return why if had_watch or self._watch is not None else ""

    def _begin(self) -> str:
        """Start a watch; returns why there is none."""
        self._sent_at = None
        now = time.monotonic()
        try:
            watch = self._watch = Watch(self._root, self._wake, canary=self._canary.name)
            watch.add(b"")
        except OSError as error:
            self.close()
            self._next_canary = now + (self._canary_s or 60.0)
            if error.errno == errno.EMFILE:
                return "the kernel's limit of inotify instances is reached (fs.inotify.max_user_instances)"
            return f"the kernel gives no watch ({os.strerror(error.errno or 0).lower()})"
        self._send(watch, now)
        return ""

    def _send(self, watch: Watch, now: float) -> None:
        self._next_canary = now + self._canary_s if self._canary_s > 0 else float("inf")
        self._overflows_before = watch.overflows
        self.can_prove = self._canary_s > 0 and self._canary.send()
        self._sent_at = now if self.can_prove else None
