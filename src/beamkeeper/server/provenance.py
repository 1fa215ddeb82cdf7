"""Provenance over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query

from beamkeeper.core import provenance as core
from beamkeeper.domain.names import Uid
from beamkeeper.domain.provenance import NewDerivation, Provenance, Recorded, Towards
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import CatalogTx, CatalogWriteTx, Who

router = APIRouter(route_class=StrictRoute, tags=["provenance"])

EXAMPLE = {"sources": [{"file_uid": "01900000-0000-7000-8000-000000000002"}], "job": "reduce-142", "stage": "average"}


@router.post("/files/{uid}/sources", summary="Record what a file was made from")
def record(uid: Uid, new: Annotated[NewDerivation, Body(examples=[EXAMPLE])], tx: CatalogWriteTx, who: Who) -> Recorded:
    """For who may annotate it and read its sources; saying the same again changes nothing."""
    return core.record(tx, who, uid, new=new)


@router.get("/files/{uid}/provenance", summary="What a file was made from")
def why(
    uid: Uid,
    tx: CatalogTx,
    who: Who,
    towards: Towards = Towards.SOURCES,
    version: Annotated[int | None, Query(ge=1, le=2**31)] = None,
) -> Provenance:
    """Down to the raw frames, or what was made from it; what the caller may not see is told as hidden."""
    return core.why(tx, who, uid, towards=towards, version=version)
