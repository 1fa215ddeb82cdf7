"""Wipes and holds: tables and queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import BigInteger, Index, and_, delete, or_, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import EPOCH, MICROSECOND, Base, BigId, JsonDocument, new_uid
from beamkeeper.db.pages import from_cursor, to_cursor
from beamkeeper.db.workers import WorkerRow
from beamkeeper.domain.errors import ConflictError, InvalidError, NotFoundError
from beamkeeper.domain.names import to_b64
from beamkeeper.domain.status import Service
from beamkeeper.domain.wipes import (
    ACTIVE_WIPES,
    Hold,
    Wipe,
    WipePage,
    WipeQuery,
    WipeRun,
    WipeState,
    WipeTally,
    check_wipe_step,
)

_TALLIES = TypeAdapter(tuple[WipeTally, ...])


class WipeRow(Base):
    """A plan and its run. `path` is the real path of the directory, without the leading slash."""

    __tablename__ = "wipes"
    __table_args__ = (Index(None, "state"), Index(None, "created_at", "uid"))
    services = frozenset({Service.ACQUISITION})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    agent: Mapped[str]
    path: Mapped[bytes]
    state: Mapped[str]
    is_safe: Mapped[bool | None]
    message: Mapped[str]
    min_age_hours: Mapped[float]
    within_days: Mapped[float]
    max_files: Mapped[int]
    proven_files: Mapped[int]
    proven_bytes: Mapped[int] = mapped_column(BigInteger)
    not_proven: Mapped[list[Any]] = mapped_column(JsonDocument)
    directories: Mapped[int]
    not_seen_open: Mapped[int]
    remove_directories: Mapped[bool]
    deleted_files: Mapped[int]
    deleted_bytes: Mapped[int] = mapped_column(BigInteger)
    kept: Mapped[list[Any]] = mapped_column(JsonDocument)
    removed_directories: Mapped[int]
    list_file: Mapped[str]
    planned_by: Mapped[str]
    created_at: Mapped[datetime]
    planned_at: Mapped[datetime | None]
    run_by: Mapped[str | None]
    run_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    owner: Mapped[UUID | None]
    """The process of the engine that has it in hand; one that is no worker any more has it no more."""
    is_glance: Mapped[bool]


class HoldRow(Base):
    """A path that is held. `path` is as it was given, without the leading slash; links in it are followed later."""

    __tablename__ = "holds"
    services = frozenset({Service.ACQUISITION})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    agent: Mapped[str]
    path: Mapped[bytes]
    why: Mapped[str]
    by: Mapped[str]
    created_at: Mapped[datetime]


@dataclass(frozen=True, slots=True)
class Counts:
    """What the engine has counted so far."""

    proven_files: int = 0
    proven_bytes: int = 0
    not_proven: Sequence[WipeTally] = ()
    directories: int = 0
    not_seen_open: int = 0


class Wipes:
    """Queries on wipes."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(
        self,
        uid: UUID | None,
        *,
        agent: str,
        path: bytes,
        min_age_hours: float,
        within_days: float,
        max_files: int,
        by: str,
        is_glance: bool = False,
    ) -> Wipe:
        """Write a new one, pending."""
        row = WipeRow(
            uid=uid or new_uid(),
            agent=agent,
            path=bytes(path),
            state=WipeState.PENDING,
            message="",
            min_age_hours=min_age_hours,
            within_days=within_days,
            max_files=max_files,
            proven_files=0,
            proven_bytes=0,
            not_proven=[],
            directories=0,
            not_seen_open=0,
            remove_directories=False,
            deleted_files=0,
            deleted_bytes=0,
            kept=[],
            removed_directories=0,
            list_file="",
            planned_by=by,
            created_at=self._now,
            is_glance=is_glance,
        )
        self._session.add(row)
        self._session.flush()  # so that the uid's constraint speaks here
        return _to_wipe(row)

    def find(self, uid: UUID) -> Wipe | None:
        """Return one, or None where there is none."""
        row = self._session.scalars(select(WipeRow).where(WipeRow.uid == uid)).one_or_none()
        return None if row is None else _to_wipe(row)

    def get(self, uid: UUID) -> Wipe:
        """Return one; NotFoundError where there is none."""
        return _to_wipe(self._row(uid))

    def page(self, query: WipeQuery) -> WipePage:
        """Return some, newest first."""
        wanted = select(WipeRow).where(~WipeRow.is_glance)
        if query.after is not None:
            at, uid = _from_cursor(query.after)
            wanted = wanted.where(or_(WipeRow.created_at < at, and_(WipeRow.created_at == at, WipeRow.uid < uid)))
        wanted = wanted.order_by(WipeRow.created_at.desc(), WipeRow.uid.desc()).limit(query.limit + 1)
        rows = self._session.scalars(wanted).all()
        items = tuple(_to_wipe(row) for row in rows[: query.limit])
        last = items[-1] if len(rows) > query.limit else None
        cursor = None if last is None else to_cursor((last.created_at - EPOCH) // MICROSECOND, last.uid.hex)
        return WipePage(items=items, next=cursor)

    def ask(self, uid: UUID, run: WipeRun, *, by: str) -> Wipe:
        """Write down that a plan is to be carried out, and who said so."""
        row = self._row(uid, for_update=True)
        row.state = check_wipe_step(uid, WipeState(row.state), WipeState.ASKED)
        row.remove_directories, row.run_by, row.run_at = run.remove_directories, by, self._now
        self._session.flush()
        return _to_wipe(row)

    # What the engine does.

    def claim(self, agent: str, owner: UUID) -> Wipe | None:
        """Take the oldest that has work and is in no living process's hands; what people asked for comes first."""
        alive = select(WorkerRow.uid)
        row = self._session.scalars(
            select(WipeRow)
            .where(
                WipeRow.agent == agent,
                WipeRow.state.in_(sorted(ACTIVE_WIPES)),
                or_(WipeRow.owner.is_(None), WipeRow.owner == owner, WipeRow.owner.not_in(alive)),
            )
            .order_by(WipeRow.is_glance, WipeRow.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        ).one_or_none()
        if row is None:
            return None
        row.owner = owner
        self._session.flush()
        return _to_wipe(row)

    def step(self, uid: UUID, owner: UUID, state: WipeState, **values: Any) -> Wipe:
        """Bring one to a state (or leave it in it), with other values; ConflictError where it is another's now."""
        row = self._own(uid, owner)
        if row.state != state:
            row.state = check_wipe_step(uid, WipeState(row.state), state)
            if state is WipeState.PLANNED:
                row.planned_at = self._now
            if state in (WipeState.DONE, WipeState.REFUSED):
                row.ended_at = self._now
            if state not in ACTIVE_WIPES:
                row.owner = None
        for name, value in values.items():
            setattr(row, name, value[:2000] if name == "message" else value)
        self._session.flush()
        return _to_wipe(row)

    def count(self, uid: UUID, owner: UUID, counts: Counts) -> int:
        """Write down what was counted; returns the key that its entries need."""
        row = self._own(uid, owner)
        row.proven_files, row.proven_bytes = counts.proven_files, counts.proven_bytes
        row.not_proven = [tally.model_dump(mode="json") for tally in counts.not_proven]
        row.directories, row.not_seen_open = counts.directories, counts.not_seen_open
        self._session.flush()
        return row.id

    def count_deleted(self, uid: UUID, owner: UUID, files: int, size: int, kept: Sequence[WipeTally]) -> None:
        """Write down how much is deleted, and what was kept after all."""
        row = self._own(uid, owner)
        row.deleted_files, row.deleted_bytes = files, size
        row.kept = [tally.model_dump(mode="json") for tally in kept]
        self._session.flush()

    def key(self, uid: UUID, owner: UUID | None = None) -> int:
        """Return the key that its entries need."""
        return self._row(uid).id if owner is None else self._own(uid, owner).id

    def glances(self, agent: str, path: bytes) -> list[Wipe]:
        """Return the glances at a directory, newest first."""
        wanted = select(WipeRow).where(WipeRow.is_glance, WipeRow.agent == agent, WipeRow.path == bytes(path))
        return [_to_wipe(row) for row in self._session.scalars(wanted.order_by(WipeRow.id.desc()))]

    def forget_glances(self, agent: str, path: bytes, *, but: UUID) -> None:
        """Forget the glances at a directory that have ended, but one."""
        self._session.execute(
            delete(WipeRow).where(
                WipeRow.is_glance,
                WipeRow.agent == agent,
                WipeRow.path == bytes(path),
                WipeRow.state.not_in(sorted(ACTIVE_WIPES)),
                WipeRow.uid != but,
            )
        )

    def old_plans(self, age: timedelta) -> list[int]:
        """Return the keys of plans that were made so long ago and never carried out."""
        wanted = select(WipeRow.id).where(
            WipeRow.run_at.is_(None), WipeRow.state.not_in(sorted(ACTIVE_WIPES)), WipeRow.created_at < self._now - age
        )
        return list(self._session.scalars(wanted))

    def remove(self, key: int) -> None:
        """Forget a plan whose entries are forgotten already."""
        self._session.execute(delete(WipeRow).where(WipeRow.id == key))

    def _own(self, uid: UUID, owner: UUID) -> WipeRow:
        row = self._row(uid, for_update=True)
        if row.owner != owner:
            raise ConflictError(f"wipe {uid} is in the hands of another process: this one has lost it")
        return row

    def _row(self, uid: UUID, *, for_update: bool = False) -> WipeRow:
        wanted = select(WipeRow).where(WipeRow.uid == uid)
        if for_update:
            wanted = wanted.with_for_update().execution_options(populate_existing=True)
        row = self._session.scalars(wanted).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no wipe {uid}", uid=str(uid))
        return row


class Holds:
    """Queries on holds."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(self, uid: UUID | None, *, agent: str, path: bytes, why: str, by: str) -> Hold:
        """Add one."""
        row = HoldRow(uid=uid or new_uid(), agent=agent, path=bytes(path), why=why, by=by, created_at=self._now)
        self._session.add(row)
        self._session.flush()
        return _to_hold(row)

    def list(self, agent: str) -> list[Hold]:
        """Return all of an agent, by path."""
        wanted = select(HoldRow).where(HoldRow.agent == agent).order_by(HoldRow.path, HoldRow.id)
        return [_to_hold(row) for row in self._session.scalars(wanted)]

    def find(self, uid: UUID) -> Hold | None:
        """Return one, or None where there is none."""
        row = self._session.scalars(select(HoldRow).where(HoldRow.uid == uid)).one_or_none()
        return None if row is None else _to_hold(row)

    def get(self, uid: UUID) -> Hold:
        """Return one; NotFoundError where there is none."""
        return _to_hold(self._row(uid))

    def remove(self, uid: UUID) -> None:
        """Remove one."""
        self._session.delete(self._row(uid))
        self._session.flush()

    def _row(self, uid: UUID) -> HoldRow:
        row = self._session.scalars(select(HoldRow).where(HoldRow.uid == uid)).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no hold {uid}: `dm hold list` shows them", uid=str(uid))
        return row


def _from_cursor(cursor: str) -> tuple[datetime, UUID]:
    microseconds, uid = from_cursor(cursor, int, str)
    try:
        return EPOCH + int(microseconds) * MICROSECOND, UUID(hex=str(uid))
    except (ValueError, OverflowError) as error:
        raise InvalidError(f"{cursor[:80]!r} is no cursor of this list: take the `next` of the page before") from error


def _to_hold(row: HoldRow) -> Hold:
    return Hold(
        path_b64=to_b64(row.path), uid=row.uid, agent=row.agent, why=row.why, by=row.by, created_at=row.created_at
    )


def _to_wipe(row: WipeRow) -> Wipe:
    return Wipe(
        path_b64=to_b64(row.path),
        uid=row.uid,
        agent=row.agent,
        state=WipeState(row.state),
        is_safe=row.is_safe,
        message=row.message,
        min_age_hours=row.min_age_hours,
        within_days=row.within_days,
        max_files=row.max_files,
        proven_files=row.proven_files,
        proven_bytes=row.proven_bytes,
        not_proven=_TALLIES.validate_python(row.not_proven),
        directories=row.directories,
        not_seen_open=row.not_seen_open,
        remove_directories=row.remove_directories,
        deleted_files=row.deleted_files,
        deleted_bytes=row.deleted_bytes,
        kept=_TALLIES.validate_python(row.kept),
        removed_directories=row.removed_directories,
        list_file=row.list_file,
        is_glance=row.is_glance,
        planned_by=row.planned_by,
        created_at=row.created_at,
        planned_at=row.planned_at,
        run_by=row.run_by,
        run_at=row.run_at,
        ended_at=row.ended_at,
    )
