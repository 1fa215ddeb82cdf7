"""Files, their versions and replicas, and the ledger of every verification."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from typing import Annotated

from pydantic import Field, RootModel, StringConstraints

from beamkeeper.domain.json_text import KEY_END
from beamkeeper.domain.metadata import EXTRACTION, MetadataChange, acceptable_text
from beamkeeper.domain.names import Checksum, Input, Metadata, Model, PlainName, Title, Uid, UtcTime, WireInt, WithPath
from beamkeeper.domain.provenance import Provenance

CHUNK_BYTES = 64 * 1024 * 1024
"""Files larger than this keep a BLAKE3 digest of each chunk, for resuming and ranged verification."""

REGISTER_LIMIT = 1000
"""The most files in one call."""


ALSO_LIMIT = 16
"""The most further storage areas of one file."""

AreaNames = Annotated[
    tuple[PlainName, ...],
    Field(
        max_length=ALSO_LIMIT, description="Storage areas that are to have a copy too; by default as the settings say."
    ),
]


_REFUSED = f'{{"{EXTRACTION}":'
"""So begins what is kept in place of metadata that is refused, and seldom other metadata."""


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
    """How sure we are of a replica; or that it is to be made, or is gone."""

    WANTED = "wanted"
    """It is to be made: whatever is there counts for nothing yet."""
    FAILED = "failed"
    """It could not be made, and is not tried again before somebody asks for it."""
    UNVERIFIED = "unverified"
    VERIFIED = "verified"
    SUSPECT = "suspect"
    DROPPING = "dropping"
    """It is being removed: it counts for nothing any more."""
    DROPPED = "dropped"


PRESENT = frozenset({ReplicaState.UNVERIFIED, ReplicaState.VERIFIED, ReplicaState.SUSPECT})
"""The states of a replica that stands in its storage area, as far as is known."""


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
    also: tuple[Uid, ...] = Field(
        default=(), max_length=ALSO_LIMIT, description="Storage areas that are to have it too."
    )
    metadata: Metadata = Field(default_factory=dict)

    @cached_property
    def metadata_text(self) -> str:
        """The metadata as JSON, as it is kept: or why it cannot be."""
        return acceptable_text(self.metadata)

    @property
    def given_keys(self) -> int | None:
        """How many keys stood in the JSON of this, as `read_keys` counts them; None where that cannot be told."""
        if self.metadata_text.startswith(_REFUSED):
            return None
        inside = (self, self.source, self.identity, *self.checksums)
        return sum(len(each.model_fields_set) for each in inside) + self.metadata_text.count(KEY_END)


class NewFiles(Input):
    """Versions to be registered in one transaction."""

    files: tuple[NewFile, ...] = Field(min_length=1, max_length=REGISTER_LIMIT)

    @property
    def given_keys(self) -> int | None:
        """How many keys stood in the JSON of this, as `read_keys` counts them; None where that cannot be told."""
        counts = [file.given_keys for file in self.files]
        return None if None in counts else 1 + sum(filter(None, counts))


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
    is_partial: bool = Field(
        default=False, description="The search stopped at its limit before the page was full: `next` goes on."
    )
    searched: int = Field(default=0, description="How many files were looked at for this page.")
    is_behind: bool = Field(
        default=False, description="More files wait to be indexed than a search looks at: the newest may be missing."
    )


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


class FileRecord(FileHistory):
    """Its history, how its metadata came about, and what it was made from and what from it: what one page shows."""

    changes: tuple[MetadataChange, ...] = Field(description="Of its metadata, the newest first, and not all of many.")
    made_from: Provenance | None = Field(description="Null of a file that is hidden.")
    made_into: Provenance | None = Field(description="Null of a file that is hidden.")


class MetadataPatch(RootModel[Metadata]):
    """A change of metadata as in RFC 7396: what is left out stays, a value of null goes, objects are merged."""


class FileOrder(StrEnum):
    """In which order files are told."""

    PATH = "path"
    """By experiment, then by the bytes of the path."""
    NEWEST = "newest"
    """What came into the catalogue last comes first."""


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
    query: Annotated[str, StringConstraints(max_length=8192)] | None = Field(
        default=None, description='Conditions in the short notation: `size > 1GB and sample.name ~ "Ag*"`.'
    )
    filter: Metadata | None = Field(
        default=None, description='Conditions as a document: `{"size": {"$gt": 1000000000}}`.'
    )
    with_deleted: bool = False
    stale: bool = Field(
        default=False, description="Only results of a version of a file of the experiment that has a newer one by now."
    )
    order: FileOrder | None = Field(
        default=None, description="Without one: the newest first where there is a `query` or `filter`, else by path."
    )
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
