"""Files, their versions and replicas, and the ledger of every verification."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, JsonValue, RootModel, StringConstraints

from beamkeeper.domain.names import Checksum, Input, Metadata, Model, Title, Uid, UtcTime, WireInt, WithPath

CHUNK_BYTES = 64 * 1024 * 1024
"""Files larger than this keep a BLAKE3 digest of each chunk, for resuming and ranged verification."""

REGISTER_LIMIT = 1000
"""The most files in one call."""


class FileKind(StrEnum):
    """What a path is; a link is recorded as itself and never followed."""

    FILE = "file"
    LINK = "link"


class ReadFrom(StrEnum):
    """How a verification read the bytes."""

    CACHE = "cache"
    DEVICE = "device"
    OTHER_HOST = "other-host"


class Verify(StrEnum):
    """How a copy is proven to be whole, once it is in storage."""

    READ_BACK = "read-back"
    """It is read back from the device before it gets its name."""
    DEFERRED = "deferred"
    """It gets its name at once, is told as unverified, and is read later."""
    NONE = "none"
    """It is never read by itself, and stays told as unverified: its digest is that of the bytes that were sent."""

    @property
    def sentence(self) -> str:
        """The same for people."""
        return {
            Verify.READ_BACK: "read back before it gets its name",
            Verify.DEFERRED: "stored unverified, and read back later by itself",
            Verify.NONE: "stored unverified, and read only when a scrub is asked for",
        }[self]


class SourceIdentity(Model):
    """What says that a source file is still the same: held before and after every copy (I6)."""

    dev: WireInt
    ino: WireInt
    size: WireInt
    mtime_ns: WireInt
    ctime_ns: WireInt


class Source(Model, WithPath):
    """Where a file was first seen: on which agent, under which absolute path (without the leading slash)."""

    agent: str


class ReplicaState(StrEnum):
    """How sure we are of a replica."""

    UNVERIFIED = "unverified"
    VERIFIED = "verified"
    SUSPECT = "suspect"


class Replica(Model):
    """One copy of a version in one storage area."""

    uid: Uid
    version_uid: Uid
    storage_area_uid: Uid
    state: ReplicaState
    created_at: UtcTime
    verified_at: UtcTime | None = None


class Verification(Model):
    """One row of the ledger: a replica was read, and this is what was found."""

    uid: Uid
    replica_uid: Uid
    version_uid: Uid
    verified_at: UtcTime
    is_match: bool
    read_from: ReadFrom
    checksum: Checksum | None = Field(default=None, description="Of what was read; None of a link, or of nothing.")
    by: str
    message: Title = Field(default="", description="What was wrong.")


class NewFile(Input, WithPath):
    """A version that is stored, to be registered; asking again with the same `version_uid` changes nothing."""

    experiment_uid: Uid
    version_uid: Uid
    number: int = Field(ge=1)
    kind: FileKind = FileKind.FILE
    size: WireInt = Field(ge=0, lt=2**63)
    checksums: tuple[Checksum, ...] = ()
    chunks: tuple[str, ...] = ()
    link_target_b64: str | None = None
    source: Source
    identity: SourceIdentity
    is_snapshot: bool = Field(
        default=False, description="Taken while it still grew, or though its writer never finished it."
    )
    storage_area_uid: Uid
    read_from: ReadFrom | None = Field(default=None, description="None: stored, and not read back yet.")
    modified_at: UtcTime = Field(description="The source's own modification time.")
    finished_at: UtcTime
    transferred_at: UtcTime
    verified_at: UtcTime | None = None
    is_to_read: bool = Field(default=False, description="Not read back yet: to be read later, by itself.")
    metadata: Metadata = Field(default_factory=dict)


class NewFiles(Input):
    """Versions to be registered in one transaction."""

    files: tuple[NewFile, ...] = Field(min_length=1, max_length=REGISTER_LIMIT)


class RegisteredAs(StrEnum):
    """What registering one version did."""

    CREATED = "created"
    EXISTS = "exists"
    CONFLICT = "conflict"


class Registered(Model):
    """The answer for one version."""

    version_uid: Uid
    file_uid: Uid | None
    result: RegisteredAs
    message: Title = ""
    catalogued_at: UtcTime | None = None


class RegisteredFiles(Model):
    """The answers, in the order asked."""

    files: tuple[Registered, ...]


class PathRef(Input, WithPath):
    """A path below an experiment."""


class FileLookup(Input):
    """Which versions do these paths hold now?"""

    experiment_uid: Uid
    paths: tuple[PathRef, ...] = Field(min_length=1, max_length=REGISTER_LIMIT)


class File(Model, WithPath):
    """A path below an experiment with its newest version."""

    uid: Uid
    experiment_uid: Uid
    kind: FileKind
    version: int
    version_uid: Uid
    size: WireInt
    checksums: tuple[Checksum, ...]
    link_target_b64: str | None = None
    source: Source
    identity: SourceIdentity
    is_snapshot: bool
    is_verified: bool = Field(description="Some replica of this version was read back and matched.")
    is_suspect: bool = Field(default=False, description="It was read, and no replica matched when it was read last.")
    modified_at: UtcTime
    finished_at: UtcTime
    transferred_at: UtcTime
    verified_at: UtcTime | None
    catalogued_at: UtcTime
    metadata: Metadata
    deleted_at: UtcTime | None = None


class FilePage(Model):
    """Some files, and the cursor that continues the list."""

    items: tuple[File, ...]
    next: str | None = None


class Version(Model):
    """The content of a path at one time."""

    uid: Uid
    file_uid: Uid
    number: int
    size: WireInt
    checksums: tuple[Checksum, ...]
    is_snapshot: bool
    modified_at: UtcTime
    finished_at: UtcTime
    transferred_at: UtcTime
    verified_at: UtcTime | None
    catalogued_at: UtcTime


class FileHistory(Model):
    """Everything that is known of one file: versions, replicas, and the ledger."""

    file: File
    versions: tuple[Version, ...]
    replicas: tuple[Replica, ...]
    ledger: tuple[Verification, ...]


class MetadataPatch(RootModel[Metadata]):
    """A change of metadata as in RFC 7396: what is left out stays, a value of null goes, objects are merged."""


class MetadataTest(Input):
    """A condition on one metadata field; `key` is a dotted path."""

    key: Annotated[str, StringConstraints(pattern=r"^[^\x00\"]{1,200}$")]
    op: Literal["=", "!=", "<", "<=", ">", ">=", "exists"]
    value: JsonValue = None


class FileQuery(Input):
    """Which files are wanted; conditions are joined by AND."""

    experiment_uid: Uid | None = None
    glob: Annotated[str, StringConstraints(max_length=4096)] | None = Field(
        default=None, description="`*` any characters, `?` one; on the path as it is shown."
    )
    min_size: WireInt | None = None
    max_size: WireInt | None = None
    modified_after: UtcTime | None = None
    modified_before: UtcTime | None = None
    where: tuple[MetadataTest, ...] = Field(default=(), max_length=32)
    with_deleted: bool = False
    after: str | None = Field(default=None, description="The `next` of the page before.")
    limit: int = Field(default=100, ge=1, le=REGISTER_LIMIT)


class FileDeletion(Input):
    """Files to be hidden; without `expected_count` nothing is done but counting."""

    query: FileQuery
    expected_count: int | None = None


class FileCount(Model):
    """How many files, and how large they are together."""

    files: WireInt
    bytes: WireInt


class Deleted(FileCount):
    """What a deletion would hide, or has hidden until it is purged."""

    is_done: bool


class ExperimentSummary(Model):
    """The files of an experiment in numbers."""

    experiment_uid: Uid
    files: WireInt
    bytes: WireInt
    versions: WireInt
    verified: WireInt
    unverified: WireInt
    deleted: WireInt
