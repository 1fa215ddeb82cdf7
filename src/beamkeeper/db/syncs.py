"""Syncs with the facility's databases: asked for, done, and what they did."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, NullableDocument
from beamkeeper.db.pages import to_cursor, uid_of
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.people import NewSync, Sync, SyncKind, SyncPage, SyncReport, SyncState
from beamkeeper.domain.status import Service


class SyncRow(Base):
    """A sync."""

    __tablename__ = "syncs"
    services = frozenset({Service.STORAGE})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    kind: Mapped[str]
    state: Mapped[str] = mapped_column(index=True)
    asked_by: Mapped[str]
    request: Mapped[Metadata]
    report: Mapped[Metadata | None] = mapped_column(NullableDocument)
    message: Mapped[str]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class Syncs:
    """Queries on syncs."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(self, new: NewSync, *, asked_by: str) -> Sync:
        """Keep a sync that is wanted; the same uid again is the same sync."""
        found = self.get(new.uid)
        if found is not None:
            return found
        values = {"uid": new.uid, "kind": str(new.kind), "state": SyncState.PENDING, "asked_by": asked_by}
        row = SyncRow(**values, request=new.model_dump(mode="json"), report=None, message="", created_at=self._now)
        self._session.add(row)
        self._session.flush()  # so that the uid's constraint speaks here
        return _to_sync(row)

    def get(self, uid: UUID) -> Sync | None:
        """Return a sync, or None."""
        row = self._session.scalars(select(SyncRow).where(SyncRow.uid == uid)).one_or_none()
        return None if row is None else _to_sync(row)

    def page(self, *, after: str | None, limit: int) -> SyncPage:
        """Return some, newest first."""
        wanted = select(SyncRow).order_by(SyncRow.id.desc()).limit(limit + 1)
        if after is not None:  # a cursor names a sync: a key never leaves the service
            wanted = wanted.where(SyncRow.id < select(SyncRow.id).where(SyncRow.uid == uid_of(after)).scalar_subquery())
        rows = self._session.scalars(wanted).all()
        more = to_cursor(rows[limit - 1].uid.hex) if len(rows) > limit else None
        return SyncPage(items=tuple(_to_sync(row) for row in rows[:limit]), next=more)

    def pending(self) -> tuple[NewSync, str] | None:
        """Return the sync that waits longest, and who asked for it."""
        wanted = select(SyncRow).where(SyncRow.state == SyncState.PENDING).order_by(SyncRow.id).limit(1)
        row = self._session.scalars(wanted).one_or_none()
        return None if row is None else (NewSync.model_validate(row.request), row.asked_by)

    def last(self, kind: SyncKind) -> datetime | None:
        """Return when the last sync of a kind was asked for."""
        wanted = select(SyncRow.created_at).where(SyncRow.kind == kind).order_by(SyncRow.id.desc()).limit(1)
        return self._session.execute(wanted).scalar_one_or_none()

    def end(self, uid: UUID, state: SyncState, *, message: str = "", report: SyncReport | None = None) -> None:
        """Say how a sync ended."""
        document = None if report is None else report.model_dump(mode="json")
        self._session.execute(
            update(SyncRow)
            .where(SyncRow.uid == uid)
            .values(state=state, message=message[:2000], report=document, ended_at=self._now)
        )


def _to_sync(row: SyncRow) -> Sync:
    return Sync(
        uid=row.uid,
        kind=SyncKind(row.kind),
        state=SyncState(row.state),
        to_ldap=bool(row.request.get("to_ldap")),
        message=row.message,
        report=None if row.report is None else SyncReport.model_validate(row.report),
        created_at=row.created_at,
        ended_at=row.ended_at,
    )
