"""The audit log of a service, from the client's side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from beamkeeper.client.http import Http
from beamkeeper.domain.audit_log import AuditChain, AuditEntry, AuditPage, AuditQuery


class AuditLogs:
    """Who changed what at one service."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def page(self, query: AuditQuery) -> AuditPage:
        """Return some rows, newest first."""
        found: AuditPage = self._http().get("/api/v1/audit-log", AuditPage, query=query)
        return found

    def find(self, query: AuditQuery, *, most: int) -> Iterator[AuditEntry]:
        """Yield rows, newest first."""
        return islice(self._all(query), most)

    def _all(self, query: AuditQuery) -> Iterator[AuditEntry]:
        while True:
            page = self.page(query)
            yield from page.items
            if page.before is None:
                return
            query = query.model_copy(update={"before": page.before})

    def check(self, number: int | None = None, digest: str | None = None) -> AuditChain:
        """Return whether the rows are as they were written; with a number and a digest, whether that row is."""
        asked = {"number": number, "digest": digest}
        found: AuditChain = self._http().get("/api/v1/audit-log/chain", AuditChain, query=asked, timeout_s=600.0)
        return found
