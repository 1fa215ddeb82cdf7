"""What was seen for an experiment and is not delivered, by directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import UUID

from beamkeeper.client.http import Http
from beamkeeper.domain.ledger import DirectoryTally, DirectoryTallyPage


class Arrivals:
    """Counts of a station's journal for a whole experiment."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def directories(self, experiment_uid: UUID) -> Iterator[DirectoryTally]:
        """Yield counts of what is not delivered, by directory; a directory may come more than once."""
        after: str | None = None
        while True:
            path = f"/api/v1/experiments/{experiment_uid}/directories"
            page: DirectoryTallyPage = self._http().get(path, DirectoryTallyPage, query={"after": after})
            yield from page.items
            if (after := page.next) is None:
                return
