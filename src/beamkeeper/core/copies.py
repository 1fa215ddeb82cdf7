"""Asking the storage to copy versions to another of its areas, or to remove them, and reading what came of it."""

from __future__ import annotations

from uuid import UUID

from beamkeeper.core import rights
from beamkeeper.db import StorageTransaction
from beamkeeper.domain.errors import InvalidError, NotFoundError
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.names import show_path
from beamkeeper.domain.replicas import Copy, NewCopy
from beamkeeper.domain.storage import AreaPause
from beamkeeper.domain.users import Action, Caller


def request(tx: StorageTransaction, caller: Caller, new: NewCopy) -> Copy:
    """Ask for versions to be copied or removed; the same uid again gives the same copy."""
    rights.experiment(tx, caller, Action.PUBLISH, new.experiment_uid)
    found = tx.copies.get(new.uid)
    if found is None:
        _check(tx, new)
        tx.copies.add(new)
        found = tx.copies.get(new.uid)
    if found is None or found.experiment_uid != new.experiment_uid:
        raise NotFoundError(f"copy {new.uid} is of another experiment")
    return found


def _check(tx: StorageTransaction, new: NewCopy) -> None:
    for uid in (new.storage_area_uid, new.source_area_uid):
        if uid is not None:
            tx.storage.get(uid)
    if new.source_area_uid == new.storage_area_uid:
        raise InvalidError("a copy goes to another storage area than it comes from")
    for item in new.items:
        if item.relpath.split(b"/", 1)[0].decode("ascii", "replace") not in (Tree.DATA, Tree.ANALYSIS):
            raise NotFoundError(
                f'path "{show_path(item.relpath)}" is in neither tree: it begins with data/ or analysis/'
            )
        if not item.checksums and item.link_target_b64 is None:
            raise InvalidError(f'"{show_path(item.relpath)}" has no checksum to be verified by')


def show(tx: StorageTransaction, caller: Caller, uid: UUID) -> Copy:
    """Return a copy."""
    missing = NotFoundError(f"there is no copy {uid}: answers are kept for a day", uid=str(uid))
    found = tx.copies.get(uid)
    if found is None:
        raise missing
    rights.owner(tx, caller, Action.PUBLISH, found.experiment_uid, missing=missing)
    return found


def failing(tx: StorageTransaction) -> tuple[AreaPause, ...]:
    """Return every storage area for which copies wait because it fails."""
    return tuple(
        AreaPause(
            name=tx.storage.get(each.storage_area_uid).name,
            trouble=each.trouble,
            message=each.message,
            since=each.since,
            files=each.files,
        )
        for each in tx.copies.failing()
    )
