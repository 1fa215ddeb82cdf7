"""Placing orders: which replicas of some versions are to be made, read or dropped, and which need not or may not be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from beamkeeper.db.base import EPOCH, new_uids
from beamkeeper.db.bulk import take_ids
from beamkeeper.db.files.tables import FileRow, ReplicaRow, VersionRow
from beamkeeper.db.files.verifying import follow_versions
from beamkeeper.db.pages import parts
from beamkeeper.db.replicas.tables import ReplicaOrderRow
from beamkeeper.domain.files import PRESENT, ReplicaState
from beamkeeper.domain.replicas import ReplicaAction

LAST = "they are the last copies that are verified: `dm replica verify` reads others again"
OWN = "they stand in the experiment's own storage area, where files are read: only suspect ones are dropped there"


@dataclass(slots=True)
class Placed:
    """How many replicas something is to be done for, for how many nothing, and how many are left for good reason."""

    chosen: int = 0
    there: int = 0
    refused: int = 0
    reasons: set[str] = field(default_factory=set)
    displaced: Counter[int] = field(default_factory=Counter)
    """By request, by its local key: for how many replicas something else is done now in place of what it ordered."""

    def refuse(self, why: str) -> None:
        """Leave one as it is."""
        self.refused += 1
        self.reasons.add(why)


@dataclass(frozen=True, slots=True)
class Placing:
    """Places orders for versions, by their local keys, of one experiment; all in the transaction of its session."""

    session: Session
    now: datetime
    experiment_uid: UUID
    asked_by: str
    request_id: int | None = None

    def add(self, version_ids: Iterable[int], area_uid: UUID) -> Placed:
        """Let versions be copied to a storage area, those that are not there."""
        placed = Placed()
        for part in parts(version_ids):
            held = {row.version_id: row for row in self._replicas(part, area_uid)}
            ordered = self._ordered([row.id for row in held.values()])
            fresh = [id_ for id_ in part if id_ not in held]
            again = [row for row in held.values() if self._is_missing(row, ordered)]
            placed.there += len(held) - len(again)
            for row in again:
                row.state, row.verified_at, row.checked_at = ReplicaState.WANTED, None, EPOCH
            self.session.flush()
            self._order(ReplicaAction.ADD, area_uid, [*self._wanted(fresh, area_uid), *(row.id for row in again)])
            self._changed([*fresh, *(row.version_id for row in again)])
            placed.chosen += len(fresh) + len(again)
        return placed

    def verify(self, version_ids: Iterable[int], area_uid: UUID | None) -> Placed:
        """Let replicas be read again that stand in a storage area, or in any."""
        placed = Placed()
        for part in parts(version_ids):
            present = [row for row in self._replicas(part, area_uid) if row.state in PRESENT]
            ordered = self._ordered([row.id for row in present])
            free = [row for row in present if row.id not in ordered]
            placed.there += len(present) - len(free)
            placed.chosen += len(free)
            for uid in sorted({row.storage_area_uid for row in free}):
                here = [row.id for row in free if row.storage_area_uid == uid]
                self._order(ReplicaAction.VERIFY, uid, here)
        return placed

    def drop(self, version_ids: Iterable[int], area_uid: UUID, *, is_own: bool) -> Placed:
        """Let replicas be dropped from a storage area, but for the last verified ones; `is_own`: the experiment's."""
        placed = Placed()
        for part in parts(version_ids):
            found = list(self._replicas(part, area_uid))
            others = self._verified_elsewhere(part, area_uid)
            ordered = self._ordered([row.id for row in found])
            going: list[ReplicaRow] = []
            for row in found:
                if row.state == ReplicaState.DROPPED:
                    continue
                if row.state == ReplicaState.DROPPING or ordered.get(row.id) == ReplicaAction.DROP:
                    placed.there += 1
                elif row.state not in PRESENT:
                    row.state = ReplicaState.DROPPING
                    going.append(row)
                elif is_own and row.state != ReplicaState.SUSPECT:
                    placed.refuse(OWN)
                elif row.version_id not in others:
                    placed.refuse(LAST)
                else:
                    going.append(row)
            self.session.flush()
            placed.displaced += self._requested([row.id for row in going])
            self._order(ReplicaAction.DROP, area_uid, [row.id for row in going])
            self._changed([row.version_id for row in going])
            placed.chosen += len(going)
        return placed

    def _is_missing(self, row: ReplicaRow, ordered: Mapping[int, str]) -> bool:
        is_lost = row.state == ReplicaState.WANTED and ordered.get(row.id) != ReplicaAction.ADD
        return is_lost or row.state in (ReplicaState.FAILED, ReplicaState.DROPPED)

    def _replicas(self, version_ids: Sequence[int], area_uid: UUID | None) -> Sequence[ReplicaRow]:
        wanted = select(ReplicaRow).where(ReplicaRow.version_id.in_(version_ids)).order_by(ReplicaRow.id)
        if area_uid is not None:
            wanted = wanted.where(ReplicaRow.storage_area_uid == area_uid)
        return self.session.scalars(wanted.with_for_update()).all()

    def _verified_elsewhere(self, version_ids: Sequence[int], area_uid: UUID) -> set[int]:
        wanted = select(ReplicaRow.version_id).where(
            ReplicaRow.version_id.in_(version_ids),
            ReplicaRow.storage_area_uid != area_uid,
            ReplicaRow.state == ReplicaState.VERIFIED,
        )
        return set(self.session.scalars(wanted))

    def _ordered(self, replica_ids: Sequence[int]) -> Mapping[int, str]:
        row = ReplicaOrderRow
        wanted = select(row.replica_id, row.action).where(row.replica_id.in_(replica_ids))
        return dict(self.session.execute(wanted).all())

    def _requested(self, replica_ids: Sequence[int]) -> Counter[int]:
        """Return for how many of these replicas each request waits, by its local key."""
        row = ReplicaOrderRow
        mine = (row.replica_id.in_(replica_ids), row.request_id.is_not(None))
        wanted = select(row.request_id, func.count()).where(*mine).group_by(row.request_id)
        return Counter({request_id: count for request_id, count in self.session.execute(wanted) if request_id})

    def _wanted(self, version_ids: Sequence[int], area_uid: UUID) -> Sequence[int]:
        """Write replicas that are to be made, and return their local keys."""
        if not version_ids:
            return ()
        ids = take_ids(self.session, ReplicaRow, len(version_ids))
        rows = [
            {
                "id": id_,
                "uid": uid,
                "version_id": version_id,
                "storage_area_uid": area_uid,
                "state": ReplicaState.WANTED,
                "created_at": self.now,
                "verified_at": None,
                "checked_at": EPOCH,
                "is_to_read": False,
            }
            for id_, uid, version_id in zip(ids, new_uids(len(ids)), version_ids, strict=True)
        ]
        self.session.execute(insert(ReplicaRow), rows)
        return ids

    def _order(self, action: ReplicaAction, area_uid: UUID, replica_ids: Sequence[int]) -> None:
        """Order it in place of whatever was ordered for these replicas before."""
        if not replica_ids:
            return
        before = delete(ReplicaOrderRow).where(ReplicaOrderRow.replica_id.in_(replica_ids))
        self.session.execute(before, execution_options={"synchronize_session": False})
        rows = [
            {
                "replica_id": replica_id,
                "action": action,
                "experiment_uid": self.experiment_uid,
                "storage_area_uid": area_uid,
                "request_id": self.request_id,
                "asked_by": self.asked_by,
                "asked_at": self.now,
                "attempts": 0,
                "next_at": self.now,
                "message": "",
                "batch_uid": None,
            }
            for replica_id in replica_ids
        ]
        self.session.execute(insert(ReplicaOrderRow), rows)

    def _changed(self, version_ids: Sequence[int]) -> None:
        if version_ids:
            follow_versions(self.session, set(version_ids))


def want(
    session: Session, now: datetime, versions: Mapping[int, UUID], area_uids: Sequence[UUID], *, asked_by: str
) -> Placed:
    """Let versions, by their local keys with their experiments, be copied to further storage areas."""
    total = Placed()
    for experiment_uid in sorted(set(versions.values())):
        ids = [id_ for id_, uid in versions.items() if uid == experiment_uid]
        placing = Placing(session, now, experiment_uid, asked_by)
        for area_uid in dict.fromkeys(area_uids):
            placed = placing.add(ids, area_uid)
            total.chosen, total.there = total.chosen + placed.chosen, total.there + placed.there
    return total


def versions_of(session: Session, file_ids: Sequence[int], *, is_all: bool) -> list[int]:
    """Return the local keys of the newest versions of files, or of all; oldest first."""
    wanted = select(VersionRow.id).join(FileRow, FileRow.id == VersionRow.file_id).where(FileRow.id.in_(file_ids))
    if not is_all:
        wanted = wanted.where(VersionRow.number == FileRow.number)
    return list(session.scalars(wanted.order_by(FileRow.path, VersionRow.number)))
