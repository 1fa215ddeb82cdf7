"""Getting files back: sets that are frozen so that a resumed download gives the same bytes, links, and who got what."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from beamkeeper.domain.names import (
    Checksum,
    ChecksumText,
    Input,
    Model,
    Title,
    Uid,
    Username,
    UtcTime,
    WireInt,
    WithPath,
)

SET_LIMIT = 1000
"""The most files in one call that adds to a set; a set has any number."""

LONGEST_LINK_DAYS = 366

SetName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""The directory that everything is in, and the name of the archive."""


class ContentQuery(Input, WithPath):
    """Which file's bytes are wanted?"""

    version: int | None = Field(default=None, ge=1, le=2**31 - 1, description="An older version; else the newest.")
    storage_area_uid: Uid | None = Field(default=None, description="The copy in this area, not in the own one.")
    checksum: ChecksumText | None = Field(
        default=None, description="As catalogued: a copy in another area that has it is sent where the own one fails."
    )


class NewSetFile(Input, WithPath):
    """A file of a set, as the catalogue knows it."""

    version: int = Field(ge=1, le=2**31 - 1)
    size: WireInt = Field(ge=0, lt=2**63)
    checksum: Checksum | None = None
    link_target_b64: str | None = Field(default=None, description="Set on a symbolic link.")


class NewFileSet(Input):
    """A set of files to be got as one archive; asking again with the same uid gives the same set."""

    uid: Uid
    experiment_uid: Uid
    name: SetName


class SetFiles(Input):
    """Files to be added to a set that is not frozen yet, from the position `start` on."""

    start: int = Field(ge=0)
    files: tuple[NewSetFile, ...] = Field(max_length=SET_LIMIT)
    is_end: bool = Field(default=False, description="These are the last: the set is frozen.")


class FileSet(Model):
    """A set of files; frozen, it has a size, and every byte of its archive has its place."""

    uid: Uid
    experiment_uid: Uid
    name: SetName
    files: WireInt = 0
    bytes: WireInt = Field(default=0, description="Of the files together.")
    size: WireInt = Field(default=0, description="Of the archive, so far as it is known.")
    is_frozen: bool = Field(default=False, description="Its files are all named, and its archive can be got.")
    etag: str = Field(default="", description="What tells this archive from any other, once it is frozen.")
    created_by: Username
    created_at: UtcTime


class NewLink(Input):
    """A link to a frozen set, for people without an account; asking again with the same uid is refused."""

    uid: Uid
    set_uid: Uid
    expires_at: UtcTime
    note: Title = Field(default="", description="For whom it is, or why.")


class LinkState(StrEnum):
    """Whether a link can be used."""

    VALID = "valid"
    EXPIRED = "expired"
    REVOKED = "revoked"
    DEAD = "dead"
    """Its maker may not share this experiment any more, or links into it are not allowed."""


class Link(Model):
    """A link that needs no client and no login."""

    uid: Uid
    set_uid: Uid
    experiment_uid: Uid
    name: SetName
    files: WireInt
    size: WireInt
    note: Title = ""
    created_by: Username
    created_at: UtcTime
    expires_at: UtcTime
    revoked_at: UtcTime | None = None
    state: LinkState
    downloads: WireInt = Field(default=0, description="How often it was used.")
    last_used_at: UtcTime | None = None


class NewLinkMade(Model):
    """A new link; its address is shown this once, and kept by us only as a hash."""

    link: Link
    path: str = Field(repr=False, description="Below the address of the storage service.")


class Sharing(Model):
    """Whether links may be made into an experiment."""

    experiment_uid: Uid
    is_allowed: bool
    reason: Title = ""
    decided_by: Username | None = None
    decided_at: UtcTime | None = None


class SharingChange(Input):
    """Allow links into a proprietary experiment, or forbid them again; those that exist follow."""

    is_allowed: bool


class Delivery(Model):
    """Bytes that somebody was sent: one request, and how far it came."""

    uid: Uid
    experiment_uid: Uid
    username: str = Field(description="Who asked, or who made the link.")
    link_uid: Uid | None = None
    set_uid: Uid | None = None
    path_b64: str | None = Field(default=None, description="Of a single file.")
    size: WireInt = Field(description="Of the whole file or archive.")
    first_byte: WireInt
    end_byte: WireInt = Field(description="Up to here bytes were sent: the last byte is the one before.")
    is_whole: bool = Field(description="What was asked for was sent to its end.")
    message: Title = ""
    begun_at: UtcTime
    heard_at: UtcTime


class DeliveryPage(Model):
    """Some deliveries, newest first, and the cursor that continues the list."""

    items: tuple[Delivery, ...]
    next: str | None = None
