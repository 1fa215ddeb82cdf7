"""API keys: what instruments and scripts log in with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from beamkeeper.client.http import Http
from beamkeeper.domain.users import ApiKey, MadeKey, NewKey


class Keys:
    """API keys of a user."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def create(self, new: NewKey) -> MadeKey:
        """Make a key; its token is shown this once."""
        made: MadeKey = self._http().call("POST", "/api/v1/keys", MadeKey, body=new)
        return made

    def list(self, username: str | None = None) -> Sequence[ApiKey]:
        """Return the keys of a user that hold; one's own by default."""
        found: Sequence[ApiKey] = self._http().get("/api/v1/keys", Sequence[ApiKey], query={"username": username})
        return found

    def revoke(self, uid: UUID) -> None:
        """Take a key back; whoever uses it is refused from the next request on."""
        self._http().call("DELETE", f"/api/v1/keys/{uid}")
