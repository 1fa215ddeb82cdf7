"""People as identity providers know them, and logins by providers that have begun: tables and queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, UniqueConstraint, delete, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, new_uid
from beamkeeper.db.users import UserRow
from beamkeeper.domain.errors import AlreadyExistsError, NotFoundError
from beamkeeper.domain.identities import Identity, LoginKind, OpenLogin
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.status import Service


class IdentityRow(Base):
    """Somebody at a provider, who is an account here; the mirror never carries it."""

    __tablename__ = "identities"
    services = frozenset({Service.STORAGE})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    user_uid: Mapped[UUID] = mapped_column(ForeignKey("users.uid"), index=True)
    issuer: Mapped[str]
    subject: Mapped[str]
    linked_by: Mapped[str]
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("issuer", "subject"),)


class IdentityLoginRow(Base):
    """A login by a provider that has begun, by the hash of the secret of who began it."""

    __tablename__ = "identity_logins"
    services = frozenset({Service.STORAGE})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    secret_sha256: Mapped[str] = mapped_column(unique=True)
    secrets: Mapped[Metadata]
    provider: Mapped[str]
    kind: Mapped[str]
    user_uid: Mapped[UUID | None]
    source: Mapped[str] = mapped_column(index=True)
    interval_s: Mapped[float]
    next_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Identities:
    """Queries on identities."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def find(self, issuer: str, subject: str) -> Identity | None:
        """Return which account somebody at a provider is, or None."""
        found = self._found(_wanted().where(IdentityRow.issuer == issuer, IdentityRow.subject == subject))
        return found[0] if found else None

    def get(self, uid: UUID) -> Identity:
        """Return an identity by its uid."""
        found = self._found(_wanted().where(IdentityRow.uid == uid))
        if not found:
            raise NotFoundError(f"there is no identity {uid}", uid=str(uid))
        return found[0]

    def of_user(self, user_uid: UUID) -> Sequence[Identity]:
        """Return the identities of an account, oldest first."""
        return self._found(_wanted().where(IdentityRow.user_uid == user_uid).order_by(IdentityRow.id))

    def add(self, user_uid: UUID, *, issuer: str, subject: str, linked_by: str) -> Identity:
        """Let somebody at a provider be an account; nobody is two."""
        if self.find(issuer, subject) is not None:
            raise AlreadyExistsError(f'"{subject}" of {issuer} is linked to an account already: unlink that first')
        uid, now = new_uid(), self._now
        row = IdentityRow(
            uid=uid, user_uid=user_uid, issuer=issuer, subject=subject, linked_by=linked_by, created_at=now
        )
        self._session.add(row)
        self._session.flush()  # so that the constraint speaks here
        return self.get(uid)

    def remove(self, uid: UUID) -> None:
        """Let an identity be no account any more."""
        self._session.execute(delete(IdentityRow).where(IdentityRow.uid == uid))

    def _found(self, wanted: Any) -> Sequence[Identity]:
        return [
            Identity(
                uid=row.uid,
                user_uid=row.user_uid,
                username=username,
                issuer=row.issuer,
                subject=row.subject,
                linked_by=row.linked_by,
                created_at=row.created_at,
            )
            for row, username in self._session.execute(wanted)
        ]


class IdentityLogins:
    """Queries on logins that have begun."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def count(self, source: str) -> int:
        """Return how many from one source are open."""
        wanted = select(func.count()).where(IdentityLoginRow.source == source, IdentityLoginRow.expires_at > self._now)
        return self._session.execute(wanted).scalar_one()

    def add(
        self,
        secret_sha256: str,
        *,
        provider: str,
        kind: LoginKind,
        secrets: Mapping[str, str],
        user_uid: UUID | None,
        source: str,
        lifetime: timedelta,
        interval_s: float,
    ) -> datetime:
        """Keep a login that begins, and forget those that expired; return when it does."""
        self._session.execute(delete(IdentityLoginRow).where(IdentityLoginRow.expires_at <= self._now))
        row = IdentityLoginRow(
            secret_sha256=secret_sha256,
            provider=provider,
            kind=str(kind),
            secrets=dict(secrets),
            user_uid=user_uid,
            source=source,
            interval_s=interval_s,
            next_at=self._now,
            expires_at=self._now + lifetime,
        )
        self._session.add(row)
        return self._now + lifetime

    def find(self, secret_sha256: str) -> OpenLogin | None:
        """Return a login that is open, for us alone until this transaction ends; None where there is none."""
        wanted = select(IdentityLoginRow).where(
            IdentityLoginRow.secret_sha256 == secret_sha256, IdentityLoginRow.expires_at > self._now
        )
        row = self._session.scalars(wanted.with_for_update()).one_or_none()
        if row is None:
            return None
        return OpenLogin(
            id=row.id,
            provider=row.provider,
            kind=LoginKind(row.kind),
            secrets={key: str(value) for key, value in row.secrets.items()},
            user_uid=row.user_uid,
            interval_s=row.interval_s,
            next_at=row.next_at,
            expires_at=row.expires_at,
        )

    def put_off(self, login_id: int, *, interval_s: float) -> None:
        """Let nobody ask again before the interval has passed."""
        values = {"interval_s": interval_s, "next_at": self._now + timedelta(seconds=interval_s)}
        self._session.execute(update(IdentityLoginRow).where(IdentityLoginRow.id == login_id).values(**values))

    def remove(self, login_id: int) -> bool:
        """End a login; tell whether it was there: who ends it is one."""
        gone = delete(IdentityLoginRow).where(IdentityLoginRow.id == login_id).returning(IdentityLoginRow.id)
        return self._session.execute(gone).first() is not None


def _wanted() -> Any:
    return select(IdentityRow, UserRow.username).join(UserRow, UserRow.uid == IdentityRow.user_uid)
