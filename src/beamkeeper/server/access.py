"""Why somebody may, or may not, over HTTP."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from beamkeeper.core import access as core
from beamkeeper.domain.access import Access
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import StorageTx, Who

router = APIRouter(route_class=StrictRoute, tags=["users"])


@router.get("/experiments/{uid}/access/{username}", summary="Why somebody may or may not, on an experiment")
def on_experiment(uid: UUID, username: str, tx: StorageTx, who: Who) -> Access:
    """For who decides on its people."""
    return core.on_experiment(tx, who, username, uid)


@router.get("/stations/{name}/access/{username}", summary="Why somebody may or may not, at a station")
def on_station(name: str, username: str, tx: StorageTx, who: Who) -> Access:
    """For its managers."""
    return core.on_station(tx, who, username, name)
