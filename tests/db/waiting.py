"""Two transactions at once: until one of them waits for the other."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Session

from beamkeeper.testing.station import until

_WAITING = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()")


def until_another_waits(session: Session) -> None:
    """Return once another connection to this PostgreSQL waits for a lock."""
    until(lambda: session.execute(_WAITING).scalar_one() > 0, "another to wait for a lock")
