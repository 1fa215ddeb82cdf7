"""Explaining why somebody may, or may not: for those who decide on it."""

from __future__ import annotations

from uuid import UUID

from beamkeeper.core import rights, stations
from beamkeeper.db import StorageTransaction
from beamkeeper.domain.access import Access, explained
from beamkeeper.domain.users import Action, Caller, Target


def on_experiment(tx: StorageTransaction, caller: Caller, username: str, uid: UUID) -> Access:
    """Say what somebody may do on an experiment."""
    experiment = rights.experiment(tx, caller, Action.EXPERIMENT_PEOPLE, uid)
    return _access(tx, username, experiment.target(tx.now), f'experiment "{experiment.name}"')


def on_station(tx: StorageTransaction, caller: Caller, username: str, name: str) -> Access:
    """Say what somebody may do at a station, in none of its experiments."""
    station = stations.get(tx, caller, name, action=Action.STATION_MANAGE)
    return _access(tx, username, Target(station_uid=station.uid), f'station "{name}"')


def _access(tx: StorageTransaction, username: str, target: Target, name: str) -> Access:
    user = tx.users.named(username)
    caller = Caller(user.username, user_uid=user.uid, grants=tuple(tx.users.grants_of(user.uid)))
    return explained(user, caller, target, name)
