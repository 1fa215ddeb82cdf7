"""The entries of a wipe: what is proven and what is not, and for each file that is deleted the row that says so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, UniqueConstraint, bindparam, delete, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, upsert
from beamkeeper.db.journal_rows import signed, to_identity
from beamkeeper.db.pages import from_cursor, to_cursor
from beamkeeper.domain.files import FileKind, SourceIdentity
from beamkeeper.domain.names import from_b64, to_b64
from beamkeeper.domain.status import Service
from beamkeeper.domain.wipes import EntryState, WipeEntry, WipeEntryPage, WipeEntryQuery, WipeTally

IN_CHUNK = 500


class WipeEntryRow(Base):
    """One entry of a directory. `path_key` stands for the path: PostgreSQL's indexes take no path of 4096 bytes."""

    __tablename__ = "wipe_entries"
    __table_args__ = (UniqueConstraint("wipe_id", "path_key"),)
    services = frozenset({Service.ACQUISITION})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    wipe_id: Mapped[int] = mapped_column(BigId, ForeignKey("wipes.id"))
    path_key: Mapped[bytes]
    path: Mapped[bytes]
    state: Mapped[str]
    kind: Mapped[str | None]
    reason: Mapped[str]
    why: Mapped[str]
    dev: Mapped[int | None] = mapped_column(BigInteger)
    ino: Mapped[int | None] = mapped_column(BigInteger)
    size: Mapped[int] = mapped_column(BigInteger)
    mtime_ns: Mapped[int | None] = mapped_column(BigInteger)
    ctime_ns: Mapped[int | None] = mapped_column(BigInteger)
    version_uid: Mapped[UUID | None]
    replica_uid: Mapped[UUID | None]
    by: Mapped[str | None]
    at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An entry as it was judged: proven by a replica, or not for a reason."""

    path: bytes
    kind: FileKind | None
    identity: SourceIdentity | None
    reason: str = ""
    why: str = ""
    version_uid: UUID | None = None
    replica_uid: UUID | None = None

    @property
    def state(self) -> EntryState:
        """Whether it is proven."""
        return EntryState.NOT_PROVEN if self.reason else EntryState.PROVEN


@dataclass(frozen=True, slots=True)
class Planned:
    """An entry as the plan has it."""

    id: int
    path: bytes
    state: EntryState
    kind: FileKind | None
    identity: SourceIdentity | None


class WipeEntries:
    """Queries on the entries of wipes."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def clear(self, wipe: int) -> None:
        """Forget the entries of a plan that is made anew, or not to be carried out any more."""
        self._session.execute(delete(WipeEntryRow).where(WipeEntryRow.wipe_id == wipe))

    def write(self, wipe: int, entries: Iterable[NewEntry]) -> None:
        """Write entries as they were judged; what is known of a path already is replaced."""
        rows = [_row(wipe, entry) for entry in entries]
        keep = ("wipe_id", "path_key", "path", "by", "at", "deleted_at")
        upsert(self._session, WipeEntryRow, rows, key=("wipe_id", "path_key"), keep=keep)

    def known(self, wipe: int, paths: Sequence[bytes]) -> dict[bytes, Planned]:
        """Return what the plan says of these paths."""
        found: dict[bytes, Planned] = {}
        for start in range(0, len(paths), IN_CHUNK):
            keys = [_key(path) for path in paths[start : start + IN_CHUNK]]
            wanted = select(WipeEntryRow).where(WipeEntryRow.wipe_id == wipe, WipeEntryRow.path_key.in_(keys))
            found.update({row.path: _planned(row) for row in self._session.scalars(wanted)})
        return found

    def in_state(self, wipe: int, state: EntryState, *, after: int = 0, limit: int = IN_CHUNK) -> list[Planned]:
        """Return some entries in a state, in the order in which they were found."""
        wanted = (
            select(WipeEntryRow)
            .where(WipeEntryRow.wipe_id == wipe, WipeEntryRow.state == state, WipeEntryRow.id > after)
            .order_by(WipeEntryRow.id)
            .limit(limit)
        )
        return [_planned(row) for row in self._session.scalars(wanted)]

    def paths(self, wipe: int, state: EntryState, reason: str | None = None) -> Iterator[bytes]:
        """Yield the paths of entries in a state (and kept for a reason), some at a time."""
        wanted = select(WipeEntryRow.id, WipeEntryRow.path).where(
            WipeEntryRow.wipe_id == wipe, WipeEntryRow.state == state
        )
        if reason is not None:
            wanted = wanted.where(WipeEntryRow.reason == reason)
        after = 0
        while rows := self._session.execute(
            wanted.where(WipeEntryRow.id > after).order_by(WipeEntryRow.id).limit(IN_CHUNK)
        ).all():
            yield from (row.path for row in rows)
            after = rows[-1].id

    def mark_deleting(self, ids: Sequence[int], *, by: str) -> None:
        """Write down that these files are about to be deleted, and by whose word."""
        self._session.execute(
            update(WipeEntryRow)
            .where(WipeEntryRow.id.in_(ids), WipeEntryRow.state == EntryState.PROVEN)
            .values(state=EntryState.DELETING, by=by, at=self._now)
            .execution_options(synchronize_session=False)
        )

    def settle(self, outcomes: Mapping[int, tuple[EntryState, str, str]]) -> None:
        """Write down what became of files that were about to be deleted: state, reason, and why."""
        table = WipeEntryRow.__table__
        statement = (
            update(table)  # type: ignore[arg-type]
            .where(table.c.id == bindparam("b_id"))
            .values(
                state=bindparam("b_state"),
                reason=bindparam("b_reason"),
                why=bindparam("b_why"),
                deleted_at=bindparam("b_at"),
            )
        )
        rows: list[dict[str, Any]] = [
            {
                "b_id": id_,
                "b_state": str(state),
                "b_reason": reason,
                "b_why": why[:2000],
                "b_at": self._now if state is EntryState.DELETED else None,
            }
            for id_, (state, reason, why) in outcomes.items()
        ]
        if rows:
            self._session.connection().execute(statement, rows)

    def totals(self, wipe: int) -> tuple[int, int, list[WipeTally]]:
        """Return how many files and bytes are deleted, and what was kept by reason."""
        wanted = (
            select(WipeEntryRow.state, WipeEntryRow.reason, func.count(), func.coalesce(func.sum(WipeEntryRow.size), 0))
            .where(WipeEntryRow.wipe_id == wipe, WipeEntryRow.state.in_([EntryState.DELETED, EntryState.KEPT]))
            .group_by(WipeEntryRow.state, WipeEntryRow.reason)
            .order_by(WipeEntryRow.reason)
        )
        files, size, kept = 0, 0, []
        for state, reason, count, total in self._session.execute(wanted):
            if state == EntryState.DELETED:
                files, size = files + count, size + int(total)
            else:
                kept.append(WipeTally(reason=reason, files=count, bytes=int(total)))
        return files, size, kept

    def page(self, wipe: int, query: WipeEntryQuery) -> WipeEntryPage:
        """Return some entries, in the order in which they were found: a directory's own before those below it."""
        wanted = select(WipeEntryRow).where(WipeEntryRow.wipe_id == wipe)
        if query.state is not None:
            wanted = wanted.where(WipeEntryRow.state == query.state)
        if query.reason is not None:
            wanted = wanted.where(WipeEntryRow.reason == query.reason)
        if query.after is not None:
            # The cursor is a place in this wipe's list, and not a key: a key never leaves the service.
            wanted = wanted.where(WipeEntryRow.id > self._after(wipe, query.after))
        rows = self._session.scalars(wanted.order_by(WipeEntryRow.id).limit(query.limit + 1)).all()
        shown = rows[: query.limit]
        cursor = to_cursor(to_b64(shown[-1].path_key)) if len(rows) > query.limit else None
        return WipeEntryPage(items=tuple(_to_entry(row) for row in shown), next=cursor)

    def _after(self, wipe: int, cursor: str) -> int:
        (key,) = from_cursor(cursor, str)
        wanted = select(WipeEntryRow.id).where(
            WipeEntryRow.wipe_id == wipe, WipeEntryRow.path_key == from_b64(str(key))
        )
        return self._session.execute(wanted).scalar() or 0


