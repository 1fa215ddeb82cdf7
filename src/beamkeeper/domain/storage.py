"""Storage areas; publishing: how staged bytes become a file's plain name; and looking at what is stored."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from beamkeeper.domain.area_rights import FileRights
from beamkeeper.domain.files import ReadFrom, Verify
from beamkeeper.domain.names import (
    Checksum,
    Input,
    Model,
    PlainName,
    RelPath,
    Title,
    Uid,
    UtcTime,
    WireInt,
    WithPath,
    from_b64,
)

STAGING = ".dm/staging"
"""Below an experiment's directory: where batches wait to be published."""

VERSIONS = ".dm/versions"
"""Below an experiment's directory: where older versions of a path are kept."""


def kept_path(path: RelPath, number: int) -> bytes:
    """Return where a version is kept, below an experiment's directory, once it does not have its plain name."""
    return f"{VERSIONS}/".encode() + path + f"/{number}".encode()


TRANSFERS = {
    "file": "copy",
    "rsync": "rsync",
    "rsync+ssh": "rsync",
    "gsiftp": "gridftp",
    "ftp": "gridftp",
    "rclone": "rclone",
}
"""Which transfer plugin brings files to a storage area whose address has this scheme."""

TROUBLES = {
    "full": "is full",
    "read_only": "is read-only",
    "unreachable": "is not there",
    "hanging": "does not answer",
    "host_key": "shows another host key than was pinned",
    "certificate": "has a certificate that is not trusted",
    "credential": "does not accept our credential",
}
"""What a storage area as a whole can fail with, and how it is said; `failed` is everything else."""


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
    path: str = Field(
        description="The same place as the storage host sees it: an absolute path, or rclone://REMOTE/BUCKET/PREFIX."
    )
    transfer: str = Field(default="copy", description="The transfer plugin.")
    created_at: UtcTime

    @property
    def scheme(self) -> str:
        """How a station reaches it."""
        return scheme_of(self.station_url)

    @property
    def is_objects(self) -> bool:
        """Whether it is an object store, in which the storage host has no directory."""
        return is_object_path(self.path)

    @property
    def is_mounted(self) -> bool:
        """Whether a station reaches it as a directory."""
        return self.scheme == "file"


class NewStorageArea(Input):
    """A storage area to be added."""

    name: PlainName
    kind: AreaKind = AreaKind.HOT
    station_url: str
    path: str
    transfer: str = Field(
        default="", description="The transfer plugin, or a table of its settings; that of the address where empty."
    )

    @property
    def plugin(self) -> str:
        """The transfer plugin; empty where neither it nor its address names one."""
        scheme = scheme_of(self.station_url)
        return (self.transfer or TRANSFERS.get(scheme, "")) if scheme else ""

    @property
    def is_remote(self) -> bool:
        """Whether a program of ours reaches it on another host."""
        return TRANSFERS.get(scheme_of(self.station_url)) in ("rsync", "gridftp")


def is_object_path(path: str) -> bool:
    """Return whether a storage area's path names objects: rclone://REMOTE/BUCKET/PREFIX."""
    return scheme_of(path) == "rclone"


def scheme_of(url: str) -> str:
    """Return the scheme of an address of a storage area; empty where it has none."""
    scheme, colon, _ = url.partition(":")
    return scheme.lower() if colon else ""


class AreaCheck(Model):
    """What writing, reading back and removing a probe file in a storage area showed."""

    name: PlainName
    is_ok: bool
    message: Title
    free_bytes: WireInt | None = None
    total_bytes: WireInt | None = None
    rights: FileRights | None = None


class StorageProbe(Input):
    """A probe that a station has sent to a storage area, to be read back and removed where the storage is."""

    uid: Uid
    checksum: Checksum


class ProbeSent(Model):
    """What sending a probe by the real transport showed; without a probe it failed, and says why."""

    name: PlainName
    message: Title
    probe: StorageProbe | None = None


class AreaPause(Model):
    """A storage area that takes nothing at present: files wait for it, and go on by themselves."""

    name: PlainName
    trouble: str = Field(
        description="full, read_only, unreachable, hanging, host_key, certificate, credential or failed."
    )
    message: Title = Field(description="What it failed with, or why it is not tried again yet.")
    since: UtcTime
    files: WireInt = Field(description="How many files wait.")

    @property
    def sentence(self) -> str:
        """The same for people."""
        what = TROUBLES.get(self.trouble, "fails")
        waiting = "1 file waits" if self.files == 1 else f"{self.files} files wait"
        since = self.since.isoformat(sep=" ", timespec="seconds")
        return f'storage area "{self.name}" {what}: paused since {since}, {waiting} ({self.message})'


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
    LOST = "lost"
    """The storage could not make it durable: what was staged is thrown away, and no fault of the file."""
    REMOVED = "removed"
    """It stands in that storage area no more."""


class Replaced(Model):
    """The version that the plain path holds now, as the catalogue knows it."""

    number: int
    checksum: Checksum


