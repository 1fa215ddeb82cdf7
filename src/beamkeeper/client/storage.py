"""Storage areas, and publishing of staged batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import quote
from uuid import UUID

from beamkeeper.client.http import Http
from beamkeeper.domain.storage import AreaCheck, NewPublish, NewStorageArea, Publish, StorageArea

CHECK_TIMEOUT_S = 60.0
"""A disk that must first wake up, or a network mount that hangs, may take its time."""


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
