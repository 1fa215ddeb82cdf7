"""The identities of the site, for the services that keep a small copy of them."""

from __future__ import annotations

from collections.abc import Callable

from beamkeeper.client.http import Http
from beamkeeper.domain.mirror import Mirror, MirrorState


class Mirrors:
    """What changed of the identities."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def after(self, state: MirrorState | None, *, wait_s: float = 0.0) -> Mirror:
        """Return what changed since a state, waiting for it; everything, where there is no state yet."""
        query = {"wait": wait_s, **({"after": state.number, "epoch": state.epoch} if state else {})}
        found: Mirror = self._http().get("/api/v1/mirror", Mirror, query=query, timeout_s=wait_s + 10)
        return found
