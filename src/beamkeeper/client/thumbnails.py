"""Small pictures of files, as the storage service keeps them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar
from uuid import UUID

from beamkeeper.client.http import Http
from beamkeeper.domain.thumbnails import THUMBNAIL_LIMIT, NewThumbnail, NewThumbnails, ThumbnailQuery, Thumbnails

ItemT = TypeVar("ItemT")


class ThumbnailStore:
    """The pictures of versions, by the uids of these."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def of(self, experiment_uid: UUID, versions: Sequence[UUID]) -> Mapping[UUID, bytes]:
        """Return the pictures of versions of an experiment, as PNG; those without one are left out."""
        found: dict[UUID, bytes] = {}
        for part in _parts(versions):
            query = ThumbnailQuery(versions=",".join(uid.hex for uid in part))
            answer: Thumbnails = self._http().get(_path(experiment_uid), Thumbnails, query=query)
            found.update({one.version_uid: base64.b64decode(one.png_b64) for one in answer.items})
        return found

    def keep(self, experiment_uid: UUID, pictures: Mapping[UUID, bytes]) -> None:
        """Keep pictures of versions, for services."""
        for part in _parts(list(pictures.items())):
            items = [NewThumbnail(version_uid=uid, png_b64=base64.b64encode(png).decode()) for uid, png in part]
            self._http().call("POST", _path(experiment_uid), None, body=NewThumbnails(items=items))


def _path(experiment_uid: UUID) -> str:
    return f"/api/v1/experiments/{experiment_uid}/thumbnails"


def _parts(items: Sequence[ItemT]) -> Iterator[Sequence[ItemT]]:
    return (items[start : start + THUMBNAIL_LIMIT] for start in range(0, len(items), THUMBNAIL_LIMIT))
