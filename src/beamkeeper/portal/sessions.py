"""Who is logged in at the portal: the browser holds an opaque id, and the token stays here."""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from beamkeeper.domain.users import Session

SEEN_S = 60.0
"""That a session is used is written so often at most."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A session of the API on behalf of one browser."""

    username: str
    token: str
    form_token: str
    expires_at: float
    is_borrowed: bool = False
    """It is of a shell, where it goes on when the browser logs out."""
    seen_at: float = math.inf
    """When its browser was last heard of, to within SEEN_S."""


class Sessions:
    """The sessions of all browsers, in a file that only its owner may read: they outlive a restart.

    They are found by the hash of the id: who reads the file can be no browser.
    """

    def __init__(self, path: Path, *, idle_s: float, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._idle_s = idle_s
        self._clock = clock
        self._lock = threading.Lock()
        self._kept = _read(path)

    def begin(self, session: Session, token: str, *, is_borrowed: bool = False) -> str:
        """Keep a session and return the id that the browser gets."""
        name = secrets.token_urlsafe(32)
        expires_at = session.expires_at.timestamp()
        kept = Kept(session.username, token, secrets.token_urlsafe(24), expires_at, is_borrowed, self._clock())
        with self._lock:
            self._kept = {key: old for key, old in self._kept.items() if not self._is_over(old)} | {_hash(name): kept}
            self._write()
        return name

    def find(self, name: str, *, is_use: bool = True) -> Kept | None:
        """Return the session of an id; None where it has ended, or never was.

        A page that draws itself anew is no use: nobody need be before it.
        """
        key = _hash(name)
        kept = self._kept.get(key)
        if kept is None or self._is_over(kept):
            return None
        if is_use and self._clock() - kept.seen_at > SEEN_S:
            with self._lock:
                if key in self._kept:
                    self._kept[key] = replace(kept, seen_at=self._clock())
                    self._write()
        return kept

    def _is_over(self, kept: Kept) -> bool:
        """Whether the session of the API has ended by itself, or nobody has used it for too long."""
        now = self._clock()
        return kept.expires_at <= now or now - kept.seen_at > self._idle_s

    def end(self, name: str) -> None:
        """Forget a session."""
        with self._lock:
            if self._kept.pop(_hash(name), None) is not None:
                self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({key: asdict(kept) for key, kept in self._kept.items()}, file)
        new.replace(self._path)


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _read(path: Path) -> dict[str, Kept]:
    """Return what was kept; nothing where it cannot be read: people log in again."""
    try:
        return {key: Kept(**kept) for key, kept in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
