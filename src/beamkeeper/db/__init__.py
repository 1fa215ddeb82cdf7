"""The only SQL: tables and queries of each noun, transactions, migrations."""

from beamkeeper.db.base import Database as Database
from beamkeeper.db.transaction import AcquisitionTransaction as AcquisitionTransaction
from beamkeeper.db.transaction import CatalogTransaction as CatalogTransaction
from beamkeeper.db.transaction import ProcessingTransaction as ProcessingTransaction
from beamkeeper.db.transaction import StorageTransaction as StorageTransaction
from beamkeeper.db.transaction import Transaction as Transaction
from beamkeeper.db.transaction import open_database as open_database

__all__ = [
    "AcquisitionTransaction",
    "CatalogTransaction",
    "Database",
    "ProcessingTransaction",
    "StorageTransaction",
    "Transaction",
    "open_database",
]
