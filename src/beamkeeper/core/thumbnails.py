"""Keeping small pictures of versions, and giving them to those who may read the files."""

from __future__ import annotations

import base64
from uuid import UUID

from beamkeeper.core import rights
from beamkeeper.db import StorageTransaction
from beamkeeper.domain.thumbnails import NewThumbnails, Thumbnail, ThumbnailQuery, Thumbnails
from beamkeeper.domain.users import Action, Caller


def keep(tx: StorageTransaction, caller: Caller, experiment_uid: UUID, new: NewThumbnails) -> None:
    """Keep pictures of versions: those who publish files may."""
    rights.experiment(tx, caller, Action.PUBLISH, experiment_uid)
    tx.thumbnails.keep(experiment_uid, {one.version_uid: base64.b64decode(one.png_b64) for one in new.items})


def find(tx: StorageTransaction, caller: Caller, experiment_uid: UUID, query: ThumbnailQuery) -> Thumbnails:
    """Return the pictures of versions, of those that have one."""
    rights.experiment(tx, caller, Action.FILE_READ, experiment_uid)
    found = tx.thumbnails.of(experiment_uid, query.uids)
    items = [
        Thumbnail(version_uid=uid, png_b64=base64.b64encode(found[uid]).decode()) for uid in query.uids if uid in found
    ]
    return Thumbnails(items=items)
