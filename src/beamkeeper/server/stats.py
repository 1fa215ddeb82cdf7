"""Counts of the catalogue's files over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query

from beamkeeper.core import stats as core
from beamkeeper.domain.stats import FacetQuery, Facets, StatPage, StatsQuery
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import CatalogTx, Who

router = APIRouter(route_class=StrictRoute, tags=["files"])

FACET_EXAMPLE = {"keys": ["sample.name", "energy"], "files": {"query": "modified > -7d"}}


@router.post("/files:facets", summary="Which values metadata keys have")
def facets(query: Annotated[FacetQuery, Body(examples=[FACET_EXAMPLE])], tx: CatalogTx, who: Who) -> Facets:
    """Texts with their numbers of files, and numbers with range, mean and deviation; within the caller's reach."""
    return core.facets(tx, who, query)


@router.get("/stats", summary="How many files there are")
def stats(query: Annotated[StatsQuery, Query()], tx: CatalogTx, who: Who) -> StatPage:
    """Files and bytes by experiment, directory, type or day; within the caller's reach."""
    return core.stats(tx, who, query)
