"""Orders: batches of replicas that are to be seen to, and what became of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, insert, select
from sqlalchemy.orm import Session

from beamkeeper.db.base import is_due, new_uid
from beamkeeper.db.files.registering import checksums_of
from beamkeeper.db.files.tables import ReplicaRow, VerificationRow, VersionRow
from beamkeeper.db.files.verifying import follow_versions
from beamkeeper.db.replicas.batches import described
from beamkeeper.db.replicas.placing import LAST
from beamkeeper.db.replicas.requests import ReplicaRequests, Tally
from beamkeeper.db.replicas.tables import ReplicaOrderRow
from beamkeeper.db.scope import experiment_uids
from beamkeeper.domain.files import ReadFrom, ReplicaState
from beamkeeper.domain.replicas import (
    DueReplicas,
    ReplicaAction,
    SettledReplica,
    SettledReplicas,
    Settling,
)
from beamkeeper.domain.users import Reach

TRIES = 10
"""A copy that fails so often by itself, and not for its storage area, is given up until somebody asks for it again."""

LONGEST_PAUSE_S = 600
BATCH_FILES = 500
BATCH_BYTES = 20_000_000_000
"""About so much is copied in one go: what is known of a batch is known when all of it is done."""


@dataclass(frozen=True, slots=True)
class _Row:
    """An order with the replica and version that it is about."""

    order: ReplicaOrderRow
    replica: ReplicaRow
    version: VersionRow


class ReplicaOrders:
    """Queries on what is still to be done for replicas."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def areas(self, areas: Iterable[UUID], reach: Reach) -> Sequence[UUID]:
        """Return in which of these storage areas something can be done now, for experiments within reach."""
        return [uid for uid in areas if self._is_any(uid, reach)]

    def _is_any(self, area_uid: UUID, reach: Reach) -> bool:
        order = ReplicaOrderRow
        for can in (order.batch_uid.is_not(None), is_due(order.next_at, self._now)):
            wanted = select(order.id).where(order.storage_area_uid == area_uid, can, *self._within(reach))
            if self._session.execute(wanted.limit(1)).first() is not None:
                return True
        return False

    def _within(self, reach: Reach) -> list[ColumnElement[bool]]:
        if reach.is_all:
            return []
        return [ReplicaOrderRow.experiment_uid.in_(experiment_uids(reach, self._now))]

    def due(self, area_uid: UUID, reach: Reach) -> DueReplicas | None:
        """Return the batch that a storage area is to see to: the one that was handed out before, else a new one."""
        found = self._handed_out(area_uid, reach) or self._hand_out(area_uid, reach)
        return described(self._session, self._now, found) if found else None

    def _handed_out(self, area_uid: UUID, reach: Reach) -> Sequence[ReplicaOrderRow]:
        order = ReplicaOrderRow
        mine = [order.storage_area_uid == area_uid, order.batch_uid.is_not(None), *self._within(reach)]
        uid = self._session.scalars(select(order.batch_uid).where(*mine).limit(1)).one_or_none()
        if uid is None:
            return ()
        wanted = select(order).where(order.storage_area_uid == area_uid, order.batch_uid == uid)
        return self._session.scalars(wanted.order_by(order.id)).all()

    def _hand_out(self, area_uid: UUID, reach: Reach) -> Sequence[ReplicaOrderRow]:
        order = ReplicaOrderRow
        wanted = (
            select(order, VersionRow.file_id, VersionRow.size)
            .join(ReplicaRow, ReplicaRow.id == order.replica_id)
            .join(VersionRow, VersionRow.id == ReplicaRow.version_id)
            .where(order.storage_area_uid == area_uid, is_due(order.next_at, self._now), *self._within(reach))
            .order_by(order.next_at, order.id)
            .limit(BATCH_FILES)
            .with_for_update(of=order)
        )
        batch: dict[int, ReplicaOrderRow] = {}
        total = 0
        for row, file_id, size in self._session.execute(wanted):
            first = next(iter(batch.values()), row)
            if (row.action, row.experiment_uid) != (first.action, first.experiment_uid) or file_id in batch:
                continue  # one version of a file in a batch: they have one plain name
            if batch and total + size > BATCH_BYTES:
                break
            batch[file_id] = row
            total += size
        uid = new_uid()
        for row in batch.values():
            row.batch_uid = uid
        self._session.flush()
        return list(batch.values())

    def settle(self, settled: SettledReplicas, *, by: str) -> Sequence[UUID]:
        """Take in what became of replicas of a batch, and return those for which it counts.

        It counts for none of a batch that is settled already, or for which something else was ordered meanwhile.
        """
        is_drop = settled.action is ReplicaAction.DROP
        if is_drop:
            self._lock_all(settled)
        rows = self._rows(settled)
        others = self._verified_elsewhere(rows.values()) if is_drop else frozenset[int]()
        tallies: defaultdict[int, Tally] = defaultdict(Tally)
        ledger: list[dict[str, Any]] = []
        counted: list[UUID] = []
        checksums = checksums_of(self._session, [row.version.id for row in rows.values()])
        for item in settled.items:
            row = rows.get(item.replica_uid)
            if row is None or not self._may_settle(row, item, others, tallies):
                continue
            counted.append(item.replica_uid)
            if item.outcome is Settling.DONE:
                ledger += _proof(
                    row, item, checksums, by=f"{by} for {row.order.asked_by}" if row.order.asked_by else by
                )
            self._settle(row, item, tallies)
        if ledger:
            self._session.execute(insert(VerificationRow), ledger)
        self._session.flush()
        follow_versions(self._session, {row.version.id for row in rows.values()})
        ReplicaRequests(self._session, self._now).count(tallies)
        return counted

    def _lock_all(self, settled: SettledReplicas) -> None:
        """Lock all replicas of these versions in one order: two areas that drop would hold what the other waits for."""
        versions = select(ReplicaRow.version_id).where(ReplicaRow.uid.in_({item.replica_uid for item in settled.items}))
        wanted = select(ReplicaRow.id).where(ReplicaRow.version_id.in_(versions)).order_by(ReplicaRow.id)
        self._session.execute(wanted.with_for_update()).all()

    def _rows(self, settled: SettledReplicas) -> Mapping[UUID, _Row]:
        order = ReplicaOrderRow
        wanted = (
            select(order, ReplicaRow, VersionRow)
            .join(ReplicaRow, ReplicaRow.id == order.replica_id)
            .join(VersionRow, VersionRow.id == ReplicaRow.version_id)
            .where(order.batch_uid == settled.batch_uid, order.action == settled.action)
            .where(ReplicaRow.uid.in_({item.replica_uid for item in settled.items}))
            .order_by(ReplicaRow.id)
            .with_for_update(of=(order, ReplicaRow))
            .execution_options(populate_existing=True)
        )
        return {row[1].uid: _Row(*row) for row in self._session.execute(wanted)}

    def _verified_elsewhere(self, rows: Iterable[_Row]) -> frozenset[int]:
        """Return the local keys of replicas beside which there is another that is verified; it stays so meanwhile."""
        rows = list(rows)
        wanted = select(ReplicaRow).where(ReplicaRow.version_id.in_({row.version.id for row in rows}))
        verified: defaultdict[int, set[int]] = defaultdict(set)
        for replica in self._session.scalars(wanted.execution_options(populate_existing=True)):
            if replica.state == ReplicaState.VERIFIED:
                verified[replica.version_id].add(replica.id)
        return frozenset(row.replica.id for row in rows if verified[row.version.id] - {row.replica.id})

    def _may_settle(self, row: _Row, item: SettledReplica, others: frozenset[int], tallies: dict[int, Tally]) -> bool:
        """Whether a step may be taken; to drop the last verified copy is refused here, whoever asks for it."""
        if item.outcome is not Settling.DROPPING or row.replica.id in others:
            return row.order.action != ReplicaAction.DROP or (
                item.outcome is not Settling.DONE or row.replica.state == ReplicaState.DROPPING
            )
        if row.replica.state != ReplicaState.DROPPING:
            self._end(row, tallies, Tally(refused=1, why=LAST))
        return row.replica.state == ReplicaState.DROPPING

    def _settle(self, row: _Row, item: SettledReplica, tallies: dict[int, Tally]) -> None:
        if item.outcome is Settling.DONE:
            if row.order.action == ReplicaAction.ADD:
                at = item.verified_at or self._now
                row.replica.state, row.replica.verified_at, row.replica.checked_at = ReplicaState.VERIFIED, at, at
            elif row.order.action == ReplicaAction.DROP:
                row.replica.state = ReplicaState.DROPPED
            self._end(row, tallies, Tally(done=1, bytes=row.version.size))
        elif item.outcome is Settling.DROPPING:
            row.replica.state = ReplicaState.DROPPING
        elif row.order.action == ReplicaAction.DROP and item.outcome is Settling.FAILED:
            self._end(row, tallies, Tally(refused=1, why=item.message))
        elif item.outcome is Settling.FAILED and row.order.action == ReplicaAction.VERIFY:
            self._end(row, tallies, Tally(failed=1))
        else:
            self._again(row, item, tallies)

    def _again(self, row: _Row, item: SettledReplica, tallies: dict[int, Tally]) -> None:
        """Try one again later; a copy that never comes is given up, and told."""
        order = row.order
        order.attempts, order.batch_uid, order.message = order.attempts + 1, None, item.message[:2000]
        is_final = item.outcome is Settling.FAILED or order.attempts >= TRIES
        if order.action != ReplicaAction.ADD or not is_final:
            order.next_at = self._now + timedelta(seconds=min(LONGEST_PAUSE_S, 2**order.attempts))
            return
        row.replica.state, order.next_at = ReplicaState.FAILED, None
        self._count(row, tallies, Tally(failed=1))
        order.request_id = None

    def _end(self, row: _Row, tallies: dict[int, Tally], tally: Tally) -> None:
        self._count(row, tallies, tally)
        self._session.delete(row.order)

    def _count(self, row: _Row, tallies: dict[int, Tally], more: Tally) -> None:
        if row.order.request_id is not None:
            before = tallies[row.order.request_id]
            tallies[row.order.request_id] = Tally(
                before.done + more.done,
                before.failed + more.failed,
                before.refused + more.refused,
                before.bytes + more.bytes,
                more.why or before.why,
            )

    def count(self) -> int:
        """Return how many replicas wait to be made, read or dropped."""
        wanted = select(func.count()).where(ReplicaOrderRow.next_at.is_not(None))
        return self._session.execute(wanted).scalar_one()


def _proof(row: _Row, item: SettledReplica, checksums: Mapping[int, Sequence[Any]], *, by: str) -> list[dict[str, Any]]:
    """Return the ledger's row of a copy that was read back, or that is there no more."""
    is_dropped = row.order.action == ReplicaAction.DROP
    known = checksums.get(row.version.id, ())
    if row.order.action == ReplicaAction.VERIFY or not (is_dropped or known):
        return []
    first = None if is_dropped else known[0]
    return [
        {
            "uid": new_uid(),
            "replica_id": row.replica.id,
            "verified_at": item.verified_at,
            "is_match": not is_dropped,
            "read_from": item.read_from or ReadFrom.CACHE,
            "algorithm": first and first.algorithm,
            "value": first and first.value,
            "by": by,
            "message": "it was dropped" if is_dropped else "",
        }
    ]