class NewPublishItem(Input, WithPath):
    """One staged file; `path` is below the experiment, and below its staging directory too unless told otherwise."""

    version_uid: Uid
    number: int = Field(ge=1)
    size: WireInt = Field(ge=0)
    checksums: tuple[Checksum, ...]
    link_target_b64: str | None = Field(default=None, description="Set on a symbolic link: nothing is staged for it.")
    replaces: Replaced | None = None
    staged_b64: str | None = Field(default=None, description="Its name below the staging directory.")

    @property
    def staged(self) -> RelPath:
        """Its name below the staging directory."""
        return self.relpath if self.staged_b64 is None else RelPath(from_b64(self.staged_b64))


class NewPublish(Input):
    """A batch to be published; asking again with the same uid gives the same publish."""

    uid: Uid
    experiment_uid: Uid
    verify: Verify = Field(default=Verify.READ_BACK, description="Read each file back before it gets its name?")
    items: tuple[NewPublishItem, ...] = Field(min_length=1, max_length=1000)


class PublishItem(Model):
    """What became of one file of a publish."""

    version_uid: Uid
    outcome: Outcome = Outcome.PENDING
    message: Title = ""
    read_from: ReadFrom | None = None
    stored_at: UtcTime | None = None


class Publish(Model):
    """A batch on its way from staging to its plain names; `items` are told once it is done.

    `trouble` is what the storage area as a whole fails with (full, read_only, failed) while the batch waits for
    it, or lost its bytes to it; `message` says it in a sentence.
    """

    uid: Uid
    experiment_uid: Uid
    state: PublishState
    trouble: str = ""
    message: Title = ""
    created_at: UtcTime
    ended_at: UtcTime | None = None
    items: tuple[PublishItem, ...] = ()


CHECK_LIMIT = 1000
"""The most files in one check."""

LISTING_LIMIT = 10_000
"""The most names on one page of a listing."""


class TaskState(StrEnum):
    """Where a check or a listing stands."""

    PENDING = "pending"
    DONE = "done"


class CheckMode(StrEnum):
    """How closely stored files are looked at."""

    STAT = "stat"
    """That the file is there and has its size, or the link its target."""
    READ = "read"
    """That its bytes, read back from the device where the kernel lets us, have their digest."""


class CheckOutcome(StrEnum):
    """What a look at one stored file showed."""

    PENDING = "pending"
    MATCH = "match"
    DIFFERENT = "different"
    MISSING = "missing"
    UNREADABLE = "unreadable"


class NewCheckItem(Input, WithPath):
    """A stored version to be looked at, at its plain path or where older versions of that path are kept."""

    version_uid: Uid
    number: int = Field(ge=1)
    size: WireInt = Field(ge=0)
    checksum: Checksum | None = Field(default=None, description="Needed where a file is to be read.")
    link_target_b64: str | None = Field(default=None, description="Set on a symbolic link.")


class NewCheck(Input):
    """Stored files to be looked at; asking again with the same uid gives the same check."""

    uid: Uid
    experiment_uid: Uid
    storage_area_uid: Uid | None = Field(default=None, description="In this area, not the experiment's own.")
    mode: CheckMode
    items: tuple[NewCheckItem, ...] = Field(min_length=1, max_length=CHECK_LIMIT)


class CheckItem(Model, WithPath):
    """One stored file and what was found."""

    version_uid: Uid
    number: int
    outcome: CheckOutcome = CheckOutcome.PENDING
    message: Title = ""
    size: WireInt | None = None
    checksum: Checksum | None = Field(default=None, description="Of the bytes that were read.")
    read_from: ReadFrom | None = None
    checked_at: UtcTime | None = None


class Check(Model):
    """A look at stored files."""

    uid: Uid
    experiment_uid: Uid
    mode: CheckMode
    state: TaskState
    message: Title = Field(default="", description="Why it waits.")
    created_at: UtcTime
    ended_at: UtcTime | None = None
    items: tuple[CheckItem, ...]


class NewDiscard(Input):
    """A staging directory that nobody will publish; asking again with the same uid gives the same answer."""

    uid: Uid
    experiment_uid: Uid
    storage_area_uid: Uid | None = Field(default=None, description="In this area, not the experiment's own.")
    batch_uid: Uid


class Discard(Model):
    """A staging directory on its way out."""

    uid: Uid
    experiment_uid: Uid
    batch_uid: Uid
    state: TaskState
    message: Title = Field(default="", description="Why it waits.")


class EntryKind(StrEnum):
    """What stands at a plain name."""

    FILE = "file"
    LINK = "link"
    OTHER = "other"


class NewListing(Input):
    """A page of the plain names in an experiment's `data`, in the order of their bytes, to be listed."""

    uid: Uid
    experiment_uid: Uid
    after_b64: str | None = Field(default=None, description="Names after this path.")
    upto_b64: str | None = Field(default=None, description="Names up to this path, and itself.")
    limit: int = Field(default=1000, ge=1, le=LISTING_LIMIT)


class ListedEntry(Model, WithPath):
    """A plain name."""

    kind: EntryKind
    size: WireInt


class Listing(Model):
    """A page of plain names."""

    uid: Uid
    experiment_uid: Uid
    state: TaskState
    message: Title = Field(default="", description="Why it waits.")
    created_at: UtcTime
    ended_at: UtcTime | None = None
    items: tuple[ListedEntry, ...] = ()
    is_end: bool = Field(default=False, description="There is no name after these, up to where was asked.")
