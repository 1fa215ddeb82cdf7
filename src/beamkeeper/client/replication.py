"""The site's catalogue, for a station's services: where it stands, and what it is told next."""

from __future__ import annotations

from collections.abc import Callable

from beamkeeper.client.http import Http
from beamkeeper.domain.replication import NewChanges, Positions, Taken


class Replication:
    """What a catalogue takes over from a station's."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def positions(self) -> Positions:
        """Return how far this station's documents have come."""
        found: Positions = self._http().get("/api/v1/replication", Positions)
        return found

    def send(self, changes: NewChanges) -> Taken:
        """Send documents; ConflictError where the position is another, such as after a lost answer."""
        taken: Taken = self._http().call("POST", "/api/v1/replication/changes", Taken, body=changes)
        return taken
