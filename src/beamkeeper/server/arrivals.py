"""What was seen for an experiment and is not delivered, over HTTP."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from beamkeeper.core import arrivals as core
from beamkeeper.domain.ledger import DirectoryTallyPage
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import AcquisitionTx, Who

router = APIRouter(route_class=StrictRoute, tags=["ledger"])


@router.get("/experiments/{uid}/directories", summary="What is not delivered, by directory")
def directories(uid: UUID, tx: AcquisitionTx, who: Who, after: str | None = None) -> DirectoryTallyPage:
    """Counts of what DAQs and uploads of an experiment have seen and not delivered."""
    return core.directories(tx, who, uid, after=after)
