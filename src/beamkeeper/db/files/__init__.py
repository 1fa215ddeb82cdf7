"""Files, versions, replicas and the ledger: their tables, and every query on them."""

from beamkeeper.db.files.queries import Files as Files

__all__ = ["Files"]
