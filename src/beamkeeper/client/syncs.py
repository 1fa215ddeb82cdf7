"""Syncs with the facility's databases."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID, uuid4

from beamkeeper.client.http import Http
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.people import (
    NewSync,
    Proposal,
    ProposalKind,
    ProposalPage,
    ProposalQuery,
    Sync,
    SyncKind,
    SyncPage,
    SyncState,
)

WAIT_S = 20.0


class Syncs:
    """Taking over the facility's people and proposals, for administrators."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http
        self.proposals = Proposals(http)

    def run(self, kind: SyncKind, *, to_ldap: bool = False, may_leave: int | None = None) -> Sync:
        """Ask for a sync, and wait until it has ended."""
        new = NewSync(uid=uuid4(), kind=kind, to_ldap=to_ldap, may_leave=may_leave)
        found: Sync = self._http().call("POST", "/api/v1/syncs", Sync, body=new)
        while found.state is SyncState.PENDING:
            found = self.get(found.uid, wait_s=WAIT_S)
        return found

    def page(self, after: str | None = None, *, limit: int = 100) -> SyncPage:
        """Return some, newest first."""
        found: SyncPage = self._http().get("/api/v1/syncs", SyncPage, query={"after": after, "limit": limit})
        return found

    def get(self, uid: UUID, *, wait_s: float = 0.0) -> Sync:
        """Return a sync, waiting a while for its end."""
        found: Sync = self._http().get(f"/api/v1/syncs/{uid}", Sync, query={"wait": wait_s}, timeout_s=wait_s + 30)
        return found


class Proposals:
    """The facility's proposals and forms, for managers of a station."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def page(self, query: ProposalQuery) -> ProposalPage:
        """Return some by number."""
        found: ProposalPage = self._http().get("/api/v1/proposals", ProposalPage, query=query)
        return found

    def get(self, kind: ProposalKind, number: str) -> Proposal:
        """Return one."""
        for found in self.page(ProposalQuery(kind=kind, number=number)).items:
            return found
        raise NotFoundError(f'there is no {kind} "{number}": `dm sync proposals` takes over new ones', number=number)
