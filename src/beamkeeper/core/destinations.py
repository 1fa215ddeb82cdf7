"""Further destinations of a DAQ or upload: which storage areas are to have a copy too, and who may say so."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from beamkeeper.db import AcquisitionTransaction
from beamkeeper.domain.acquisition import NewDaq, NewPut, NewUpload
from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.users import Action, Caller, require


def chosen(
    tx: AcquisitionTransaction, caller: Caller, new: NewDaq | NewUpload | NewPut, *, default: Sequence[str]
) -> tuple[str, ...]:
    """Return the names of the areas that are to have a copy too; others than the station's default are for managers."""
    experiment = tx.experiments.get(new.experiment_uid)
    own = tx.storage.get(experiment.storage_area_uid).name
    if new.also is None:
        return tuple(name for name in dict.fromkeys(default) if name != own)
    for name in new.also:
        tx.storage.named(name)
        if name == own:
            raise InvalidError(f'"{name}" is the own storage area of experiment "{experiment.name}": it has all files')
    if not set(new.also) <= set(default):
        what = f'experiment "{experiment.name}": copies in other storage areas than the settings name'
        require(caller, Action.REPLICA_MANAGE, experiment.target(tx.now), what)
    return tuple(dict.fromkeys(new.also))


def uids(tx: AcquisitionTransaction, names: Sequence[str]) -> tuple[UUID, ...]:
    """Return the uids of storage areas."""
    return tuple(tx.storage.named(name).uid for name in names)
