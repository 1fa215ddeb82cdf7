"""The only SQL: tables and queries of each noun, transactions, migrations."""

from beamkeeper.db.base import Database as Database
from beamkeeper.db.engine_transactions import AcquisitionTransaction as AcquisitionTransaction
from beamkeeper.db.engine_transactions import ProcessingTransaction as ProcessingTransaction
from beamkeeper.db.opening import open_database as open_database
from beamkeeper.db.transaction import CatalogTransaction as CatalogTransaction
from beamkeeper.db.transaction import StorageTransaction as StorageTransaction
from beamkeeper.db.transaction import Transaction as Transaction

__all__ = [
    "AcquisitionTransaction",
    "CatalogTransaction",
    "Database",
    "ProcessingTransaction",
    "StorageTransaction",
    "Transaction",
    "open_database",
]
