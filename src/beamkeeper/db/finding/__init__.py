"""Finding files by queries: from the language to SQL on both databases, in pages of bounded time."""

from beamkeeper.db.finding.exact import Exactly as Exactly
from beamkeeper.db.finding.search import FileSearch as FileSearch
from beamkeeper.db.finding.search import Hits as Hits

__all__ = ["Exactly", "FileSearch", "Hits"]
