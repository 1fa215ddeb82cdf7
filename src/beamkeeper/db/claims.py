"""Claims on the journal: which files a worker takes, and as which batch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Table, select, update
from sqlalchemy.orm import Session

from beamkeeper.db.acquisition import AcquisitionRow
from beamkeeper.db.ahead import staged_ahead, take
from beamkeeper.db.base import is_due, new_uid
from beamkeeper.db.experiments import ExperimentRow
from beamkeeper.db.journal_rows import COLUMNS, FIRST, Batch, JournalRow, to_claimed
from beamkeeper.db.stagings import StagingRow
from beamkeeper.domain.acquisition import JournalState

J = JournalState
_ORDER = (JournalRow.priority, JournalRow.next_at, JournalRow.id)
_JOURNAL = cast(Table, JournalRow.__table__)
IN_CHUNK = 500
"""Values in one IN list: under every database's limit of bound parameters."""

BUSY = timedelta(seconds=1)


class Claims:
    """What workers take of the journal."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def is_any_due(self) -> bool:
        """Whether some file may be taken."""
        due = _JOURNAL.c.lease.is_(None) & is_due(_JOURNAL.c.next_at, self._now)
        states = _JOURNAL.c.state.in_([J.READY, J.STORED, J.STAGED])
        return self._session.execute(select(_JOURNAL.c.id).where(due, states).limit(1)).first() is not None

    def claim(self, owner: UUID, *, files: int, size: int, without: Collection[UUID] = ()) -> Batch | None:
        """Take a batch of files to go on with; None where nothing is due.

        What is half-way comes first, as the batch that it was. Otherwise files of the acquisition that has
        waited longest, at most `files` of them and about `size` bytes; none for the storage areas in `without`.
        """
        due = JournalRow.lease.is_(None) & is_due(JournalRow.next_at, self._now)
        half = self._session.execute(
            select(JournalRow.acquisition_uid, JournalRow.batch_uid, JournalRow.state)
            .where(due, JournalRow.state.in_([J.STORED, J.STAGED]))
            .order_by(JournalRow.next_at)
            .limit(1)
        ).first()
        if half is not None:
            same = due & (JournalRow.batch_uid == half.batch_uid) & (JournalRow.state == half.state)
            return self._lease(
                owner, half.acquisition_uid, half.batch_uid, J(half.state), condition=same, files=files, size=size
            )
        if without:
            return self._claim_where(ExperimentRow.storage_area_uid.not_in(without), owner, files=files, size=size)
        ready = self._session.execute(
            select(JournalRow.acquisition_uid)
            .where(due, JournalRow.state == J.READY)
            .order_by(JournalRow.priority, JournalRow.next_at)
            .limit(1)
        ).first()
        return None if ready is None else self._claim_ready(ready.acquisition_uid, owner, files=files, size=size)

    def claim_for(self, area_uid: UUID, owner: UUID, *, files: int, size: int) -> Batch | None:
        """Take files that are ready to go to a storage area; None where there are none."""
        return self._claim_where(ExperimentRow.storage_area_uid == area_uid, owner, files=files, size=size)

    def _claim_where(self, is_meant: ColumnElement[bool], owner: UUID, *, files: int, size: int) -> Batch | None:
        """Take files of the oldest acquisition that has some; asked by acquisition, for a million may be waiting."""
        is_ready = (JournalRow.acquisition_uid == AcquisitionRow.uid) & (JournalRow.state == J.READY)
        due = JournalRow.lease.is_(None) & is_due(JournalRow.next_at, self._now)
        has_first = select(JournalRow.id).where(is_ready, due, JournalRow.priority == FIRST).exists()
        wanted = (
            select(AcquisitionRow.uid)
            .join(ExperimentRow, ExperimentRow.uid == AcquisitionRow.experiment_uid)
            .where(is_meant, select(JournalRow.id).where(is_ready, due).exists())
            .order_by(has_first.desc(), AcquisitionRow.id)
            .limit(1)
        )
        uid = self._session.scalars(wanted).first()
        return None if uid is None else self._claim_ready(uid, owner, files=files, size=size)

    def _claim_ready(self, acquisition_uid: UUID, owner: UUID, *, files: int, size: int) -> Batch | None:
        due = JournalRow.lease.is_(None) & is_due(JournalRow.next_at, self._now)
        mine = due & (JournalRow.acquisition_uid == acquisition_uid) & (JournalRow.state == J.READY)
        ahead = self._session.execute(staged_ahead(acquisition_uid)).all()
        for one in ahead:
            if (batch := self._claim_ahead(one, owner, mine)) is not None:
                return batch
        if ahead:  # those of which more is being brought, and those that are not due
            mine &= JournalRow.path.not_in([one.path for one in ahead])
        batch = self._lease(owner, acquisition_uid, new_uid(), J.READY, condition=mine, files=files, size=size)
        if batch is not None:
            self._session.add(StagingRow(batch_uid=batch.uid, acquisition_uid=batch.acquisition_uid))
        return batch

    def _claim_ahead(
        self, one: Row[UUID, UUID, bytes, int, list[str]], owner: UUID, mine: ColumnElement[bool]
    ) -> Batch | None:
        """Take a file that was staged while it was written, alone: its batch is the staging that it has."""
        same = mine & (JournalRow.path == one.path)
        ids = list(self._session.scalars(select(JournalRow.id).where(same).with_for_update(skip_locked=True)))
        if not ids:
            return None
        if not take(self._session, one.uid):  # more of it is being brought: others go before it for a moment
            self._set(ids, next_at=self._now + BUSY)
            return None
        batch = self._lease(owner, one.acquisition_uid, one.uid, J.READY, condition=same, files=1, size=0)
        if batch is None:
            return None
        (file,) = batch.files
        self._set([file.id], version_uid=one.uid)  # by which its staged name goes
        return replace(batch, files=[replace(file, version_uid=one.uid)], ahead=(one.size, one.chunks))

    def _lease(
        self,
        owner: UUID,
        acquisition_uid: UUID,
        batch_uid: UUID,
        state: JournalState,
        *,
        condition: ColumnElement[bool],
        files: int,
        size: int,
    ) -> Batch | None:
        wanted = select(*COLUMNS).where(condition).order_by(*_ORDER).limit(files)
        rows = self._session.execute(wanted.with_for_update(skip_locked=True)).all()
        taken: list[Any] = []
        total = 0
        for row in rows:
            if taken and total + row.size > size and state is J.READY:
                break
            taken.append(row)
            total += row.size
        if not taken:
            return None  # another worker was faster
        lease, ids = new_uid(), [row.id for row in taken]
        self._set(ids, lease=lease, lease_owner=owner, batch_uid=batch_uid)
        return Batch(batch_uid, lease, acquisition_uid, state, [to_claimed(row) for row in taken])

    def _set(self, ids: Sequence[int], *conditions: ColumnElement[bool], **values: object) -> int:
        count = 0
        for start in range(0, len(ids), IN_CHUNK):
            part = update(_JOURNAL).where(_JOURNAL.c.id.in_(ids[start : start + IN_CHUNK]), *conditions)
            count += int(self._session.execute(part.values(**values)).rowcount)  # type: ignore[attr-defined]
        return count
