"""Scrubs and audits of a station."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel
from uuid6 import uuid7

from beamkeeper.client.http import Http
from beamkeeper.domain.errors import UnavailableError
from beamkeeper.domain.inspections import (
    ACTIVE_INSPECTIONS,
    Audit,
    AuditPage,
    Finding,
    FindingPage,
    FindingQuery,
    InspectionQuery,
    NewAudit,
    NewScrub,
    Scrub,
    ScrubPage,
)
from beamkeeper.domain.names import Uid

PAGE = 500
WAIT_S = 2.0
"""How long one question stays open: so often at least `on_change` hears how far it is."""

PATIENCE_S = 60.0
"""So long a wait goes on while the service does not answer: it may be starting again."""

InspectionT = TypeVar("InspectionT", Scrub, Audit)
NewT = TypeVar("NewT", NewScrub, NewAudit)


class _Inspections(Generic[InspectionT, NewT]):
    """What scrubs and audits share."""

    path: str
    model: type[InspectionT]
    pages: type[BaseModel]

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def start(self, new: NewT) -> InspectionT:
        """Ask for one; `wait` waits for its end."""
        named = new if new.uid is not None else new.model_copy(update={"uid": UUID(bytes=uuid7().bytes)})
        asked: InspectionT = self._http().call("POST", self.path, self.model, body=named)
        return asked

    def get(self, uid: Uid, wait_s: float = 0.0) -> InspectionT:
        """Return one, waiting so long for its end."""
        query = {"wait": wait_s}
        found: InspectionT = self._http().get(f"{self.path}/{uid}", self.model, query=query, timeout_s=wait_s + 30)
        return found

    def stop(self, uid: Uid) -> InspectionT:
        """Ask for the end of one; what it has found stays."""
        stopped: InspectionT = self._http().call("POST", f"{self.path}/{uid}:stop", self.model)
        return stopped

    def wait(self, uid: Uid, on_change: Callable[[InspectionT], None] | None = None) -> InspectionT:
        """Return one when it has ended; goes on while the service starts again."""
        seen: InspectionT | None = None
        while True:
            found = self._get_patiently(uid)
            if found != seen and on_change is not None:
                on_change(found)
            seen = found
            if found.state not in ACTIVE_INSPECTIONS:
                return found

    def _get_patiently(self, uid: Uid) -> InspectionT:
        patience_ends = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.get(uid, WAIT_S)
            except UnavailableError:
                if time.monotonic() > patience_ends:
                    raise
                time.sleep(WAIT_S)

    def list(self, *, active: bool = False) -> Iterator[InspectionT]:
        """Yield them, newest first."""
        after: str | None = None
        while True:
            query = InspectionQuery(is_active=active, after=after, limit=PAGE)
            page = self._http().get(self.path, self.pages, query=query)
            yield from page.items
            if (after := page.next) is None:
                return

    def findings(self, uid: Uid) -> Iterator[Finding]:
        """Yield what one has found, in the order in which it was found."""
        after: str | None = None
        while True:
            query = FindingQuery(after=after, limit=PAGE)
            page: FindingPage = self._http().get(f"{self.path}/{uid}/findings", FindingPage, query=query)
            yield from page.items
            if (after := page.next) is None:
                return


class Scrubs(_Inspections[Scrub, NewScrub]):
    """Reading replicas again."""

    path = "/api/v1/scrubs"
    model = Scrub
    pages = ScrubPage


class Audits(_Inspections[Audit, NewAudit]):
    """Comparing the catalogue with the storage."""

    path = "/api/v1/audits"
    model = Audit
    pages = AuditPage
