"""Storage areas, publishing of staged batches, and looking at what is stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote
from uuid import UUID

from uuid6 import uuid7

from beamkeeper.client.http import Http
from beamkeeper.domain.errors import UnavailableError
from beamkeeper.domain.replicas import Copy, NewCopy
from beamkeeper.domain.storage import (
    AreaCheck,
    Check,
    CheckMode,
    Discard,
    Listing,
    NewCheck,
    NewDiscard,
    NewListing,
    NewPublish,
    NewStorageArea,
    ProbeSent,
    Publish,
    StorageArea,
    StorageProbe,
    TaskState,
)

CHECK_TIMEOUT_S = 60.0
"""A disk that must first wake up, or a network mount that hangs, may take its time."""

PROBE_TIMEOUT_S = 120.0
"""A transport that fails tries again by itself before it says so."""

WAIT_S = 10.0
SHORTEST_SILENCE_S = 10.0
"""How long one question stays open; then it is asked again."""

AnswerT = TypeVar("AnswerT", Check, Listing)


class StorageAreas:
    """Places that hold files."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def list(self) -> Sequence[StorageArea]:
        """Return every storage area."""
        found: Sequence[StorageArea] = self._http().get("/api/v1/storage-areas", Sequence[StorageArea])
        return found

    def add(self, new: NewStorageArea) -> StorageArea:
        """Add a storage area."""
        added: StorageArea = self._http().call("POST", "/api/v1/storage-areas", StorageArea, body=new)
        return added

    def check(self, name: str) -> AreaCheck:
        """Return what writing, reading back and removing a probe file showed."""
        path = f"/api/v1/storage-areas/{quote(name, safe='')}/check"
        shown: AreaCheck = self._http().call("POST", path, AreaCheck, timeout_s=CHECK_TIMEOUT_S)
        return shown

    def read_probe(self, name: str, probe: StorageProbe) -> AreaCheck:
        """Have the storage read back and remove what a station has sent."""
        path = f"/api/v1/storage-areas/{quote(name, safe='')}/probe"
        shown: AreaCheck = self._http().call("POST", path, AreaCheck, body=probe, timeout_s=CHECK_TIMEOUT_S)
        return shown


class Probes:
    """Probes that the station sends to storage areas, by the transport that its files take."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def send(self, name: str) -> ProbeSent:
        """Have the station send one."""
        path = f"/api/v1/storage-areas/{quote(name, safe='')}/probe"
        sent: ProbeSent = self._http().call("POST", path, ProbeSent, timeout_s=PROBE_TIMEOUT_S)
        return sent


class Publishes:
    """Batches on their way to their plain names."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def request(self, new: NewPublish) -> Publish:
        """Ask for a batch to be published; the same uid again gives the same publish."""
        asked: Publish = self._http().call("POST", "/api/v1/publishes", Publish, body=new)
        return asked

    def get(self, uid: UUID, wait_s: float = 0.0) -> Publish:
        """Return what became of a batch, waiting so long for its end."""
        found: Publish = self._http().get(
            f"/api/v1/publishes/{uid}", Publish, query={"wait": wait_s}, timeout_s=wait_s + 30
        )
        return found


