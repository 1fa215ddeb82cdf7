"""Asking for a publish, and reading what became of it."""

from __future__ import annotations

from uuid import UUID

from beamkeeper.core import rights
from beamkeeper.db import StorageTransaction
from beamkeeper.domain.errors import InvalidError, NotFoundError
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.names import RelPath, show_path
from beamkeeper.domain.storage import NewPublish, Publish
from beamkeeper.domain.users import Action, Caller


def request(tx: StorageTransaction, caller: Caller, new: NewPublish) -> Publish:
    """Ask for a batch to be published; the same uid again gives the same publish."""
    rights.experiment(tx, caller, Action.PUBLISH, new.experiment_uid)
    found = tx.publishes.get(new.uid)
    if found is None:
        for item in new.items:
            if item.relpath.split(b"/", 1)[0].decode("ascii", "replace") not in (Tree.DATA, Tree.ANALYSIS):
                raise NotFoundError(
                    f'path "{show_path(item.relpath)}" is in neither tree: it begins with data/ or analysis/'
                )
            RelPath(item.staged)  # refused where it climbs out
            if not item.checksums and item.link_target_b64 is None:
                raise InvalidError(f'"{show_path(item.relpath)}" has no checksum to be verified by')
        tx.publishes.add(new)
        found = tx.publishes.get(new.uid)
    if found is None or found.experiment_uid != new.experiment_uid:
        raise NotFoundError(f"publish {new.uid} is of another experiment")
    return found


def show(tx: StorageTransaction, caller: Caller, uid: UUID) -> Publish:
    """Return a publish."""
    found = tx.publishes.get(uid)
    missing = NotFoundError(f"there is no publish {uid}", uid=str(uid))
    if found is None:
        raise missing
    rights.owner(tx, caller, Action.PUBLISH, found.experiment_uid, missing=missing)
    return found
