"""Somebody who listens to the events of a service, for tests."""

from __future__ import annotations

import json
import threading
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any
from uuid import UUID

import httpx2

OPEN_S = 10.0


class Listener:
    """Reads the stream of a service in a thread of its own, until it is ended there."""

    def __init__(
        self, url: str, token: str, after: str | None = None, place: AbstractContextManager[None] | None = None
    ) -> None:
        self.events: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.is_open = threading.Event()
        self.is_over = threading.Event()
        self._url = url + "/api/v1/events"
        self._headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {token}"}
        if after:
            self._headers["Last-Event-ID"] = after
        self._place = place or nullcontext()
        threading.Thread(target=self._read, daemon=True).start()
        assert self.is_open.wait(OPEN_S), "the stream did not open"

    def heard(self, *, name: str, of: UUID) -> bool:
        """Whether there was an event of an experiment that tells of something of this name."""
        return any(event["data"].get("name") == name for event in self.events if event["experiment_uid"] == str(of))

    def _read(self) -> None:
        stream = httpx2.stream("GET", self._url, headers=self._headers, timeout=30, trust_env=False)
        with suppress(httpx2.TransportError), self._place, stream as response:  # a service that is killed says no more
            assert response.headers["content-type"].startswith("text/event-stream")
            for line in response.iter_lines():
                if line.startswith(": from"):
                    self.is_open.set()
                elif line.startswith("id: "):
                    self.ids.append(line[4:])
                elif line.startswith("data: "):
                    self.events.append(json.loads(line[6:]))
        self.is_over.set()
