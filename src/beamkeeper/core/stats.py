"""Counts of the catalogue's files: everybody counts what they may read."""

from __future__ import annotations

from uuid import UUID

from beamkeeper.core import rights
from beamkeeper.db import CatalogTransaction
from beamkeeper.domain.stats import FacetQuery, Facets, StatPage, StatsQuery
from beamkeeper.domain.users import Action, Caller, reach


def facets(tx: CatalogTransaction, caller: Caller, query: FacetQuery) -> Facets:
    """Return the values that metadata keys have, of the files that are meant and that the caller may read."""
    _check(tx, caller, query.files.experiment_uid)
    statistics = tx.search.statistics(reach(caller, Action.FILE_READ))
    return statistics.facets(query, behind=tx.search.lag()[0])


def stats(tx: CatalogTransaction, caller: Caller, query: StatsQuery) -> StatPage:
    """Return how many files there are that the caller may read, by experiment, directory, type or day."""
    _check(tx, caller, query.experiment_uid)
    statistics = tx.search.statistics(reach(caller, Action.FILE_READ))
    return statistics.page(query, behind=tx.search.lag()[0])


def _check(tx: CatalogTransaction, caller: Caller, experiment_uid: UUID | None) -> None:
    if experiment_uid is not None:
        rights.experiment(tx, caller, Action.FILE_READ, experiment_uid)
