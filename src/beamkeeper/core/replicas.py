"""Replicas: who may see them, and who may have them made, read again and dropped."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from beamkeeper.core import rights
from beamkeeper.db import CatalogTransaction
from beamkeeper.domain.errors import ConflictError, InvalidError, NotFoundError
from beamkeeper.domain.events import NewEvent
from beamkeeper.domain.replicas import (
    AreaReplicas,
    DueReplicas,
    ListedReplicaPage,
    NewReplicaRequest,
    ReplicaAction,
    ReplicaListQuery,
    ReplicaRequest,
    ReplicaRequestQuery,
    SettledReplicas,
    WantedReplicas,
)
from beamkeeper.domain.users import Action, Caller, Target, reach, require

CHANGED = "replicas.changed"
"""The kind of event that tells of copies that were made, read again or dropped."""


def list_(tx: CatalogTransaction, caller: Caller, query: ReplicaListQuery) -> ListedReplicaPage:
    """Return a page of the replicas of an experiment."""
    experiment = rights.experiment(tx, caller, Action.FILE_READ, query.experiment_uid)
    if query.storage_area is not None:
        tx.storage.named(query.storage_area)
    return tx.replicas.page(query, experiment)


def by_area(tx: CatalogTransaction, caller: Caller, uid: UUID, *, waiting_only: bool) -> Sequence[AreaReplicas]:
    """Return how the files of an experiment stand in each storage area."""
    experiment = rights.experiment(tx, caller, Action.EXPERIMENT_READ, uid)
    return tx.replicas.by_area(experiment, waiting_only=waiting_only)


def ask(tx: CatalogTransaction, caller: Caller, new: NewReplicaRequest) -> ReplicaRequest:
    """Ask for replicas to be made, read again or dropped; the same uid again gives the same request."""
    experiment = rights.experiment(tx, caller, Action.REPLICA_MANAGE, new.experiment_uid)
    rights.check_own(tx, experiment)
    area = None if new.storage_area is None else tx.storage.named(new.storage_area)
    if area is None and new.action is not ReplicaAction.VERIFY:
        raise InvalidError(f"in which storage area are copies to be {new.action.past}? name it")
    found = tx.replica_requests.find(new.uid)
    if found is None:
        return tx.replica_requests.add(new, experiment, area, by=caller.username)
    if (found.experiment_uid, found.action) != (new.experiment_uid, new.action):
        raise ConflictError(f"{new.uid} is another request: give each a uid of its own")
    return found


def show(tx: CatalogTransaction, caller: Caller, uid: UUID) -> ReplicaRequest:
    """Return a request, and how far it is."""
    missing = NotFoundError(f"there is no request for replicas {uid}", uid=str(uid))
    found = tx.replica_requests.find(uid)
    if found is None:
        raise missing
    rights.owner(tx, caller, Action.REPLICA_MANAGE, found.experiment_uid, missing=missing)
    return found


def requests(tx: CatalogTransaction, caller: Caller, query: ReplicaRequestQuery) -> Sequence[ReplicaRequest]:
    """Return requests of the experiments whose replicas the caller manages, newest first."""
    if query.experiment_uid is not None:
        rights.experiment(tx, caller, Action.REPLICA_MANAGE, query.experiment_uid)
    return tx.replica_requests.list(query, reach(caller, Action.REPLICA_MANAGE))


def stop(tx: CatalogTransaction, caller: Caller, uid: UUID) -> ReplicaRequest:
    """End a request: what is under way is finished, the rest is not begun."""
    show(tx, caller, uid)
    return tx.replica_requests.stop(uid)


# For services.


def want(tx: CatalogTransaction, caller: Caller, wanted: WantedReplicas) -> int:
    """Let versions be copied to further storage areas, and return how many copies are to be made."""
    for uid in wanted.storage_area_uids:
        tx.storage.get(uid)
    first = min(wanted.version_uids)
    missing = NotFoundError(f"there is no version {first}", uid=str(first))
    for uid in set(tx.replica_requests.experiments_of(wanted.version_uids).values()):
        rights.check_own(tx, rights.owner(tx, caller, Action.FILE_REGISTER, uid, missing=missing))
    placed = tx.replica_requests.want(wanted.version_uids, wanted.storage_area_uids, asked_by=wanted.asked_by)
    return placed.chosen


def areas_due(tx: CatalogTransaction, caller: Caller) -> Sequence[UUID]:
    """Return the storage areas in which something is to be done for replicas of the caller's station."""
    _require_service(caller)
    return tx.replica_orders.areas([area.uid for area in tx.storage.list()], reach(caller, Action.FILE_VERIFY))


def due(tx: CatalogTransaction, caller: Caller, area_uid: UUID) -> DueReplicas | None:
    """Return the batch of replicas to be seen to in a storage area; the same one until it is settled."""
    _require_service(caller)
    return tx.replica_orders.due(tx.storage.get(area_uid).uid, reach(caller, Action.FILE_VERIFY))


def _require_service(caller: Caller) -> None:
    require(caller, Action.FILE_VERIFY, Target(station_uid=caller.station_uid), "copies that are due")


def settle(tx: CatalogTransaction, caller: Caller, settled: SettledReplicas) -> Sequence[UUID]:
    """Take in what became of replicas, and return those for which it counts."""
    replica_uids = [item.replica_uid for item in settled.items]
    experiments = set(tx.ledger.experiments_of(replica_uids).values())
    first = min(replica_uids)
    missing = NotFoundError(f"there is no replica {first}", uid=str(first))
    owned = [rights.owner(tx, caller, Action.FILE_VERIFY, uid, missing=missing) for uid in sorted(experiments)]
    for experiment in owned:
        rights.check_own(tx, experiment)
    counted = tx.replica_orders.settle(settled, by=caller.username)
    for experiment in owned if counted else ():
        facts = {"action": settled.action.value, "count": len(counted)}
        tx.events.add(
            NewEvent(kind=CHANGED, station_uid=experiment.station_uid, experiment_uid=experiment.uid, data=dict(facts))
        )
    return counted
