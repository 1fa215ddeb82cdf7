"""Every query on the search index."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session


class Search:
    """Queries on the search index."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now
