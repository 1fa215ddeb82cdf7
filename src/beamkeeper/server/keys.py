"""API keys over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from fastapi import APIRouter

from beamkeeper.core import keys as core
from beamkeeper.domain.names import Username
from beamkeeper.domain.users import ApiKey, MadeKey, NewKey
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import StorageTx, Who
from beamkeeper.server.identity import IdentityTx

router = APIRouter(route_class=StrictRoute, tags=["keys"])


@router.post("/keys", status_code=201, summary="Make an API key")
def create(new: NewKey, tx: IdentityTx, who: Who) -> MadeKey:
    """Its token is shown this once."""
    return core.create(tx, who, new)


@router.get("/keys", summary="API keys that hold")
def keys(tx: StorageTx, who: Who, username: Username | None = None) -> Sequence[ApiKey]:
    """One's own, or for an administrator anybody's."""
    return core.keys(tx, who, username)


@router.delete("/keys/{uid}", status_code=204, summary="Take an API key back")
def revoke(uid: UUID, tx: IdentityTx, who: Who) -> None:
    """One's own, or for an administrator anybody's; whoever uses it is refused from the next request on."""
    core.revoke(tx, who, uid)
