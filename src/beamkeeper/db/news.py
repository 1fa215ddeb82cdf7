"""News of a database: whoever waits for some is woken by those who commit, and told nothing more than that.

Most news is of one matter, and each file brings several: a loop that looked at its tables at all of it would look for
nothing most of the time, and that is what a file costs (see the explanation of where the time goes).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from enum import StrEnum, auto

OTHERS_S = 2.0
"""So often those who wait look by themselves: another process may have committed."""


class Topic(StrEnum):
    """A matter of which there is so much news, or of which so few want to hear, that it is told by name."""

    EVENTS = auto()
    """The feed has more; told with every other topic of a commit that wrote an event."""
    FILES = auto()
    """Files were registered."""
    AVAILABLE = auto()
    """Files that were on their way are available."""
    PICTURES = auto()
    """Small pictures of such are wanted."""
    WANTED_JOBS = auto()
    """Jobs may be wanted for such."""
    ORDERS = auto()
    """What people and writers ask of a DAQ or upload that runs."""
    PUBLISHES = auto()
    """Batches are to be published."""
    PUBLISHED = auto()
    """Batches are published, or have to wait."""
    TASKS = auto()
    """Checks, listings and discards."""
    COPIES = auto()
    REPLICAS = auto()
    """What is asked for replicas."""
    RUN_RULES = auto()
    WALKS = auto()
    """Walks through the rights of files."""
    GROUPS = auto()
    SYNCS = auto()
    WIPES = auto()
    INSPECTIONS = auto()
    """Scrubs and audits."""


class News:
    """Wakes those who wait for news."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Collection[Topic]], None]] = []
        self._told = threading.Condition()
        self._count = 0

    def tell(self, *about: Topic) -> None:
        """Wake those who wait for news of these topics; without any, everybody."""
        with self._told:
            self._count += 1
            self._told.notify_all()
        for listener in list(self._listeners):
            listener(about)

    def listen(self, listener: Callable[[], None], *about: Topic) -> Callable[[], None]:
        """Call `listener` at all news, or at that of some topics and that which names none; returns what ends that.

        It is called after the commit, in the committing thread.
        """
        wanted = frozenset(about)

        def hear(told: Collection[Topic]) -> None:
            if not wanted or not told or not wanted.isdisjoint(told):
                listener()

        return self.hear(hear)

    def hear(self, listener: Callable[[Collection[Topic]], None]) -> Callable[[], None]:
        """Call `listener` with what all news is about: nothing, where it may be about anything."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def wait(self, is_there: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `is_there()` answers true, looking again after all news and each OTHERS_S."""
        deadline = time.monotonic() + timeout_s
        seen = self._count
        while not is_there():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with self._told:
                if self._count == seen:
                    self._told.wait(min(left, OTHERS_S))
                seen = self._count
        return True
