"""The journal: one row for each file of a DAQ or upload, with where it stands on its way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import ColumnElement, Table, bindparam, delete, func, select, update

from beamkeeper.db.base import new_uid, upsert
from beamkeeper.db.claims import IN_CHUNK, Claims
from beamkeeper.db.journal_rows import (
    FIRST,
    USUAL,
    Batch,
    Claimed,
    JournalRow,
    Known,
    Seen,
    signed,
    to_entry,
    to_identity,
)
from beamkeeper.db.many import execute_many
from beamkeeper.domain.acquisition import LISTED, UNDELIVERED, UNFINISHED, JournalPage, JournalState, Tally
from beamkeeper.domain.names import from_b64, to_b64

__all__ = ["Batch", "Claimed", "Journal", "Known", "Seen", "backoff"]

J = JournalState
_ORDER = (JournalRow.priority, JournalRow.next_at, JournalRow.id)
_JOURNAL = cast(Table, JournalRow.__table__)
_RELEASED: Mapping[str, Any] = {"lease": None, "lease_owner": None}
FEW = 8
"""So many different changes of one step are written as sets; more are written row by row."""


class Journal(Claims):
    """Queries on the journal."""

    # What the watch does.

    def see(
        self, acquisition_uid: UUID, files: Iterable[Seen], *, is_first: Callable[[bytes], bool] | None = None
    ) -> None:
        """Write what the watch says of files; a row that a worker holds is left as it is.

        `is_first` tells which of them go before all others.
        """
        rows = [self._seen_row(acquisition_uid, seen) for seen in files]
        if is_first is not None:
            for row in rows:
                row["priority"] = FIRST if is_first(row["path"]) else USUAL
        if not rows:
            return
        keep = {"uid", "acquisition_uid", "path", "directory", "first_seen_at", "attempts"}
        # Not an IN list: those cannot be used with many rows at once.
        free = JournalRow.lease.is_(None) & (JournalRow.state != J.STAGED) & (JournalRow.state != J.STORED)
        upsert(self._session, JournalRow, rows, key=("acquisition_uid", "path"), keep=keep, where=free)

    def _seen_row(self, acquisition_uid: UUID, seen: Seen) -> dict[str, Any]:
        is_ready = seen.state is J.READY
        identity = seen.identity
        return {
            "uid": new_uid(),
            "acquisition_uid": acquisition_uid,
            "path": seen.path,
            "directory": seen.path.rpartition(b"/")[0],
            "kind": seen.kind,
            "state": seen.state,
            "reason_code": seen.reason_code,
            "reason": seen.reason[:2000],
            "dev": signed(identity.dev) if identity else None,
            "ino": signed(identity.ino) if identity else None,
            "size": identity.size if identity else 0,
            "mtime_ns": identity.mtime_ns if identity else None,
            "ctime_ns": identity.ctime_ns if identity else None,
            "version_uid": new_uid() if is_ready else None,
            "number": None,
            "is_snapshot": seen.is_snapshot,
            "checksums": None,
            "chunks": None,
            "link_target": seen.link_target,
            "batch_uid": None,
            "attempts": 0,
            "next_at": self._now if is_ready else None,
            "first_seen_at": self._now,
            "finished_at": seen.finished_at,
            "ready_at": self._now if is_ready else None,
            "staged_at": None,
            "stored_at": None,
            "read_from": None,
            "priority": USUAL,
        }

    def drop(self, acquisition_uid: UUID, paths: Sequence[bytes]) -> None:
        """Remove files that turned out to be none: temporary names that were renamed, directories that can be read."""
        for start in range(0, len(paths), IN_CHUNK):
            self._session.execute(
                delete(JournalRow).where(
                    JournalRow.acquisition_uid == acquisition_uid,
                    JournalRow.path.in_(paths[start : start + IN_CHUNK]),
                    JournalRow.state.in_([J.CANDIDATE, J.QUARANTINED, J.SKIPPED]),
                )
            )

    def park(self, acquisition_uid: UUID) -> None:
        """Take back what no worker has begun with: the acquisition ends now, a later one may go on."""
        self._session.execute(
            update(JournalRow)
            .where(
                JournalRow.acquisition_uid == acquisition_uid, JournalRow.state == J.READY, JournalRow.lease.is_(None)
            )
            .values(state=J.CANDIDATE, next_at=None)
        )

    def known(self, acquisition_uid: UUID, paths: Sequence[bytes]) -> dict[bytes, Known]:
        """Return what is known of these paths."""
        found: dict[bytes, Known] = {}
        for start in range(0, len(paths), IN_CHUNK):
            part = paths[start : start + IN_CHUNK]
            found.update(self._known(acquisition_uid, JournalRow.path.in_(part)))
        return found

    def known_in(self, acquisition_uid: UUID, directory: bytes) -> dict[bytes, Known]:
        """Return what is known of the files of one directory."""
        return self._known(acquisition_uid, JournalRow.directory == directory)

    def paths_in(self, acquisition_uid: UUID, directory: bytes) -> Iterator[bytes]:
        """Yield the paths of the files of one directory that are known, without holding them all."""
        wanted = select(JournalRow.path).where(
            JournalRow.acquisition_uid == acquisition_uid, JournalRow.directory == directory
        )
        yield from self._session.execute(wanted.execution_options(yield_per=IN_CHUNK)).scalars()

    def unsettled(self, acquisition_uid: UUID) -> dict[bytes, Known]:
        """Return the files that the watch still has to decide on."""
        return self._known(acquisition_uid, JournalRow.state.in_([J.CANDIDATE, J.GROWING]))

    def _known(self, acquisition_uid: UUID, condition: ColumnElement[bool]) -> dict[bytes, Known]:
        r = JournalRow
        wanted = select(
            r.path,
            r.state,
            r.dev,
            r.ino,
            r.size,
            r.mtime_ns,
            r.ctime_ns,
            r.reason_code,
            r.lease,
            r.available_at,
            r.attempts,
        ).where(r.acquisition_uid == acquisition_uid, condition)
        return {
            row.path: Known(
                path=row.path,
                state=JournalState(row.state),
                identity=to_identity(row),
                reason_code=row.reason_code,
                is_leased=row.lease is not None or row.state in (J.STAGED, J.STORED),
                available_at=row.available_at,
                attempts=row.attempts,
            )
            for row in self._session.execute(wanted)
        }

    # What workers do.

    def step(self, batch: Batch, state: JournalState, changes: Mapping[int, Mapping[str, Any]], *, free: bool) -> int:
        """Bring files of a batch to a state; `changes` holds other columns by id. Returns how many were still ours.

        `free` gives the lease back. What another worker has taken meanwhile is not touched (fencing). Files to which
        the very same values are given are written by one statement.
        """
        if not changes:
            return 0
        released = _RELEASED if free else {}
        shared: dict[int, list[int]] = {}
        for id_, values in changes.items():
            shared.setdefault(id(values), []).append(id_)
        if len(shared) <= FEW:
            parts = [(changes[ids[0]], ids) for ids in shared.values()]
            mine = JournalRow.lease == batch.lease
            return sum(self._set(ids, mine, **{"state": str(state), **released, **values}) for values, ids in parts)
        columns = sorted({name for values in changes.values() for name in values})
        statement = (
            update(_JOURNAL)
            .where(_JOURNAL.c.id == bindparam("b_id"), _JOURNAL.c.lease == batch.lease)
            .values(state=str(state), **released, **{name: bindparam(f"b_{name}") for name in columns})
        )
        parameters = [
            {"b_id": id_, **{f"b_{name}": values[name] for name in columns}} for id_, values in changes.items()
        ]
        return execute_many(self._session, statement, parameters)

    def pause(self, batch: Batch, *, until: datetime) -> None:
        """Give back all that is still ours of a batch, as it is, to be gone on with later."""
        self._session.execute(
            update(JournalRow).where(_is_of(batch)).values(lease=None, lease_owner=None, next_at=until)
        )

    def owners(self) -> list[UUID]:
        """Return the workers that hold files."""
        wanted = select(JournalRow.lease_owner).where(JournalRow.lease_owner.is_not(None)).distinct()
        return [owner for owner in self._session.scalars(wanted) if owner is not None]

    def release(self, owner: UUID) -> int:
        """Free what a worker held that is no more; returns how many files. Its stagings are left over from now on."""
        result = self._session.execute(
            update(JournalRow)
            .where(JournalRow.lease_owner == owner)
            .values(lease=None, lease_owner=None, next_at=self._now)
        )
        return int(result.rowcount)  # type: ignore[attr-defined]

    # What people want.

    def retry(self, acquisition_uid: UUID, is_meant: Callable[[bytes], bool]) -> int:
        """Let quarantined files begin again; returns how many."""
        ids = self._ids(acquisition_uid, [J.QUARANTINED], is_meant)
        self._set(ids, state=J.CANDIDATE, attempts=0, reason="", reason_code="", next_at=None)
        return len(ids)

    def prioritise(self, acquisition_uid: UUID, is_first: Callable[[bytes], bool]) -> int:
        """Let some of the files that wait go before all others, and the rest not; returns how many."""
        waiting = [J.CANDIDATE, J.GROWING, J.READY]
        first = self._ids(acquisition_uid, waiting, is_first)
        self._set(self._ids(acquisition_uid, waiting, lambda path: not is_first(path)), priority=USUAL)
        self._set(first, priority=FIRST)
        return len(first)

    def _ids(
        self, acquisition_uid: UUID, states: Sequence[JournalState], is_meant: Callable[[bytes], bool]
    ) -> list[int]:
        wanted = select(JournalRow.id, JournalRow.path).where(
            JournalRow.acquisition_uid == acquisition_uid, JournalRow.state.in_(states), JournalRow.lease.is_(None)
        )
        return [id_ for id_, path in self._session.execute(wanted) if is_meant(path)]

    # What people ask.

    def tallies(self, acquisition_uid: UUID) -> list[Tally]:
        """Return how many files are in each state, by reason where they have one."""
        r = JournalRow
        wanted = (
            select(r.state, r.reason_code, r.is_snapshot, func.count(), func.coalesce(func.sum(r.size), 0))
            .where(r.acquisition_uid == acquisition_uid)
            .group_by(r.state, r.reason_code, r.is_snapshot)
        )
        found: dict[tuple[JournalState, str], tuple[int, int]] = {}
        for state, code, is_snapshot, files, size in self._session.execute(wanted):
            unfinished = UNFINISHED if J(state) is J.AVAILABLE and is_snapshot else ""
            key = (J(state), code if J(state) in LISTED else unfinished)
            before = found.get(key, (0, 0))
            found[key] = (before[0] + files, before[1] + int(size))
        return [Tally(state=s, reason_code=c, files=n, bytes=b) for (s, c), (n, b) in sorted(found.items())]

    def undelivered(self, acquisition_uid: UUID) -> int:
        """Return how many files are still on their way."""
        wanted = select(func.count()).where(
            JournalRow.acquisition_uid == acquisition_uid, JournalRow.state.in_(sorted(UNDELIVERED))
        )
        return self._session.execute(wanted).scalar_one()

    def page(self, acquisition_uid: UUID, state: JournalState | None, after: str | None, limit: int) -> JournalPage:
        """Return files in the order of their paths."""
        wanted = select(JournalRow).where(JournalRow.acquisition_uid == acquisition_uid)
        if state is not None:
            wanted = wanted.where(JournalRow.state == state)
        if after is not None:
            wanted = wanted.where(JournalRow.path > from_b64(after))
        rows = self._session.scalars(wanted.order_by(JournalRow.path).limit(limit)).all()
        return JournalPage(
            items=[to_entry(row) for row in rows], next=to_b64(rows[-1].path) if len(rows) == limit else None
        )

    def queue(self) -> tuple[dict[str, int], datetime | None]:
        """Return how many files are on their way by state, and since when the oldest is finished."""
        wanted = (
            select(JournalRow.state, func.count(), func.min(JournalRow.ready_at))
            .where(JournalRow.state.in_(sorted(UNDELIVERED)))
            .group_by(JournalRow.state)
        )
        found = self._session.execute(wanted).all()
        oldest = [row[2] for row in found if row[2] is not None]
        return {row[0]: row[1] for row in found}, min(oldest, default=None)


def _is_of(batch: Batch) -> ColumnElement[bool]:
    """Files still held by the claim that made this batch; there is an index on the batch, none on the lease."""
    return (JournalRow.batch_uid == batch.uid) & (JournalRow.lease == batch.lease)


def backoff(attempts: int) -> timedelta:
    """Return how long to wait before the next try: 1, 2, 4 ... seconds, at most 60."""
    return timedelta(seconds=min(60, 2 ** min(attempts, 6)))
