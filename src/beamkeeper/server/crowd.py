"""How many requests of one account are open at once: nobody may have all of a service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from threading import Lock

from beamkeeper.domain.errors import UnavailableError
from beamkeeper.domain.users import Caller

MOST = 64
"""Streams, long polls and downloads count; each job has as many of its own, and services have no limit."""


class Calls:
    """How many requests of a kind are being worked on: from where their bodies begin to come until they are answered.

    Entered and left in the event loop only; looked at from anywhere.
    """

    def __init__(self) -> None:
        self._open = 0

    @property
    def is_any(self) -> bool:
        """Whether there is one."""
        return self._open > 0

    def __enter__(self) -> None:
        self._open += 1

    def __exit__(self, *_: object) -> None:
        self._open -= 1


class Crowd:
    """Who has how many requests open."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._open: Counter[object] = Counter()
        self._lock = Lock()

    def __len__(self) -> int:
        """Return how many requests are open."""
        return self._open.total()

    def enter(self, caller: Caller) -> Callable[[], None]:
        """Count a request of somebody, and return what counts it no more; refuse one too many."""
        key = (caller.username, caller.job_uid)
        with self._lock:
            if self._open[key] >= self._most and not caller.is_service:
                raise UnavailableError(
                    f'"{caller.username}" has {self._most} requests open here: close some, or try again later'
                )
            self._open[key] += 1
        return partial(self._leave, key)

    def _leave(self, key: object) -> None:
        with self._lock:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]
