"""What replicas there are of an experiment's files: a page of them, and how many in each storage area."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from beamkeeper.db.base import EPOCH
from beamkeeper.db.files.tables import FileRow, ReplicaRow, VersionRow
from beamkeeper.db.finding import FileSearch
from beamkeeper.db.replicas.tables import ReplicaOrderRow
from beamkeeper.db.storage import StorageAreaRow
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import FileOrder, FileQuery, ReplicaState
from beamkeeper.domain.names import to_b64
from beamkeeper.domain.replicas import AreaReplicas, ListedReplica, ListedReplicaPage, ReplicaListQuery
from beamkeeper.domain.users import Reach


class Replicas:
    """Queries on replicas as people ask for them."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def page(self, query: ReplicaListQuery, experiment: Experiment) -> ListedReplicaPage:
        """Return the replicas of a page of files, in the order of paths; one may have none of those wanted."""
        asked = FileQuery(
            experiment_uid=experiment.uid, glob=query.glob, after=query.after, limit=query.limit, order=FileOrder.PATH
        )
        files = FileSearch(self._session, self._now, asked, Reach(is_all=True)).page()
        names = self._names()
        meant: list[ColumnElement[bool]] = [FileRow.id.in_(files.ids)]
        if not query.all_versions:
            meant.append(VersionRow.number == FileRow.number)
        if query.state is not None:
            meant.append(ReplicaRow.state == query.state)
        if query.storage_area is not None:
            meant.append(ReplicaRow.storage_area_uid.in_([uid for uid, n in names.items() if n == query.storage_area]))
        wanted = (
            select(ReplicaRow, VersionRow, FileRow, ReplicaOrderRow.message)
            .join(VersionRow, VersionRow.id == ReplicaRow.version_id)
            .join(FileRow, FileRow.id == VersionRow.file_id)
            .outerjoin(ReplicaOrderRow, ReplicaOrderRow.replica_id == ReplicaRow.id)
            .where(*meant)
            .order_by(FileRow.path, VersionRow.number, ReplicaRow.id)
        )
        rows = self._session.execute(wanted).all()
        items = tuple(
            ListedReplica(
                path_b64=to_b64(file.path),
                uid=replica.uid,
                file_uid=file.uid,
                number=version.number,
                size=version.size,
                storage_area=names.get(replica.storage_area_uid, str(replica.storage_area_uid)),
                is_first=replica.storage_area_uid == experiment.storage_area_uid,
                state=ReplicaState(replica.state),
                verified_at=replica.verified_at,
                checked_at=replica.checked_at if replica.checked_at > EPOCH else None,
                message=message or "",
            )
            for replica, version, file, message in rows
        )
        return ListedReplicaPage(items=items, next=files.next)

    def by_area(self, experiment: Experiment, *, waiting_only: bool) -> Sequence[AreaReplicas]:
        """Return how many replicas are in each storage area; `waiting_only`: only what is still to be done there."""
        names = self._names()
        waiting = self._waiting(experiment.uid)
        states: dict[UUID, dict[ReplicaState, int]] = {uid: {} for uid in waiting}
        for area_uid, state, count in () if waiting_only else self._states(experiment.uid):
            states.setdefault(area_uid, {})[ReplicaState(state)] = count
        own = experiment.storage_area_uid
        return [
            AreaReplicas(
                storage_area=names.get(uid, str(uid)),
                is_first=uid == own,
                states=states[uid],
                waiting=waiting.get(uid, (0, ""))[0],
                message=waiting.get(uid, (0, ""))[1],
            )
            for uid in sorted(states, key=lambda uid: (uid != own, names.get(uid, "")))
        ]

    def _states(self, experiment_uid: UUID) -> Sequence[tuple[UUID, str, int]]:
        wanted = (
            select(ReplicaRow.storage_area_uid, ReplicaRow.state, func.count())
            .select_from(FileRow)
            .join(VersionRow, (VersionRow.file_id == FileRow.id) & (VersionRow.number == FileRow.number))
            .join(ReplicaRow, ReplicaRow.version_id == VersionRow.id)
            .where(FileRow.experiment_uid == experiment_uid, FileRow.deleted_at.is_(None))
            .group_by(ReplicaRow.storage_area_uid, ReplicaRow.state)
        )
        return [(uid, state, count) for uid, state, count in self._session.execute(wanted)]

    def _waiting(self, experiment_uid: UUID) -> Mapping[UUID, tuple[int, str]]:
        """Return how many orders wait in each storage area, and why some do that were tried."""
        order = ReplicaOrderRow
        mine = (order.experiment_uid == experiment_uid, order.next_at.is_not(None))
        counts = select(order.storage_area_uid, func.count()).where(*mine).group_by(order.storage_area_uid)
        found = {uid: (count, "") for uid, count in self._session.execute(counts)}
        tried = select(order.storage_area_uid, func.max(order.message)).where(*mine, order.attempts > 0)
        for uid, message in self._session.execute(tried.group_by(order.storage_area_uid)):
            found[uid] = (found[uid][0], message)
        return found

    def _names(self) -> Mapping[UUID, str]:
        return dict(self._session.execute(select(StorageAreaRow.uid, StorageAreaRow.name)).all())
