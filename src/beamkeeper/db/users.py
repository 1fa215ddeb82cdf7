"""Users, their passwords, roles and sessions: tables and queries."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, cast
from uuid import UUID

from sqlalchemy import ForeignKey, Row, Table, UniqueConstraint, bindparam, delete, func, insert, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, NullableDocument, new_uid
from beamkeeper.db.events import Events
from beamkeeper.db.pages import from_cursor, to_cursor
from beamkeeper.db.texts import has_text
from beamkeeper.domain.errors import AlreadyExistsError, NotFoundError
from beamkeeper.domain.experiments import Member
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import (
    SESSIONS_KEPT,
    Grant,
    NewUser,
    Role,
    Scope,
    SessionRecord,
    User,
    UserChange,
    UserPage,
)


class UserRow(Base):
    """An account."""

    __tablename__ = "users"
    services = frozenset(Service)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    number: Mapped[int] = mapped_column(BigId, unique=True)
    username: Mapped[str] = mapped_column(unique=True)
    full_name: Mapped[str]
    email: Mapped[str]
    badge: Mapped[str]
    institution: Mapped[str]
    source: Mapped[str] = mapped_column(index=True)
    is_shared: Mapped[bool]
    is_enabled: Mapped[bool]
    created_at: Mapped[datetime]
    password_changed_at: Mapped[datetime | None]
    revision: Mapped[int] = mapped_column(BigId, index=True)


class CredentialRow(Base):
    """A password, as a hash; the mirror never carries it."""

    __tablename__ = "credentials"
    services = frozenset({Service.STORAGE})

    user_uid: Mapped[UUID] = mapped_column(ForeignKey("users.uid"), primary_key=True)
    password_hash: Mapped[str]
    changed_at: Mapped[datetime]


class GrantRow(Base):
    """A role that a user holds, or held: a row that is taken back stays, so that mirrors hear of it."""

    __tablename__ = "grants"
    services = frozenset(Service)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    user_uid: Mapped[UUID] = mapped_column(ForeignKey("users.uid"))
    role: Mapped[str]
    scope: Mapped[str]
    station_uid: Mapped[UUID | None] = mapped_column(ForeignKey("stations.uid"))
    experiment_uid: Mapped[UUID | None] = mapped_column(ForeignKey("experiments.uid"), index=True)
    is_revoked: Mapped[bool]
    source: Mapped[str] = mapped_column(default="")
    revision: Mapped[int] = mapped_column(BigId, index=True)

    # `scope` is site, or the uid of the station or experiment: NULLs would not count as equal here.
    __table_args__ = (UniqueConstraint("user_uid", "scope", "role"),)


class SessionRow(Base):
    """A login or a service key, by the hash of its token."""

    __tablename__ = "sessions"
    services = frozenset(Service)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    token_sha256: Mapped[str] = mapped_column(unique=True)
    user_uid: Mapped[UUID | None] = mapped_column(ForeignKey("users.uid"), index=True)
    station_uid: Mapped[UUID | None] = mapped_column(ForeignKey("stations.uid"))
    experiment_uid: Mapped[UUID | None] = mapped_column(ForeignKey("experiments.uid"))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None] = mapped_column(index=True)
    revoked_at: Mapped[datetime | None]
    name: Mapped[str]
    scopes: Mapped[list[str] | None] = mapped_column(NullableDocument)
    password_mark: Mapped[str | None]
    revision: Mapped[int] = mapped_column(BigId, index=True)


_USERS, _SESSIONS = cast(Table, UserRow.__table__), cast(Table, SessionRow.__table__)
_GRANTS = cast(Table, GrantRow.__table__)
_HELD = (
    select(_GRANTS.c.role, _GRANTS.c.station_uid, _GRANTS.c.experiment_uid)
    .where(_GRANTS.c.user_uid == bindparam("user_uid"), _GRANTS.c.is_revoked.is_(False))
    .order_by(_GRANTS.c.id)
)
_USER = select(_USERS).where(_USERS.c.uid == bindparam("uid"))
_BY_TOKEN = select(_SESSIONS).where(_SESSIONS.c.token_sha256 == bindparam("token_sha256"))
_BY_UID = select(_SESSIONS).where(_SESSIONS.c.uid == bindparam("uid"))
"""Made once, and of tables: they are asked with each request."""


@lru_cache(maxsize=8192)
def _held(user_uid: UUID, role: str, station_uid: UUID | None, experiment_uid: UUID | None) -> Grant:
    """Return a role as a value. Values are kept, not who holds them: that is what rows say, each time."""
    return Grant.model_construct(
        user_uid=user_uid, role=Role(role), station_uid=station_uid, experiment_uid=experiment_uid
    )


class Users:
    """Queries on users, grants and sessions."""

    def __init__(self, session: Session, events: Events, now: datetime) -> None:
        self._session = session
        self._events = events
        self._now = now

    def is_any(self) -> bool:
        """Whether there is any account."""
        return self._session.execute(select(UserRow.id).limit(1)).first() is not None

    def get(self, uid: UUID) -> User:
        """Return an account by its uid."""
        row = self._session.connection().execute(_USER, {"uid": uid}).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no user {uid}", uid=str(uid))
        return to_user(row)

    def find(self, username: str) -> User | None:
        """Return an account by its name, or None."""
        row = self._session.scalars(select(UserRow).where(UserRow.username == username)).one_or_none()
        return None if row is None else to_user(row)

    def named(self, username: str) -> User:
        """Return an account by its name."""
        user = self.find(username)
        if user is None:
            raise NotFoundError(f'there is no user "{username}": `dm user list` shows all', username=username)
        return user

    def page(self, *, after: str | None, limit: int, text: str | None = None) -> UserPage:
        """Return accounts in the order of their names, or those that have a text somewhere."""
        wanted = select(UserRow).order_by(UserRow.username).limit(limit + 1)
        if text:
            wanted = wanted.where(has_text(text, UserRow.username, UserRow.full_name, UserRow.email))
        if after is not None:
            wanted = wanted.where(UserRow.username > from_cursor(after, str)[0])
        rows = self._session.scalars(wanted).all()
        more = to_cursor(rows[limit - 1].username) if len(rows) > limit else None
        return UserPage(items=[to_user(row) for row in rows[:limit]], next=more)

    def add(self, new: NewUser) -> User:
        """Make an account, with no password yet."""
        revision = self._events.revise()
        if self.find(new.username) is not None:
            raise AlreadyExistsError(f'there is a user "{new.username}" already', username=new.username)
        last = self._session.execute(select(func.max(UserRow.number))).scalar_one()
        user = User(
            uid=new_uid(),
            number=(last or 0) + 1,
            created_at=self._now,
            **new.model_dump(include={"username", "full_name", "email", "badge", "institution", "source", "is_shared"}),
        )
        self._session.execute(insert(UserRow).values(**user.model_dump(), revision=revision))
        return user

    def change(self, uid: UUID, change: UserChange) -> User:
        """Change what is given of an account."""
        values = change.model_dump(exclude_none=True)
        revision = self._events.revise()
        self._session.execute(update(UserRow).where(UserRow.uid == uid).values(**values, revision=revision))
        return self.get(uid)

    def password_hash(self, uid: UUID) -> str | None:
        """Return the hash of an account's password, or None where it has none."""
        return self._session.execute(
            select(CredentialRow.password_hash).where(CredentialRow.user_uid == uid)
        ).scalar_one_or_none()

    def set_password_hash(self, uid: UUID, password_hash: str) -> None:
        """Keep the hash of an account's new password; stations hear that the one before counts no more."""
        self.renew_password_hash(uid, password_hash)
        values = {"password_changed_at": self._now, "revision": self._events.revise()}
        self._session.execute(update(UserRow).where(UserRow.uid == uid).values(**values))

    def renew_password_hash(self, uid: UUID, password_hash: str) -> None:
        """Keep another hash of the same password."""
        self._session.execute(delete(CredentialRow).where(CredentialRow.user_uid == uid))
        self._session.execute(
            insert(CredentialRow).values(user_uid=uid, password_hash=password_hash, changed_at=self._now)
        )

    def grants_of(self, uid: UUID) -> Sequence[Grant]:
        """Return the roles that a user holds.

        They are read with each request, so that rows are not mapped and what is our own is not checked again.
        """
        rows = self._session.execute(_HELD, {"user_uid": uid})
        return [_held(uid, role, station, experiment) for role, station, experiment in rows]

    def is_granted(self, role: Role, *, besides: UUID | None = None) -> bool:
        """Whether an enabled user besides this one holds a role of the site."""
        wanted = (
            select(GrantRow.id)
            .join(UserRow, UserRow.uid == GrantRow.user_uid)
            .where(GrantRow.role == role, GrantRow.is_revoked.is_(False))
            .where(UserRow.is_enabled.is_(True), UserRow.uid != besides)
        )
        return self._session.execute(wanted.limit(1)).first() is not None

    def members(self, experiment_uid: UUID) -> Sequence[Member]:
        """Return the people of an experiment with their roles, by name."""
        wanted = (
            select(UserRow.username, UserRow.full_name, GrantRow.role)
            .join(GrantRow, GrantRow.user_uid == UserRow.uid)
            .where(GrantRow.experiment_uid == experiment_uid, GrantRow.is_revoked.is_(False))
            .order_by(UserRow.username, GrantRow.role)
        )
        return [
            Member(username=username, full_name=full_name, role=Role(role))
            for username, full_name, role in self._session.execute(wanted)
        ]

    def grant(self, grant: Grant) -> Grant:
        """Give a role by hand: no sync takes it away."""
        revision = self._events.revise(experiment_uid=grant.experiment_uid)
        held = self._session.execute(
            select(GrantRow.uid, GrantRow.is_revoked, GrantRow.source).where(*_same(grant))
        ).one_or_none()
        if held is None:
            values = {
                **grant.model_dump(),
                "scope": scope_of(grant),
                "uid": new_uid(),
                "is_revoked": False,
                "source": "",
            }
            self._session.execute(insert(GrantRow).values(**values, revision=revision))
        elif held.is_revoked or held.source:
            values = {"is_revoked": False, "source": ""}
            self._session.execute(update(GrantRow).where(GrantRow.uid == held.uid).values(**values, revision=revision))
        return grant

    def revoke(self, grant: Grant) -> bool:
        """Take a role away by hand, so that no sync gives it again; tell whether it was held."""
        revision = self._events.revise(experiment_uid=grant.experiment_uid)
        return bool(
            self._session.execute(
                update(GrantRow)
                .where(*_same(grant), GrantRow.is_revoked.is_(False))
                .values(is_revoked=True, source="", revision=revision)
                .returning(GrantRow.id)
            ).all()
        )

    def add_session(
        self,
        token_sha256: str,
        *,
        user_uid: UUID | None = None,
        station_uid: UUID | None = None,
        experiment_uid: UUID | None = None,
        expires_at: datetime | None = None,
        name: str = "",
        scopes: Sequence[Scope] | None = None,
        password_mark: str | None = None,
    ) -> SessionRecord:
        """Keep a session; with a station it is a service key, with scopes an API key."""
        record = SessionRecord(
            uid=new_uid(),
            token_sha256=token_sha256,
            user_uid=user_uid,
            station_uid=station_uid,
            experiment_uid=experiment_uid,
            created_at=self._now,
            expires_at=expires_at,
            name=name,
            scopes=None if scopes is None else tuple(scopes),
            password_mark=password_mark,
        )
        self.add_sessions([record])
        return record

    def add_sessions(self, records: Sequence[SessionRecord]) -> None:
        """Keep sessions, many at once."""
        revision = self._events.revise()
        self._session.execute(insert(SessionRow), [{**record.model_dump(), "revision": revision} for record in records])

    def session_of(self, token_sha256: str) -> SessionRecord | None:
        """Return the session with this token, or None."""
        row = self._session.connection().execute(_BY_TOKEN, {"token_sha256": token_sha256}).one_or_none()
        return None if row is None else to_session(row)

    def sessions_of(self, uid: UUID) -> Sequence[SessionRecord]:
        """Return the logins of a user that hold, newest first."""
        return [record for record in self._records_of(uid) if record.scopes is None]

    def keys_of(self, uid: UUID) -> Sequence[SessionRecord]:
        """Return the API keys of a user that hold, newest first."""
        return [record for record in self._records_of(uid) if record.scopes is not None]

    def sessions_named(self, names: Collection[str]) -> Sequence[SessionRecord]:
        """Return the sessions of these names that hold."""
        wanted = select(SessionRow).where(SessionRow.name.in_(names), *self._holding())
        return [to_session(row) for row in self._session.scalars(wanted)]

    def _records_of(self, uid: UUID) -> Sequence[SessionRecord]:
        wanted = select(SessionRow).where(SessionRow.user_uid == uid, *self._holding()).order_by(SessionRow.id.desc())
        return [to_session(row) for row in self._session.scalars(wanted)]

    def get_session(self, uid: UUID) -> SessionRecord:
        """Return a session by its uid."""
        row = self._session.connection().execute(_BY_UID, {"uid": uid}).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no session {uid}", uid=str(uid))
        return to_session(row)

    def revoke_sessions(self, uids: Collection[UUID]) -> None:
        """End sessions at once."""
        revision = self._events.revise()
        self._session.execute(
            update(SessionRow)
            .where(SessionRow.uid.in_(uids), SessionRow.revoked_at.is_(None))
            .values(revoked_at=self._now, revision=revision)
        )

    def forget_sessions(self) -> None:
        """Remove sessions that expired long ago."""
        self._session.execute(delete(SessionRow).where(SessionRow.expires_at < self._now - SESSIONS_KEPT))

    def _holding(self) -> tuple[Any, ...]:
        is_current = (SessionRow.expires_at.is_(None)) | (SessionRow.expires_at > self._now)
        return SessionRow.revoked_at.is_(None), is_current


def scope_of(grant: Grant) -> str:
    """Return what a role is of: the site, or the uid of a station or an experiment."""
    return str(grant.experiment_uid or grant.station_uid or "site")


def _same(grant: Grant) -> tuple[Any, ...]:
    return GrantRow.user_uid == grant.user_uid, GrantRow.role == str(grant.role), GrantRow.scope == scope_of(grant)


def to_user(row: UserRow | Row[Any]) -> User:
    """Return the account that a row holds."""
    return User.model_validate(row, from_attributes=True)


def to_session(row: SessionRow | Row[Any]) -> SessionRecord:
    """Return the session that a row holds."""
    return SessionRecord.model_validate(row, from_attributes=True)
