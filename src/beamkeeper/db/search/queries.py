"""Every query on the search index."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from beamkeeper.db.search.indexing import Indexing


class Search:
    """Queries on the search index."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def step(self, limit: int) -> int:
        """Index up to so many of the files that have changed; return how many. The indexer's, and nobody else's."""
        return Indexing(self._session, self._now).step(limit)
