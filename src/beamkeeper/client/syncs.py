"""Syncs with the facility's databases."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID, uuid4

from beamkeeper.client.http import Http
from beamkeeper.domain.people import NewSync, Sync, SyncKind, SyncState

WAIT_S = 20.0


class Syncs:
    """Taking over the facility's people and proposals, for administrators."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def run(self, kind: SyncKind, *, to_ldap: bool = False, may_leave: int | None = None) -> Sync:
        """Ask for a sync, and wait until it has ended."""
        new = NewSync(uid=uuid4(), kind=kind, to_ldap=to_ldap, may_leave=may_leave)
        found: Sync = self._http().call("POST", "/api/v1/syncs", Sync, body=new)
        while found.state is SyncState.PENDING:
            found = self.get(found.uid, wait_s=WAIT_S)
        return found

    def get(self, uid: UUID, *, wait_s: float = 0.0) -> Sync:
        """Return a sync, waiting a while for its end."""
        found: Sync = self._http().get(f"/api/v1/syncs/{uid}", Sync, query={"wait": wait_s}, timeout_s=wait_s + 30)
        return found
