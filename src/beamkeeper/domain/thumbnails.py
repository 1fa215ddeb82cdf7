"""Small pictures of files' frames: one of a version, made on its arrival."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints, field_validator

from beamkeeper.domain.names import Input, Model, Uid

PICTURE_BYTES = 12 * 1024
"""The most that one takes; those that are made here have 9 kB at most."""

THUMBNAIL_LIMIT = 100
"""So many are asked for, or kept, at once."""

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _png(text: str) -> str:
    if not base64.b64decode(text, validate=True).startswith(SIGNATURE):
        raise ValueError("this is no PNG")
    return text


Picture = Annotated[str, StringConstraints(max_length=PICTURE_BYTES * 4 // 3), AfterValidator(_png)]
"""A PNG in base64."""


class NewThumbnail(Input):
    """The picture of a version."""

    version_uid: Uid
    png_b64: Picture


class NewThumbnails(Input):
    """Pictures to be kept; what a version had before is replaced."""

    items: Sequence[NewThumbnail] = Field(max_length=THUMBNAIL_LIMIT)


class ThumbnailQuery(Input):
    """Of which versions?"""

    versions: Annotated[
        str, StringConstraints(max_length=THUMBNAIL_LIMIT * 37, pattern=r"^[0-9a-fA-F-]{32,36}(,[0-9a-fA-F-]{32,36})*$")
    ] = Field(description=f"The uids of versions, with commas between; {THUMBNAIL_LIMIT} at most.")

    @field_validator("versions")
    @classmethod
    def _are_uids(cls, value: str) -> str:
        if len({UUID(word) for word in value.split(",")}) > THUMBNAIL_LIMIT:
            raise ValueError(f"{THUMBNAIL_LIMIT} uids are the most")
        return value

    @property
    def uids(self) -> Sequence[UUID]:
        """The uids, each once, in order."""
        return list(dict.fromkeys(UUID(word) for word in self.versions.split(",")))


class Thumbnail(Model):
    """The picture of a version."""

    version_uid: UUID
    png_b64: str


class Thumbnails(Model):
    """Those that there are of the versions that were asked for."""

    items: Sequence[Thumbnail]
