"""The ledger over HTTP: verifications, what they prove, and what is stored by directory."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from beamkeeper.core import ledger as core
from beamkeeper.domain.files import FileLookup
from beamkeeper.domain.ledger import (
    DirectoryPage,
    DirectoryQuery,
    FileProofs,
    NewVerifications,
    RecordedVerifications,
    ReplicaPage,
    ReplicaQuery,
)
from beamkeeper.server.bodies import StrictRoute, described, large
from beamkeeper.server.deps import CatalogTx, CatalogWriteTx, Who

router = APIRouter(route_class=StrictRoute, tags=["ledger"])


@router.post("/files:verified", summary="Record verifications", openapi_extra=described(NewVerifications))
def verified(
    new: Annotated[NewVerifications, large(NewVerifications)], tx: CatalogWriteTx, who: Who
) -> RecordedVerifications:
    """For services alone: rows are added to the ledger, and replicas follow. The same `uid` again changes nothing."""
    return core.record(tx, who, new)


@router.post("/files:replicas", summary="Replicas that are due for a verification")
def replicas(query: ReplicaQuery, tx: CatalogTx, who: Who) -> ReplicaPage:
    """For services: one page of replicas, those looked at longest ago first."""
    return core.replicas(tx, who, query)


@router.post("/files:proofs", summary="What proves the newest versions", openapi_extra=described(FileLookup))
def proofs(who: Who, wanted: Annotated[FileLookup, large(FileLookup)], tx: CatalogTx) -> FileProofs:
    """The files at some paths with their replicas, and when each was last read from its device."""
    return core.proofs(tx, who, wanted)


@router.get("/experiments/{uid}/directories", summary="What is stored by directory")
def directories(uid: UUID, query: Annotated[DirectoryQuery, Query()], tx: CatalogTx, who: Who) -> DirectoryPage:
    """Counts of the files in each directory of an experiment, in the order of directories."""
    return core.directories(tx, who, uid, query)
