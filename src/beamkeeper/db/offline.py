"""Who may log in at a station that is cut off: verifiers that were made here, and are never sent anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base
from beamkeeper.db.login_attempts import LoginAttempts
from beamkeeper.domain.status import Service


class OfflineVerifierRow(Base):
    """The password with which somebody logged in last, as a hash that was made here; the mirror has no part in it."""

    __tablename__ = "offline_verifiers"
    services = frozenset({Service.ACQUISITION})

    user_uid: Mapped[UUID] = mapped_column(primary_key=True)
    password_hash: Mapped[str]
    password_changed_at: Mapped[datetime | None]
    made_at: Mapped[datetime]


@dataclass(frozen=True, slots=True)
class Verifier:
    """A hash, and when the password that it is of was set at the site: it counts as long as no other was."""

    password_hash: str = field(repr=False)
    password_changed_at: datetime | None


class OfflineVerifiers:
    """Queries on verifiers."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now
        self.attempts = LoginAttempts(session, now)
        """Who failed to log in here how often."""

    def put(self, user_uid: UUID, verifier: Verifier) -> None:
        """Keep one, in place of the one before."""
        self.forget(user_uid)
        hash_, changed_at = verifier.password_hash, verifier.password_changed_at
        row = OfflineVerifierRow(
            user_uid=user_uid, password_hash=hash_, password_changed_at=changed_at, made_at=self._now
        )
        self._session.add(row)
        self._session.flush()

    def find(self, user_uid: UUID) -> Verifier | None:
        """Return the verifier of an account, or None."""
        row = self._session.scalars(
            select(OfflineVerifierRow).where(OfflineVerifierRow.user_uid == user_uid)
        ).one_or_none()
        return None if row is None else Verifier(row.password_hash, row.password_changed_at)

    def forget(self, user_uid: UUID) -> None:
        """Forget the verifier of an account."""
        self._session.execute(delete(OfflineVerifierRow).where(OfflineVerifierRow.user_uid == user_uid))
