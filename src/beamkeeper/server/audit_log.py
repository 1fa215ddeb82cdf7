"""The audit log over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from beamkeeper.core import audit_log as core
from beamkeeper.domain.audit_log import AuditChain, AuditPage, AuditQuery, Digest
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import AnyTx, Who

router = APIRouter(route_class=StrictRoute, tags=["audit-log"])


@router.get("/audit-log", summary="Who changed what, newest first")
def audit_log(query: Annotated[AuditQuery, Query()], tx: AnyTx, who: Who) -> AuditPage:
    """For administrators: what was changed at this service, and what was refused."""
    return core.page(tx, who, query)


@router.get("/audit-log/chain", summary="Whether the audit log is as it was written")
def chain(
    tx: AnyTx, who: Who, number: Annotated[int | None, Query(ge=1, le=2**53)] = None, digest: Digest | None = None
) -> AuditChain:
    """Every row is looked at; with a number and a digest, whether that row still has it."""
    return core.check(tx, who, number=number, digest=digest)
