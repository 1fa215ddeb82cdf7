"""Walks through the rights of files: asking for one, stopping it, and what it found; the engine does them."""

from __future__ import annotations

from uuid import UUID

from beamkeeper.core import rights
from beamkeeper.db import StorageTransaction
from beamkeeper.domain.errors import ConflictError, NotFoundError
from beamkeeper.domain.permissions import NewPermissionWalk, PermissionWalk
from beamkeeper.domain.users import Action, Caller


def request(tx: StorageTransaction, caller: Caller, uid: UUID, new: NewPermissionWalk) -> PermissionWalk:
    """Ask for a walk through the files of an experiment; the same uid again gives the same one."""
    experiment = rights.experiment(tx, caller, Action.AUDIT, uid)
    if tx.storage.get(experiment.storage_area_uid).is_objects:
        raise ConflictError(f'experiment "{experiment.name}" is in an object store, where files have no rights of ours')
    found = tx.permissions.add(uid, new, by=caller.username)
    if found.experiment_uid != uid:
        raise NotFoundError(f"walk {new.uid} is of another experiment: take a new uid")
    return found


def show(tx: StorageTransaction, caller: Caller, uid: UUID) -> PermissionWalk:
    """Return a walk."""
    missing = NotFoundError(f"there is no walk {uid}: those that ended are kept for 30 days", uid=str(uid))
    found = tx.permissions.get(uid)
    if found is None:
        raise missing
    rights.owner(tx, caller, Action.AUDIT, found.experiment_uid, missing=missing)
    return found


def stop(tx: StorageTransaction, caller: Caller, uid: UUID) -> PermissionWalk:
    """Ask for the end of a walk; what it put right stays so."""
    show(tx, caller, uid)
    tx.permissions.request_stop(uid)
    return show(tx, caller, uid)
