"""Requests for replicas of many files: kept, and worked through a few hundred files at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, delete, or_, select
from sqlalchemy.orm import Session

from beamkeeper.db.experiments import ExperimentRow
from beamkeeper.db.files.tables import FileRow, ReplicaRow, VersionRow
from beamkeeper.db.finding import FileSearch
from beamkeeper.db.replicas.placing import Placed, Placing, versions_of, want
from beamkeeper.db.replicas.tables import ReplicaOrderRow, ReplicaRequestRow, to_request
from beamkeeper.db.scope import experiment_uids, lock_experiments
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import FileOrder, FileQuery, ReplicaState
from beamkeeper.domain.replicas import (
    NewReplicaRequest,
    ReplicaAction,
    ReplicaRequest,
    ReplicaRequestQuery,
    RequestState,
)
from beamkeeper.domain.storage import StorageArea
from beamkeeper.domain.users import Reach

DISPLACED = "they are dropped, as was asked for later"

CHOSEN_AT_ONCE = 500
"""So many files are gone through in one transaction: registering waits for no more than that on SQLite."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of some replicas that one request was about."""

    done: int = 0
    failed: int = 0
    refused: int = 0
    bytes: int = 0
    why: str = ""
    """Why some were refused."""


class ReplicaRequests:
    """Queries on what is asked for replicas."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(
        self, new: NewReplicaRequest, experiment: Experiment, area: StorageArea | None, *, by: str
    ) -> ReplicaRequest:
        """Write a new one down; it is worked through later."""
        row = ReplicaRequestRow(
            uid=new.uid,
            action=new.action,
            experiment_uid=experiment.uid,
            experiment=experiment.name,
            storage_area_uid=area.uid if area else None,
            storage_area=area.name if area else "",
            glob=new.glob,
            all_versions=new.all_versions,
            state=RequestState.RUNNING,
            message="",
            place=None,
            is_chosen=False,
            asked_by=by,
            created_at=self._now,
            ended_at=None,
            **dict.fromkeys(("chosen", "there", "refused", "done", "failed", "bytes"), 0),
        )
        self._session.add(row)
        self._session.flush()  # so that the uid's constraint speaks here
        return to_request(row)

    def find(self, uid: UUID) -> ReplicaRequest | None:
        """Return one, None where there is none."""
        wanted = select(ReplicaRequestRow).where(ReplicaRequestRow.uid == uid)
        row = self._session.scalars(wanted).one_or_none()
        return None if row is None else to_request(row)

    def list(self, query: ReplicaRequestQuery, reach: Reach) -> Sequence[ReplicaRequest]:
        """Return some, newest first, of the experiments within reach."""
        meant: list[ColumnElement[bool]] = []
        if query.experiment_uid is not None:
            meant.append(ReplicaRequestRow.experiment_uid == query.experiment_uid)
        elif not reach.is_all:
            meant.append(ReplicaRequestRow.experiment_uid.in_(experiment_uids(reach, self._now)))
        if query.is_active:
            meant.append(ReplicaRequestRow.state == RequestState.RUNNING)
        wanted = select(ReplicaRequestRow).where(*meant).order_by(ReplicaRequestRow.id.desc()).limit(query.limit)
        return [to_request(row) for row in self._session.scalars(wanted)]

    def stop(self, uid: UUID) -> ReplicaRequest:
        """End one: what is handed out already is seen to, and no more; one that has ended stays as it is."""
        wanted = select(ReplicaRequestRow).where(ReplicaRequestRow.uid == uid).with_for_update()
        row = self._session.scalars(wanted).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no request for replicas {uid}", uid=str(uid))
        if row.state == RequestState.RUNNING:
            row.state, row.ended_at, row.message = RequestState.STOPPED, self._now, "it was stopped"
            order = ReplicaOrderRow
            # Replicas that were to be made stay wanted, which counts for nothing: asking again goes on from there.
            waiting = delete(order).where(order.request_id == row.id, order.batch_uid.is_(None))
            # One that is being dropped may be gone in part: that is brought to its end.
            dropping = select(ReplicaRow.id).where(
                ReplicaRow.id == order.replica_id, ReplicaRow.state == ReplicaState.DROPPING
            )
            is_not_begun = or_(order.action != ReplicaAction.DROP, ~dropping.correlate(order).exists())
            self._session.execute(waiting.where(is_not_begun), execution_options={"synchronize_session": False})
        self._session.flush()
        return to_request(row)

    def want(self, version_uids: Iterable[UUID], area_uids: Sequence[UUID], *, asked_by: str) -> Placed:
        """Let versions be copied to further storage areas."""
        experiments = self.experiments_of(version_uids)
        lock_experiments(self._session, set(experiments.values()))
        return want(self._session, self._now, experiments, area_uids, asked_by=asked_by)

    def experiments_of(self, version_uids: Iterable[UUID]) -> Mapping[int, UUID]:
        """Return the experiments of versions, by the local keys of these; NotFoundError where one is not known."""
        uids = set(version_uids)
        wanted = select(VersionRow.id, VersionRow.uid, FileRow.experiment_uid).join(
            FileRow, FileRow.id == VersionRow.file_id
        )
        rows = self._session.execute(wanted.where(VersionRow.uid.in_(uids))).all()
        if unknown := uids - {uid for _, uid, _ in rows}:
            raise NotFoundError(f"there is no version {min(unknown)}", uid=str(min(unknown)))
        return {id_: experiment_uid for id_, _, experiment_uid in rows}

    # What the engine does.

    def is_any(self) -> bool:
        """Whether there is a request for which replicas are still to be chosen."""
        row = ReplicaRequestRow
        wanted = select(row.id).where(row.state == RequestState.RUNNING, row.is_chosen.is_(False)).limit(1)
        return self._session.execute(wanted).first() is not None

    def step(self) -> bool:
        """Choose replicas for the oldest request that needs it; tell whether there may be more to do."""
        row = self._session.scalars(
            select(ReplicaRequestRow)
            .where(ReplicaRequestRow.state == RequestState.RUNNING, ReplicaRequestRow.is_chosen.is_(False))
            .order_by(ReplicaRequestRow.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        ).one_or_none()
        if row is None:
            return False
        lock_experiments(self._session, [row.experiment_uid])
        query = FileQuery(
            experiment_uid=row.experiment_uid,
            glob=row.glob,
            after=row.place,
            limit=CHOSEN_AT_ONCE,
            order=FileOrder.PATH,
        )
        page = FileSearch(self._session, self._now, query, Reach(is_all=True)).page()
        placed = self._place(row, versions_of(self._session, page.ids, is_all=row.all_versions))
        row.chosen += placed.chosen
        row.there += placed.there
        row.refused += placed.refused
        if placed.reasons:
            row.message = _left("; ".join(sorted(placed.reasons)))
        row.place, row.is_chosen = page.next, page.next is None
        self._end_if_over(row)
        self.count({id_: Tally(refused=count, why=DISPLACED) for id_, count in placed.displaced.items()})
        return True

    def _place(self, row: ReplicaRequestRow, version_ids: Sequence[int]) -> Placed:
        placing = Placing(self._session, self._now, row.experiment_uid, row.asked_by, row.id)
        area_uid = row.storage_area_uid
        if row.action == ReplicaAction.VERIFY:
            return placing.verify(version_ids, area_uid)
        if area_uid is None:
            return Placed()
        if row.action == ReplicaAction.ADD:
            return placing.add(version_ids, area_uid)
        own = select(ExperimentRow.storage_area_uid).where(ExperimentRow.uid == row.experiment_uid)
        is_own = self._session.execute(own).scalar_one() == area_uid
        return placing.drop(version_ids, area_uid, is_own=is_own)

    def count(self, tallies: Mapping[int, Tally]) -> None:
        """Take in what became of replicas, by the local keys of the requests that they were of."""
        wanted = select(ReplicaRequestRow).where(ReplicaRequestRow.id.in_(tallies)).order_by(ReplicaRequestRow.id)
        for row in self._session.scalars(wanted.with_for_update()):
            tally = tallies[row.id]
            row.done += tally.done
            row.failed += tally.failed
            row.bytes += tally.bytes
            row.refused += tally.refused
            row.chosen -= tally.refused
            if tally.why:
                row.message = _left(tally.why)
            self._end_if_over(row)
        self._session.flush()

    def _end_if_over(self, row: ReplicaRequestRow) -> None:
        if row.state == RequestState.RUNNING and row.is_chosen and row.done + row.failed >= row.chosen:
            row.state, row.ended_at = RequestState.DONE, self._now


def _left(why: str) -> str:
    return f"some are left as they are: {why}"[:2000]
