"""Which transactions a service's database has, and opening it."""

from __future__ import annotations

from typing import Any

from beamkeeper.db.base import Database
from beamkeeper.db.engine_transactions import AcquisitionTransaction, ProcessingTransaction
from beamkeeper.db.transaction import CatalogTransaction, StorageTransaction, Transaction
from beamkeeper.domain.status import Service

TRANSACTIONS: dict[Service, type[Transaction]] = {
    Service.STORAGE: StorageTransaction,
    Service.CATALOG: CatalogTransaction,
    Service.ACQUISITION: AcquisitionTransaction,
    Service.PROCESSING: ProcessingTransaction,
}


def open_database(url: str, service: Service) -> Database[Any]:
    """Return the database of a service; its transactions are those of TRANSACTIONS."""
    return Database(url, TRANSACTIONS[service])
