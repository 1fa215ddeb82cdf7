"""Why somebody may, or may not, from the client's side."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote
from uuid import UUID

from beamkeeper.client.http import Http
from beamkeeper.domain.access import Access


class Accesses:
    """What people may do, and why."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def on_experiment(self, uid: UUID, username: str) -> Access:
        """Return what somebody may do on an experiment."""
        found: Access = self._http().get(f"/api/v1/experiments/{uid}/access/{quote(username, safe='')}", Access)
        return found

    def on_station(self, name: str, username: str) -> Access:
        """Return what somebody may do at a station."""
        path = f"/api/v1/stations/{quote(name, safe='')}/access/{quote(username, safe='')}"
        found: Access = self._http().get(path, Access)
        return found
