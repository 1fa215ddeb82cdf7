"""A catalogue as a whole over HTTP: pages of documents, importing them, checking what fits together."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body

from beamkeeper.core import catalogues as core
from beamkeeper.domain.catalogues import CheckPage, CheckQuery, DocumentPage, Imported, NewDocuments, Reindexed
from beamkeeper.domain.files import FileQuery
from beamkeeper.server.bodies import StrictRoute, described, large
from beamkeeper.server.deps import CatalogTx, CatalogWriteTx, Who
from beamkeeper.server.files import FIND_EXAMPLES

router = APIRouter(route_class=StrictRoute, tags=["catalogue"])


@router.post("/files:export", summary="Files as whole documents")
def documents(query: Annotated[FileQuery, Body(examples=FIND_EXAMPLES)], tx: CatalogTx, who: Who) -> DocumentPage:
    """One page of the files that a query means, with their versions, replicas, ledger and metadata."""
    return core.documents(tx, who, query)


@router.post("/files:import", summary="Import documents", openapi_extra=described(NewDocuments))
def import_(who: Who, new: Annotated[NewDocuments, large(NewDocuments)], tx: CatalogWriteTx) -> Imported:
    """For administrators: add the files that are not here. What is here stays as it is; the same again adds nothing."""
    return core.import_(tx, who, new)


@router.post("/files:check", summary="What does not fit together")
def check(query: CheckQuery, tx: CatalogTx, who: Who) -> CheckPage:
    """For those who look after a station: faults among a page of files. It tells, and repairs nothing."""
    return core.check(tx, who, query)


@router.post("/index:rebuild", summary="Make the search index anew")
def reindex(tx: CatalogWriteTx, who: Who) -> Reindexed:
    """For administrators: empties the index, which then follows every file; searches find what is indexed already."""
    return core.reindex(tx, who)
