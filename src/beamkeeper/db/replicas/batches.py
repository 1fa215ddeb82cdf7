"""What whoever sees to a batch of replicas must know of each: where its place is, and which copies are good."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from beamkeeper.db.base import EPOCH
from beamkeeper.db.experiments import ExperimentRow
from beamkeeper.db.files.registering import checksums_of
from beamkeeper.db.files.tables import FileRow, ReplicaRow, VersionRow, to_replica
from beamkeeper.db.files.verifying import device_read_at
from beamkeeper.db.replicas.tables import ReplicaOrderRow
from beamkeeper.domain.files import PRESENT, FileKind, ReplicaState
from beamkeeper.domain.ledger import ReplicaProof
from beamkeeper.domain.names import Checksum, to_b64
from beamkeeper.domain.replicas import FRESH_DAYS, DueReplica, DueReplicas, DueSource, ReplicaAction
from beamkeeper.domain.storage import Replaced

STATES = (ReplicaState.VERIFIED, ReplicaState.UNVERIFIED)
"""Of copies that may be copied from, the better first."""


@dataclass(frozen=True, slots=True)
class _Around:
    """What is known around the versions of a batch."""

    checksums: Mapping[int, Sequence[Checksum]]
    here: Mapping[int, Mapping[int, Sequence[Checksum]]]
    """By file: the versions that stand in the area, by number, with their checksums."""
    sources: Mapping[int, Sequence[DueSource]]
    """By version: copies elsewhere that are not suspect, best first."""


def described(session: Session, now: datetime, orders: Sequence[ReplicaOrderRow]) -> DueReplicas:
    """Return orders of one batch with all that is needed to see to them."""
    first = orders[0]
    wanted = (
        select(ReplicaRow, VersionRow, FileRow)
        .join(VersionRow, VersionRow.id == ReplicaRow.version_id)
        .join(FileRow, FileRow.id == VersionRow.file_id)
        .where(ReplicaRow.id.in_([order.replica_id for order in orders]))
        .order_by(ReplicaRow.id)
    )
    rows = [(replica, version, file) for replica, version, file in session.execute(wanted)]
    around = _Around(
        checksums=checksums_of(session, [version.id for _, version, _ in rows]),
        here=_here(session, first.storage_area_uid, [file.id for _, _, file in rows]),
        sources=_sources(session, now, first, {version.id: version.uid for _, version, _ in rows}),
    )
    return DueReplicas(
        uid=first.batch_uid,
        action=ReplicaAction(first.action),
        experiment_uid=first.experiment_uid,
        storage_area_uid=first.storage_area_uid,
        asked_by=first.asked_by,
        items=tuple(_due(replica, version, file, around) for replica, version, file in rows),
    )


def _here(session: Session, area_uid: UUID, file_ids: Sequence[int]) -> Mapping[int, Mapping[int, Sequence[Checksum]]]:
    wanted = (
        select(VersionRow.file_id, VersionRow.number, VersionRow.id)
        .join(ReplicaRow, ReplicaRow.version_id == VersionRow.id)
        .where(
            VersionRow.file_id.in_(file_ids),
            ReplicaRow.storage_area_uid == area_uid,
            ReplicaRow.state.in_(sorted(PRESENT)),
        )
        .order_by(VersionRow.file_id, VersionRow.number)
    )
    found = session.execute(wanted).all()
    newest = {file_id: version_id for file_id, _, version_id in found}
    checksums = checksums_of(session, list(newest.values()))
    here: defaultdict[int, dict[int, Sequence[Checksum]]] = defaultdict(dict)
    for file_id, number, version_id in found:
        here[file_id][number] = checksums.get(version_id, ())
    return here


def _sources(
    session: Session, now: datetime, order: ReplicaOrderRow, versions: Mapping[int, UUID]
) -> Mapping[int, Sequence[DueSource]]:
    """Return where versions are: verified copies first, of those the lately read, then those in the own area."""
    own = session.execute(
        select(ExperimentRow.storage_area_uid).where(ExperimentRow.uid == order.experiment_uid)
    ).scalar_one()
    wanted = select(ReplicaRow).where(
        ReplicaRow.version_id.in_(versions),
        ReplicaRow.storage_area_uid != order.storage_area_uid,
        ReplicaRow.state.in_(STATES),
    )
    rows = session.scalars(wanted).all()
    read_at = device_read_at(session, [row.id for row in rows])
    since = now - timedelta(days=FRESH_DAYS)
    found: defaultdict[int, list[DueSource]] = defaultdict(list)
    for row in rows:
        proof = ReplicaProof(replica=to_replica(row, versions[row.version_id]), device_read_at=read_at.get(row.id))
        found[row.version_id].append(
            DueSource(
                replica_uid=row.uid,
                storage_area_uid=row.storage_area_uid,
                state=proof.replica.state,
                is_fresh=proof.is_fresh(since),
            )
        )

    def rank(one: DueSource) -> tuple[int, bool, bool, UUID]:
        return STATES.index(one.state), not one.is_fresh, one.storage_area_uid != own, one.storage_area_uid

    return {id_: sorted(sources, key=rank) for id_, sources in found.items()}


def _due(replica: ReplicaRow, version: VersionRow, file: FileRow, around: _Around) -> DueReplica:
    here = around.here.get(file.id, {})
    others = [number for number in here if number != version.number]
    earlier = max((number for number in others if number < version.number), default=None)
    replaces = None
    if earlier is not None and here[earlier]:
        replaces = Replaced(number=earlier, checksum=here[earlier][0])
    return DueReplica(
        path_b64=to_b64(file.path),
        replica_uid=replica.uid,
        version_uid=version.uid,
        number=version.number,
        kind=FileKind.FILE if version.link_target is None else FileKind.LINK,
        size=version.size,
        checksums=tuple(around.checksums.get(version.id, ())),
        link_target_b64=version.link_target,
        state=ReplicaState(replica.state),
        is_plain=all(number < version.number for number in others),
        is_ours=replica.verified_at is not None or replica.checked_at > EPOCH,
        replaces=replaces,
        sources=tuple(around.sources.get(version.id, ())),
    )
