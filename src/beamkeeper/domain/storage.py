"""Storage areas, and publishing: how staged bytes become a file's plain name."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from beamkeeper.domain.files import ReadFrom
from beamkeeper.domain.names import Checksum, Input, Model, PlainName, Title, Uid, UtcTime, WireInt, WithPath

STAGING = ".dm/staging"
"""Below an experiment's directory: where batches wait to be published."""

VERSIONS = ".dm/versions"
"""Below an experiment's directory: where older versions of a path are kept."""


class AreaKind(StrEnum):
    """What a storage area is for."""

    HOT = "hot"
    ARCHIVE = "archive"


class StorageArea(Model):
    """A place that holds files, with one address for each side."""

    uid: Uid
    name: PlainName
    kind: AreaKind = AreaKind.HOT
    station_url: str = Field(description="Where a station puts bytes, such as file:///mnt/storage.")
    path: str = Field(description="The same place as the storage host sees it: an absolute path.")
    transfer: str = Field(default="copy", description="The transfer plugin.")
    created_at: UtcTime


class NewStorageArea(Input):
    """A storage area to be added."""

    name: PlainName
    kind: AreaKind = AreaKind.HOT
    station_url: str
    path: str
    transfer: str = "copy"


class AreaCheck(Model):
    """What writing, reading back and removing a probe file in a storage area showed."""

    name: PlainName
    is_ok: bool
    message: Title
    free_bytes: WireInt | None = None
    total_bytes: WireInt | None = None


class PublishState(StrEnum):
    """Where a publish stands."""

    PENDING = "pending"
    DONE = "done"


class Outcome(StrEnum):
    """What became of one file of a publish."""

    PENDING = "pending"
    STORED = "stored"
    CONFLICT = "conflict"
    DAMAGED = "damaged"
    MISSING = "missing"
    FAILED = "failed"


class Replaced(Model):
    """The version that the plain path holds now, as the catalogue knows it."""

    number: int
    checksum: Checksum


class NewPublishItem(Input, WithPath):
    """One staged file; `path` is below the experiment and, below the batch's staging directory, the same."""

    version_uid: Uid
    number: int = Field(ge=1)
    size: WireInt = Field(ge=0)
    checksums: tuple[Checksum, ...]
    link_target_b64: str | None = Field(default=None, description="Set on a symbolic link: nothing is staged for it.")
    replaces: Replaced | None = None


class NewPublish(Input):
    """A batch to be published; asking again with the same uid gives the same publish."""

    uid: Uid
    experiment_uid: Uid
    items: tuple[NewPublishItem, ...] = Field(min_length=1, max_length=1000)


class PublishItem(Model, WithPath):
    """One file of a publish and what became of it."""

    version_uid: Uid
    outcome: Outcome = Outcome.PENDING
    message: Title = ""
    read_from: ReadFrom | None = None
    stored_at: UtcTime | None = None


class Publish(Model):
    """A batch on its way from staging to its plain names."""

    uid: Uid
    experiment_uid: Uid
    state: PublishState
    created_at: UtcTime
    ended_at: UtcTime | None = None
    items: tuple[PublishItem, ...]
