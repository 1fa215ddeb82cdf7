"""Files, versions, replicas and the ledger: their tables, and every query on them."""

from beamkeeper.db.files.documents import Documents as Documents
from beamkeeper.db.files.queries import Files as Files
from beamkeeper.db.files.thumbnails import ThumbnailRows as ThumbnailRows
from beamkeeper.db.files.verifying import Ledger as Ledger

__all__ = ["Documents", "Files", "Ledger", "ThumbnailRows"]
