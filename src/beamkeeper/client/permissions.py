"""Walks through the rights of files."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID, uuid4

from beamkeeper.client.http import Http
from beamkeeper.domain.permissions import ACTIVE_WALKS, RATE, NewPermissionWalk, PermissionWalk, WalkMode

WAIT_S = 2.0
"""How long one question stays open: so often at least `on_change` hears how far it is."""


class Permissions:
    """Looking through the rights of an experiment's files, for managers of its station."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def start(self, experiment_uid: UUID, mode: WalkMode = WalkMode.CHECK, *, rate: int = RATE) -> PermissionWalk:
        """Ask for a walk; `wait` waits for its end."""
        new = NewPermissionWalk(uid=uuid4(), mode=mode, rate=rate)
        path = f"/api/v1/experiments/{experiment_uid}/permission-walks"
        asked: PermissionWalk = self._http().call("POST", path, PermissionWalk, body=new)
        return asked

    def get(self, uid: UUID, *, wait_s: float = 0.0) -> PermissionWalk:
        """Return a walk, waiting so long for its end."""
        query = {"wait": wait_s}
        path = f"/api/v1/permission-walks/{uid}"
        found: PermissionWalk = self._http().get(path, PermissionWalk, query=query, timeout_s=wait_s + 30)
        return found

    def stop(self, uid: UUID) -> PermissionWalk:
        """Ask for the end of a walk."""
        stopped: PermissionWalk = self._http().call("POST", f"/api/v1/permission-walks/{uid}:stop", PermissionWalk)
        return stopped

    def wait(self, uid: UUID, on_change: Callable[[PermissionWalk], None] | None = None) -> PermissionWalk:
        """Return a walk when it has ended."""
        seen: PermissionWalk | None = None
        while True:
            found = self.get(uid, wait_s=WAIT_S)
            if found != seen and on_change is not None:
                on_change(found)
            seen = found
            if found.state not in ACTIVE_WALKS:
                return found
