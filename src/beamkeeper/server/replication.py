"""Following over HTTP, for stations' services alone: what has come, and taking what comes next."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter

from beamkeeper.core import replication as core
from beamkeeper.domain.replication import NewChanges, Positions, Taken
from beamkeeper.server.bodies import StrictRoute, described, large
from beamkeeper.server.deps import CatalogTx, CatalogWriteTx, Who

router = APIRouter(route_class=StrictRoute, tags=["replication"])


@router.get("/replication", summary="How far a station's documents have come")
def positions(tx: CatalogTx, who: Who) -> Positions:
    """For a station's services: the position of each kind of document, from which they go on."""
    return core.positions(tx, who)


@router.post("/replication/changes", summary="Take a station's documents", openapi_extra=described(NewChanges))
def take(who: Who, new: Annotated[NewChanges, large(NewChanges)], tx: CatalogWriteTx) -> Taken:
    """For a station's services: documents of its own experiments, taken where the position is still `since`."""
    return core.take(tx, who, new)
