"""Things that wait for somebody to come back for them, once: logins at an identity provider, and ways in."""

from __future__ import annotations

import secrets
import threading
import time
from typing import Generic, TypeVar

from beamkeeper.domain.errors import TooManyAttemptsError

ThingT = TypeVar("ThingT")

WAITS_S = 600
MOST_WAITING = 1000
MOST_OF_ONE = 30
"""So much waits of one source: who begins logins without an end keeps only themselves out."""


class Waiting(Generic[ThingT]):
    """What waits, by names that nobody guesses; not for long, and not without end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._things: dict[str, tuple[float, ThingT, str]] = {}

    def keep(self, thing: ThingT, source: str) -> str:
        """Have something of a source wait, and return the name that it is taken by."""
        name = secrets.token_urlsafe(32)
        now = time.monotonic()
        with self._lock:
            self._things = {key: kept for key, kept in self._things.items() if kept[0] > now}
            self._check_room(source)
            self._things[name] = (now + WAITS_S, thing, source)
        return name

    def check_room(self, source: str) -> None:
        """Refuse a source of which too much waits already."""
        with self._lock:
            self._check_room(source)

    def _check_room(self, source: str) -> None:
        now = time.monotonic()
        own = sum(kept[2] == source and kept[0] > now for kept in self._things.values())
        if own >= MOST_OF_ONE or len(self._things) >= MOST_WAITING:
            whose = "from here" if own >= MOST_OF_ONE else "in all"
            raise TooManyAttemptsError(f"too many logins have begun {whose} and not ended: try again in some minutes")

    def see(self, name: str) -> ThingT | None:
        """Return what waits under a name, and let it wait on; None where nothing does."""
        until, thing, _ = self._things.get(name, (0.0, None, ""))
        return thing if until > time.monotonic() else None

    def take(self, name: str) -> ThingT | None:
        """Return what waits under a name, to one who asks and to nobody after; None where nothing does."""
        with self._lock:
            until, thing, _ = self._things.pop(name, (0.0, None, ""))
        return thing if until > time.monotonic() else None