def _key(path: bytes) -> bytes:
    return blake2b(path, digest_size=16).digest()


def _row(wipe: int, entry: NewEntry) -> dict[str, Any]:
    identity = entry.identity
    return {
        "wipe_id": wipe,
        "path_key": _key(entry.path),
        "path": bytes(entry.path),
        "state": entry.state,
        "kind": entry.kind,
        "reason": entry.reason,
        "why": entry.why[:2000],
        "dev": signed(identity.dev) if identity else None,
        "ino": signed(identity.ino) if identity else None,
        "size": identity.size if identity else 0,
        "mtime_ns": identity.mtime_ns if identity else None,
        "ctime_ns": identity.ctime_ns if identity else None,
        "version_uid": entry.version_uid,
        "replica_uid": entry.replica_uid,
    }


def _planned(row: WipeEntryRow) -> Planned:
    return Planned(
        id=row.id,
        path=row.path,
        state=EntryState(row.state),
        kind=FileKind(row.kind) if row.kind else None,
        identity=to_identity(row),
    )


def _to_entry(row: WipeEntryRow) -> WipeEntry:
    return WipeEntry(
        path_b64=to_b64(row.path),
        state=EntryState(row.state),
        kind=FileKind(row.kind) if row.kind else None,
        reason=row.reason,
        why=row.why,
        size=row.size,
        identity=to_identity(row),
        version_uid=row.version_uid,
        replica_uid=row.replica_uid,
        by=row.by,
        at=row.at,
        deleted_at=row.deleted_at,
    )