class Checks:
    """Looks at stored files, for services."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def request(self, new: NewCheck) -> Check:
        """Ask for stored files to be looked at; the same uid again gives the same check."""
        asked: Check = self._http().call("POST", "/api/v1/checks", Check, body=new)
        return asked

    def get(self, uid: UUID, wait_s: float = 0.0) -> Check:
        """Return what was found, waiting so long for it."""
        http = self._http()
        timeout_s = wait_s + http.timeout_s
        found: Check = http.get(f"/api/v1/checks/{uid}", Check, query={"wait": wait_s}, timeout_s=timeout_s)
        return found

    def run(
        self,
        new: NewCheck,
        *,
        patience_s: float,
        stop: Callable[[], bool] = lambda: False,
        silence_s: float | None = None,
    ) -> Check:
        """Ask, and return what was found.

        UnavailableError where the storage says for longer than `patience_s` that it cannot look, or says nothing for
        longer than `silence_s` (as long, and not less than 10 s), or on `stop`. Files may take long to be read: it is
        the storage that hangs where they cannot even be found meanwhile.
        """
        longest_s = max(patience_s, SHORTEST_SILENCE_S) if silence_s is None else silence_s

        def is_alive() -> bool:
            if new.mode is CheckMode.STAT:
                return False
            uid = UUID(bytes=uuid7().bytes)
            found = new.model_copy(update={"uid": uid, "mode": CheckMode.STAT})
            self.run(found, patience_s=patience_s, stop=stop, silence_s=longest_s)
            return True

        asked = self.request(new)
        alive = _Alive(longest_s, is_alive)
        return _awaited(asked, lambda wait_s: self.get(new.uid, wait_s), patience_s=patience_s, stop=stop, alive=alive)


class Copies:
    """Copies between storage areas, for services."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def request(self, new: NewCopy) -> Copy:
        """Ask for versions to be copied or removed; the same uid again gives the same copy."""
        asked: Copy = self._http().call("POST", "/api/v1/copies", Copy, body=new)
        return asked

    def get(self, uid: UUID, wait_s: float = 0.0) -> Copy:
        """Return what became of a copy, waiting so long for its end."""
        found: Copy = self._http().get(f"/api/v1/copies/{uid}", Copy, query={"wait": wait_s}, timeout_s=wait_s + 30)
        return found


class Discards:
    """Staging directories that nobody will publish, for services."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def run(self, new: NewDiscard, wait_s: float = WAIT_S) -> Discard:
        """Ask for one to be removed, and wait so long until it is."""
        self._http().call("POST", "/api/v1/discards", Discard, body=new)
        found: Discard = self._http().get(
            f"/api/v1/discards/{new.uid}", Discard, query={"wait": wait_s}, timeout_s=wait_s + 30
        )
        return found


class Listings:
    """Pages of the plain names that stand in an experiment's `data`, for services."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def request(self, new: NewListing) -> Listing:
        """Ask for a page; the same uid again gives the same listing."""
        asked: Listing = self._http().call("POST", "/api/v1/listings", Listing, body=new)
        return asked

    def get(self, uid: UUID, wait_s: float = 0.0) -> Listing:
        """Return a page, waiting so long for it."""
        found: Listing = self._http().get(
            f"/api/v1/listings/{uid}", Listing, query={"wait": wait_s}, timeout_s=wait_s + 30
        )
        return found

    def run(self, new: NewListing, *, patience_s: float, stop: Callable[[], bool] = lambda: False) -> Listing:
        """Ask, and return the page; UnavailableError as for a check."""
        asked = self.request(new)
        return _awaited(asked, lambda wait_s: self.get(new.uid, wait_s), patience_s=patience_s, stop=stop)


@dataclass(frozen=True, slots=True)
class _Alive:
    """How to find out whether a storage that says nothing lives, and after how long."""

    longest_s: float
    ask: Callable[[], bool]


def _awaited(
    asked: AnswerT,
    get: Callable[[float], AnswerT],
    *,
    patience_s: float,
    stop: Callable[[], bool],
    alive: _Alive | None = None,
) -> AnswerT:
    """Return an answer once it is there. A long read is waited for; a storage that fails as a whole only so long."""
    found, fails_since, silent_since = asked, time.monotonic(), time.monotonic()
    while found.state is not TaskState.DONE:
        if stop():
            raise UnavailableError("the service stops; what it asked of the storage is asked again when it is up")
        if not found.message:
            fails_since = time.monotonic()
        elif time.monotonic() - fails_since >= patience_s:
            raise UnavailableError(f"the storage cannot look at its files: {found.message}")
        if alive is not None and time.monotonic() - silent_since >= alive.longest_s:
            if not alive.ask():
                raise UnavailableError(f"the storage has not found its files within {alive.longest_s:g} s: it may hang")
            silent_since = time.monotonic()
        found = get(min(WAIT_S, patience_s, alive.longest_s if alive else WAIT_S))
    return found
