"""The ledger: recording verifications, which services alone may, and asking what they prove."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

from beamkeeper.core import rights
from beamkeeper.db import CatalogTransaction
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.events import NewEvent
from beamkeeper.domain.files import FileLookup, ReplicaState
from beamkeeper.domain.ledger import (
    DirectoryPage,
    DirectoryQuery,
    FileProofs,
    NewVerifications,
    RecordedVerifications,
    ReplicaPage,
    ReplicaQuery,
)
from beamkeeper.domain.users import Action, Caller, may, reach

SUSPECT = "files.suspect"
"""The kind of event that tells of replicas that have other bytes than they should, or none."""


def record(tx: CatalogTransaction, caller: Caller, new: NewVerifications) -> RecordedVerifications:
    """Add rows to the ledger; the same uid again changes nothing."""
    experiment_of = tx.ledger.experiments_of(item.replica_uid for item in new.items)
    experiments = []
    for uid in set(experiment_of.values()):
        first = min(replica for replica, of in experiment_of.items() if of == uid)
        missing = NotFoundError(f"there is no replica {first}", uid=str(first))
        experiments.append(rights.owner(tx, caller, Action.FILE_VERIFY, uid, missing=missing))
    for experiment in experiments:
        rights.check_own(tx, experiment)
    by = f"{caller.username} for {new.on_behalf_of}" if new.on_behalf_of else caller.username
    recorded = tx.ledger.record(new.items, by=by)
    suspect = Counter(experiment_of[item.replica_uid] for item in recorded if item.state is ReplicaState.SUSPECT)
    for experiment in experiments:
        if count := suspect[experiment.uid]:
            tx.events.add(
                NewEvent(
                    kind=SUSPECT,
                    station_uid=experiment.station_uid,
                    experiment_uid=experiment.uid,
                    data={"count": count},
                )
            )
    return RecordedVerifications(items=tuple(recorded))


def replicas(tx: CatalogTransaction, caller: Caller, query: ReplicaQuery) -> ReplicaPage:
    """Return replicas of the caller's station, those looked at longest ago first."""
    if query.experiment_uid is not None:
        rights.experiment(tx, caller, Action.FILE_VERIFY, query.experiment_uid)
    return tx.ledger.replicas(query, reach(caller, Action.FILE_VERIFY))


def proofs(tx: CatalogTransaction, caller: Caller, wanted: FileLookup) -> FileProofs:
    """Return what proves the newest versions at these paths; services see hidden files too."""
    experiment = rights.experiment(tx, caller, Action.FILE_READ, wanted.experiment_uid)
    found = tx.ledger.proofs(experiment.uid, [path.relpath for path in wanted.paths])
    if not may(caller, Action.FILE_VERIFY, experiment.target(tx.now)):
        found = [proof for proof in found if proof.file.deleted_at is None]
    return FileProofs(items=tuple(found))


def directories(tx: CatalogTransaction, caller: Caller, experiment_uid: UUID, query: DirectoryQuery) -> DirectoryPage:
    """Return what is stored of an experiment by directory."""
    experiment = rights.experiment(tx, caller, Action.EXPERIMENT_READ, experiment_uid)
    return tx.ledger.directories(experiment.uid, query)
