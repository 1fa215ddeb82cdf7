"""Who failed to log in how often, and until when nobody may try: kept, so that a restart forgives nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, upsert
from beamkeeper.domain.login_limits import FORGOTTEN_AFTER, LoginLimit
from beamkeeper.domain.status import Service


class LoginAttemptRow(Base):
    """Failures of one account, one source, or one account from one source."""

    __tablename__ = "login_attempts"
    services = frozenset({Service.STORAGE, Service.ACQUISITION})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    failures: Mapped[int]
    next_at: Mapped[datetime]
    last_at: Mapped[datetime] = mapped_column(index=True)


class LoginAttempts:
    """Queries on failures to log in."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def count(self, keys: Mapping[str, str], limits: Mapping[str, LoginLimit]) -> timedelta:
        """Count an attempt as failed before it is made; return how long to wait instead, where it may not be made.

        So attempts made at the same time count each other.
        """
        self._session.execute(delete(LoginAttemptRow).where(LoginAttemptRow.last_at < self._now - FORGOTTEN_AFTER))
        rows = {kind: self._row(key) for kind, key in sorted(keys.items())}  # in one order, for their locks
        wait = max((row.next_at - self._now for row in rows.values()), default=timedelta(0))
        if wait > timedelta(0):
            return wait
        for kind, row in rows.items():
            row.failures += 1
            row.next_at, row.last_at = self._now + limits[kind].pause(row.failures), self._now
        self._session.flush()
        return timedelta(0)

    def succeeded(self, keys: Mapping[str, str]) -> None:
        """Take back an attempt: it was none. The source and the account by itself keep what others did."""
        self._session.execute(delete(LoginAttemptRow).where(LoginAttemptRow.key == keys["both"]))
        self._session.execute(
            update(LoginAttemptRow)
            .where(LoginAttemptRow.key.in_([keys["account"], keys["source"]]), LoginAttemptRow.failures > 0)
            .values(failures=LoginAttemptRow.failures - 1, next_at=self._now)
        )

    def _row(self, key: str) -> LoginAttemptRow:
        values = {"key": key, "failures": 0, "next_at": self._now, "last_at": self._now}
        upsert(self._session, LoginAttemptRow, [values], key=["key"], keep=values)
        return self._session.scalars(select(LoginAttemptRow).where(LoginAttemptRow.key == key).with_for_update()).one()
