"""The feed of a service: what happened, read in order and from where one left off."""

from __future__ import annotations

from collections.abc import Iterator

from beamkeeper.client.http import Http
from beamkeeper.domain.events import Event, EventPage

WAIT_S = 30.0
"""How long one question of `follow` stays open while nothing happens."""


class EventFeed:
    """The feed of one service."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def after(self, cursor: str | None = None, wait_s: float = 0.0) -> EventPage:
        """Return events after a cursor, waiting so long for one; without a cursor, the end of the feed.

        Raises GoneError where the cursor is beyond what is kept: list again, and go on from its `next`.
        """
        page: EventPage = self._http.get(
            "/api/v1/events", EventPage, query={"after": cursor, "wait": wait_s}, timeout_s=wait_s + 30
        )
        return page

    def follow(self, cursor: str | None = None, *, wait_s: float = WAIT_S) -> Iterator[Event]:
        """Yield events as they happen, for ever; from now on, or after a cursor."""
        next_ = cursor or self.after().next
        while True:
            page = self.after(next_, wait_s)
            yield from page.items
            next_ = page.next
