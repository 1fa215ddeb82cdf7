"""The audit log: rows that are only added, each chained to the one before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Table, event, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId
from beamkeeper.db.recorder import Recorder
from beamkeeper.domain.audit_log import FIRST_DIGEST, AuditEntry, AuditPage, AuditQuery, NewAuditEntry, digest_of
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.status import Service

LOCK = 0x626B6175
"""The advisory lock under which PostgreSQL's rows get their numbers; SQLite has one writer anyway."""

PAGE = 500


class AuditRow(Base):
    """A change, or an attempt at one."""

    __tablename__ = "audit_log"
    services = frozenset(Service)

    number: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    username: Mapped[str] = mapped_column(index=True)
    user_uid: Mapped[UUID | None]
    session_uid: Mapped[UUID | None]
    address: Mapped[str]
    action: Mapped[str]
    target: Mapped[Metadata]
    result: Mapped[str]
    message: Mapped[str]
    changes: Mapped[Metadata]
    more: Mapped[int]
    digest: Mapped[str]


PROTECTION: Mapping[str, Sequence[str]] = {
    "sqlite": (
        "CREATE TRIGGER audit_log_keeps BEFORE UPDATE ON audit_log "
        "BEGIN SELECT RAISE(ABORT, 'rows of the audit log stay as they are'); END",
        "CREATE TRIGGER audit_log_stays BEFORE DELETE ON audit_log "
        "BEGIN SELECT RAISE(ABORT, 'rows of the audit log stay'); END",
    ),
    "postgresql": (
        "CREATE OR REPLACE FUNCTION audit_log_stays() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'rows of the audit log stay as they are'; END $$",
        "CREATE TRIGGER audit_log_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_log_stays()",
    ),
}
"""What makes the database itself refuse to change rows of the log."""

RELEASE: Mapping[str, Sequence[str]] = {
    "sqlite": ("DROP TRIGGER IF EXISTS audit_log_keeps", "DROP TRIGGER IF EXISTS audit_log_stays"),
    "postgresql": ("DROP TRIGGER IF EXISTS audit_log_stays ON audit_log",),
}


def protect(connection: Connection) -> None:
    """Have the database refuse to change and to remove rows of the log."""
    for statement in PROTECTION[connection.dialect.name]:
        connection.execute(text(statement))


def release(connection: Connection) -> None:
    """Let rows be replaced, for `dm restore` alone."""
    for statement in RELEASE[connection.dialect.name]:
        connection.execute(text(statement))


def _protect_new(_table: Table, connection: Connection, **_: Any) -> None:
    protect(connection)


event.listen(AuditRow.__table__, "after_create", _protect_new)


class AuditLog:
    """Queries on the audit log, and what of this transaction goes into it."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def record(self) -> Recorder:
        """Begin to record what this transaction changes."""
        return Recorder(self._session)

    def add(self, entry: NewAuditEntry) -> AuditEntry:
        """Write a row; the last thing of a transaction, since others who want to write one wait for its end."""
        connection = self._session.connection()
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        table = AuditRow.__table__
        newest = select(table.c.number, table.c.digest).order_by(table.c.number.desc()).limit(1)
        last = connection.execute(newest).one_or_none()
        number, before = (1, FIRST_DIGEST) if last is None else (last.number + 1, last.digest)
        digest = digest_of(before, number, self._now, entry)
        values = {**entry.model_dump(), "changes": [change.model_dump(mode="json") for change in entry.changes]}
        connection.execute(AuditRow.__table__.insert().values(number=number, at=self._now, digest=digest, **values))  # type: ignore[attr-defined]
        return AuditEntry(number=number, at=self._now, digest=digest, **entry.model_dump())

    def page(self, query: AuditQuery) -> AuditPage:
        """Return rows, newest first."""
        wanted = select(AuditRow).order_by(AuditRow.number.desc()).limit(query.limit + 1)
        if query.before is not None:
            wanted = wanted.where(AuditRow.number < query.before)
        if query.username is not None:
            wanted = wanted.where(AuditRow.username == query.username)
        if query.action is not None:
            wanted = wanted.where(AuditRow.action.contains(query.action, autoescape=True))
        rows = self._session.scalars(wanted).all()
        more = rows[query.limit - 1].number if len(rows) > query.limit else None
        return AuditPage(items=[_entry(row) for row in rows[: query.limit]], before=more)

    def all(self) -> Iterator[AuditEntry]:
        """Yield every row in the order of the numbers."""
        last = 0
        while True:
            wanted = select(AuditRow).where(AuditRow.number > last).order_by(AuditRow.number).limit(PAGE)
            rows = self._session.scalars(wanted).all()
            yield from (_entry(row) for row in rows)
            if len(rows) < PAGE:
                return
            last = rows[-1].number
            self._session.expunge_all()


def _entry(row: AuditRow) -> AuditEntry:
    return AuditEntry.model_validate({name: getattr(row, name) for name in AuditEntry.model_fields})
