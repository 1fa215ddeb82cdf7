"""Copies of files in several storage areas."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID

from uuid6 import uuid7

from beamkeeper.client.http import Http
from beamkeeper.domain.errors import UnavailableError
from beamkeeper.domain.replicas import (
    AreaReplicas,
    DueReplicas,
    ListedReplica,
    ListedReplicaPage,
    NewReplicaRequest,
    ReplicaAction,
    ReplicaListQuery,
    ReplicaRequest,
    ReplicaRequestQuery,
    RequestState,
    SettledReplicas,
    WantedReplicas,
)

PAGE = 500
WAIT_S = 2.0
PATIENCE_S = 60.0
"""So long a wait goes on while the service does not answer: it may be starting again."""


class Replicas:
    """What copies there are, and having them made, read again and dropped."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def list(self, experiment_uid: UUID, **which: Any) -> Iterator[ListedReplica]:
        """Yield copies in the order of paths; `which` are the fields of a ReplicaListQuery."""
        query = ReplicaListQuery(experiment_uid=experiment_uid, limit=PAGE, **which)
        while True:
            page: ListedReplicaPage = self._http().get("/api/v1/replicas", ListedReplicaPage, query=query)
            yield from page.items
            if page.next is None:
                return
            query = query.model_copy(update={"after": page.next})

    def by_area(self, experiment_uid: UUID, *, waiting_only: bool = False) -> Sequence[AreaReplicas]:
        """Return how the files of an experiment stand in each storage area."""
        path, query = f"/api/v1/experiments/{experiment_uid}/replicas", {"waiting": waiting_only}
        found: Sequence[AreaReplicas] = self._http().get(path, Sequence[AreaReplicas], query=query)
        return found

    def add(self, experiment_uid: UUID, storage_area: str, **which: Any) -> ReplicaRequest:
        """Have files copied to a storage area; `wait` waits for it."""
        return self.ask(ReplicaAction.ADD, experiment_uid, storage_area=storage_area, **which)

    def verify(self, experiment_uid: UUID, storage_area: str | None = None, **which: Any) -> ReplicaRequest:
        """Have copies read again: those in one storage area, or all."""
        return self.ask(ReplicaAction.VERIFY, experiment_uid, storage_area=storage_area, **which)

    def drop(self, experiment_uid: UUID, storage_area: str, **which: Any) -> ReplicaRequest:
        """Have copies removed from a storage area, but for those that are the last ones verified."""
        return self.ask(ReplicaAction.DROP, experiment_uid, storage_area=storage_area, **which)

    def ask(self, action: ReplicaAction, experiment_uid: UUID, **which: Any) -> ReplicaRequest:
        """Ask for it; `which` are the fields of a NewReplicaRequest."""
        uid = which.pop("uid", None) or UUID(bytes=uuid7().bytes)
        new = NewReplicaRequest(uid=uid, action=action, experiment_uid=experiment_uid, **which)
        asked: ReplicaRequest = self._http().call("POST", "/api/v1/replica-requests", ReplicaRequest, body=new)
        return asked

    def request(self, uid: UUID, wait_s: float = 0.0) -> ReplicaRequest:
        """Return how far a request is, waiting so long for its end."""
        path, query = f"/api/v1/replica-requests/{uid}", {"wait": wait_s}
        found: ReplicaRequest = self._http().get(path, ReplicaRequest, query=query, timeout_s=wait_s + 30)
        return found

    def requests(self, query: ReplicaRequestQuery | None = None) -> Sequence[ReplicaRequest]:
        """Return what was asked for, newest first."""
        query = query or ReplicaRequestQuery()
        path = "/api/v1/replica-requests"
        found: Sequence[ReplicaRequest] = self._http().get(path, Sequence[ReplicaRequest], query=query)
        return found

    def stop(self, uid: UUID) -> ReplicaRequest:
        """End a request: what is under way is finished, the rest is not begun."""
        stopped: ReplicaRequest = self._http().call("POST", f"/api/v1/replica-requests/{uid}:stop", ReplicaRequest)
        return stopped

    def wait(
        self,
        uid: UUID,
        on_change: Callable[[ReplicaRequest], None] | None = None,
        *,
        timeout_s: float = float("inf"),
    ) -> ReplicaRequest:
        """Return a request when it has ended, or as it is after `timeout_s`; goes on while the service starts again."""
        ends = time.monotonic() + timeout_s
        seen: ReplicaRequest | None = None
        while True:
            found = self._patiently(uid)
            if found != seen and on_change is not None:
                on_change(found)
            seen = found
            if found.state is not RequestState.RUNNING or time.monotonic() > ends:
                return found

    def _patiently(self, uid: UUID) -> ReplicaRequest:
        patience_ends = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.request(uid, WAIT_S)
            except UnavailableError:
                if time.monotonic() > patience_ends:
                    raise
                time.sleep(WAIT_S)

    # For services.

    def want(self, wanted: WantedReplicas) -> int:
        """Have versions in further storage areas, and return how many copies are to be made."""
        count: int = self._http().call("POST", "/api/v1/replicas:want", int, body=wanted)
        return count

    def areas_due(self) -> Sequence[UUID]:
        """Return the storage areas in which something is to be done."""
        found: Sequence[UUID] = self._http().get("/api/v1/replicas/due", Sequence[UUID])
        return found

    def due(self, storage_area_uid: UUID) -> DueReplicas | None:
        """Return the batch to be seen to in a storage area; the same one until it is settled."""
        query = {"storage_area_uid": str(storage_area_uid)}
        found: DueReplicas | None = self._http().call("POST", "/api/v1/replicas:due", DueReplicas | None, query=query)
        return found

    def settle(self, settled: SettledReplicas) -> Sequence[UUID]:
        """Say what became of a batch, and return the replicas for which it counts."""
        counted: Sequence[UUID] = self._http().call("POST", "/api/v1/replicas:settle", Sequence[UUID], body=settled)
        return counted
