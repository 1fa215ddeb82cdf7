"""The search index of the catalogue: its tables, how it follows the files, and what is counted in it."""

from beamkeeper.db.search.changes import note_all as note_all
from beamkeeper.db.search.changes import note_changed as note_changed
from beamkeeper.db.search.queries import Search as Search

__all__ = ["Search", "note_all", "note_changed"]
