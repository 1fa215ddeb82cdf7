"""Small pictures of files over HTTP: many by one question."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from beamkeeper.core import thumbnails as core
from beamkeeper.domain.thumbnails import NewThumbnails, ThumbnailQuery, Thumbnails
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import StorageTx, StorageWriteTx, Who

router = APIRouter(route_class=StrictRoute, tags=["files"])


@router.get("/experiments/{uid}/thumbnails", summary="Small pictures of versions")
def find(uid: UUID, query: Annotated[ThumbnailQuery, Query()], tx: StorageTx, who: Who) -> Thumbnails:
    """Of the first frame of each, as PNG in base64; versions without one are left out."""
    return core.find(tx, who, uid, query)


@router.post("/experiments/{uid}/thumbnails", summary="Keep small pictures of versions", status_code=204)
def keep(uid: UUID, new: NewThumbnails, tx: StorageWriteTx, who: Who) -> None:
    """For services: what a version had before is replaced."""
    core.keep(tx, who, uid, new)
