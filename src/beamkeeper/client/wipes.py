"""Wipes of directories at the source, and holds that forbid them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from uuid import UUID

from uuid6 import uuid7

from beamkeeper.client.http import Http
from beamkeeper.domain.errors import UnavailableError
from beamkeeper.domain.names import Uid
from beamkeeper.domain.wipes import (
    ACTIVE_WIPES,
    EntryState,
    Hold,
    NewHold,
    NewWipe,
    Verdict,
    Wipe,
    WipeEntry,
    WipeEntryPage,
    WipeEntryQuery,
    WipePage,
    WipeQuery,
    WipeRun,
)

PAGE = 500
WAIT_S = 2.0
"""How long one question stays open: so often at least `on_change` hears how far it is."""

PATIENCE_S = 60.0
"""So long a wait goes on while the service does not answer: it may be starting again."""


class Wipes:
    """Whether directories may be wiped, and wiping them."""

    path = "/api/v1/wipes"

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def plan(self, new: NewWipe) -> Wipe:
        """Ask for a plan; `wait` waits for it."""
        named = new if new.uid is not None else new.model_copy(update={"uid": UUID(bytes=uuid7().bytes)})
        asked: Wipe = self._http().call("POST", self.path, Wipe, body=named)
        return asked

    def run(self, plan: Wipe, *, remove_directories: bool = False) -> Wipe:
        """Ask for a plan to be carried out, as it is known here; `wait` waits for it."""
        body = WipeRun(expected_files=plan.proven_files, remove_directories=remove_directories)
        asked: Wipe = self._http().call("POST", f"{self.path}/{plan.uid}:run", Wipe, body=body)
        return asked

    def verdict(self) -> Verdict:
        """Return whether all that was taken lately may be wiped, as far as is known; for staff and services."""
        found: Verdict = self._http().call("POST", f"{self.path}:verdict", Verdict)
        return found

    def get(self, uid: Uid, wait_s: float = 0.0) -> Wipe:
        """Return a plan and what became of it, waiting so long for the engine."""
        found: Wipe = self._http().get(f"{self.path}/{uid}", Wipe, query={"wait": wait_s}, timeout_s=wait_s + 30)
        return found

    def wait(self, uid: Uid, on_change: Callable[[Wipe], None] | None = None) -> Wipe:
        """Return a wipe when the engine has done what it was asked for; goes on while the service starts again."""
        seen: Wipe | None = None
        while True:
            found = self._get_patiently(uid)
            if found != seen and on_change is not None:
                on_change(found)
            seen = found
            if found.state not in ACTIVE_WIPES:
                return found

    def _get_patiently(self, uid: Uid) -> Wipe:
        patience_ends = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.get(uid, WAIT_S)
            except UnavailableError:
                if time.monotonic() > patience_ends:
                    raise
                time.sleep(WAIT_S)

    def list(self) -> Iterator[Wipe]:
        """Yield plans and runs, newest first."""
        after: str | None = None
        while True:
            page: WipePage = self._http().get(self.path, WipePage, query=WipeQuery(after=after, limit=PAGE))
            yield from page.items
            if (after := page.next) is None:
                return

    def entries(self, uid: Uid, state: EntryState | None = None, reason: str | None = None) -> Iterator[WipeEntry]:
        """Yield the entries of a directory: what is proven, what is not and why, what was deleted."""
        after: str | None = None
        while True:
            query = WipeEntryQuery(state=state, reason=reason, after=after, limit=PAGE)
            page: WipeEntryPage = self._http().get(f"{self.path}/{uid}/entries", WipeEntryPage, query=query)
            yield from page.items
            if (after := page.next) is None:
                return


class Holds:
    """Paths at the source at or below which nothing is wiped."""

    path = "/api/v1/holds"

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def add(self, new: NewHold) -> Hold:
        """Hold a path."""
        named = new if new.uid is not None else new.model_copy(update={"uid": UUID(bytes=uuid7().bytes)})
        added: Hold = self._http().call("POST", self.path, Hold, body=named)
        return added

    def list(self) -> Sequence[Hold]:
        """Return what is held: one's own, and for managers of the station all."""
        found: Sequence[Hold] = self._http().get(self.path, Sequence[Hold])
        return found

    def remove(self, uid: Uid) -> None:
        """Remove a hold."""
        self._http().call("DELETE", f"{self.path}/{uid}")
