"""Groups of experiments in a directory server: showing them, and having them compared; the engine does that."""

from __future__ import annotations

from uuid import UUID

from beamkeeper.core import rights
from beamkeeper.db import StorageTransaction
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.groups import Compared, ExperimentGroup, GroupPage, GroupQuery, NewComparison
from beamkeeper.domain.users import Action, Caller, reach


def show(tx: StorageTransaction, caller: Caller, uid: UUID) -> ExperimentGroup:
    """Return the group of an experiment."""
    experiment = rights.experiment(tx, caller, Action.EXPERIMENT_PEOPLE, uid)
    found = tx.groups.get(uid)
    if found is None:
        raise NotFoundError(
            f'experiment "{experiment.name}" has no group: people.groups names a plugin that keeps some, '
            f"and a new experiment gets its group within seconds"
        )
    return found


def page(tx: StorageTransaction, caller: Caller, query: GroupQuery) -> GroupPage:
    """Return the groups of the experiments on whose people the caller decides."""
    return tx.groups.page(query, reach(caller, Action.EXPERIMENT_PEOPLE))


def compare(tx: StorageTransaction, caller: Caller, uid: UUID, new: NewComparison) -> ExperimentGroup:
    """Have the group of an experiment compared now."""
    show(tx, caller, uid)
    tx.groups.ask([uid], by=caller.username, is_repair=new.is_repair)
    return show(tx, caller, uid)


def compare_all(tx: StorageTransaction, caller: Caller, new: NewComparison) -> Compared:
    """Have the groups compared of all experiments on whose people the caller decides."""
    reached = reach(caller, Action.EXPERIMENT_PEOPLE)
    uids = None if reached.is_all else tx.experiments.uids(reached)
    return Compared(groups=tx.groups.ask(uids, by=caller.username, is_repair=new.is_repair))
