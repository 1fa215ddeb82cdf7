"""How a station's catalogue is carried to the site's: whole documents, from a position that the site keeps."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, JsonValue, model_validator

from beamkeeper.domain.files import FileKind, ReadFrom, ReplicaState, Source, SourceIdentity
from beamkeeper.domain.names import (
    Checksum,
    Input,
    Metadata,
    Model,
    StationName,
    Title,
    Uid,
    UtcTime,
    WireInt,
    WithPath,
)

CHANGES_LIMIT = 1000
"""The most documents in one call."""

MANY = 100_000
"""Changes that wait are counted up to this many."""

UNLISTED_LIMIT = 10_000
"""At most so many files are hidden at the site because a listing of their station lacks them; others are counted."""


class Kind(StrEnum):
    """What is carried, each kind after those that it refers to."""

    FILES = "files"


class Position(Model):
    """How far a station's documents of one kind have come to the site.

    While it lists, everything up to the uid `after` has come; later changes are those numbered beyond `number`.
    Otherwise all changes up to `number` have come, of `number` itself those up to `after` where that is set.
    """

    epoch: str = Field(min_length=1, max_length=64)
    number: WireInt = Field(ge=0)
    after: Uid | None = None
    is_listing: bool = False


class LedgerDocument(Input):
    """A row of the ledger."""

    uid: Uid
    verified_at: UtcTime
    is_match: bool
    read_from: ReadFrom
    checksum: Checksum | None = None
    by: str
    message: Title = ""


class ReplicaDocument(Input):
    """A copy of a version, with its rows of the ledger."""

    uid: Uid
    storage_area_uid: Uid
    state: ReplicaState
    created_at: UtcTime
    verified_at: UtcTime | None = None
    checked_at: UtcTime | None = None
    is_to_read: bool = False
    ledger: tuple[LedgerDocument, ...] = ()


class VersionDocument(Input):
    """The content of a path at one time, with its copies."""

    uid: Uid
    number: int = Field(ge=1)
    size: WireInt = Field(ge=0, lt=2**63)
    checksums: tuple[Checksum, ...] = ()
    identity: SourceIdentity
    link_target_b64: str | None = None
    chunks: tuple[str, ...] = ()
    is_snapshot: bool = False
    is_verified: bool = False
    is_suspect: bool = False
    modified_at: UtcTime
    finished_at: UtcTime
    transferred_at: UtcTime
    verified_at: UtcTime | None = None
    catalogued_at: UtcTime
    replicas: tuple[ReplicaDocument, ...] = ()


class MetadataChangeDocument(Input):
    """A change of the metadata of a file."""

    uid: Uid
    changed_at: UtcTime
    changed_by: Title
    patch: Metadata
    before: Metadata
    version: int | None = None


class FileDocument(Input, WithPath):
    """Everything that a catalogue knows of a file; hidden ones too."""

    uid: Uid
    experiment_uid: Uid
    kind: FileKind
    number: int = Field(ge=1, description="Of the newest version.")
    source: Source
    metadata: Metadata = Field(default_factory=dict)
    annotations: Metadata = Field(default_factory=dict)
    deleted_at: UtcTime | None = None
    deleted_by: str | None = None
    versions: tuple[VersionDocument, ...] = Field(min_length=1)
    history: tuple[MetadataChangeDocument, ...] = Field(default=(), description="Changes of metadata, oldest first.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        numbers = [version.number for version in self.versions]
        if len(set(numbers)) != len(numbers):
            raise ValueError("a file has each version once")
        if self.number not in numbers:
            raise ValueError(f"the newest version {self.number} is not among the versions")
        return self


class NewChanges(Input):
    """Documents of one kind in order. They are taken only where the site's position is still `since`."""

    kind: Kind
    since: Position | None = Field(description="The position that the site gave; None before there was any.")
    upto: Position = Field(description="The position once these are taken.")
    is_listed_to_end: bool = Field(default=False, description="These are the last ones of a listing.")
    waiting: WireInt = Field(default=0, ge=0, description=f"How many changes wait behind these, up to {MANY}.")
    documents: tuple[dict[str, JsonValue], ...] = Field(default=(), max_length=CHANGES_LIMIT)


class Refusal(Model):
    """A document that the site does not take, and why."""

    uid: Uid
    message: Title


class Taken(Model):
    """What became of the documents."""

    position: Position
    refused: tuple[Refusal, ...] = ()


class Positions(Model):
    """How far a station's documents have come, by kind."""

    positions: dict[Kind, Position]


class Follower(Model):
    """At the site: how far its copy of one station's catalogue is, as was told last."""

    station: StationName
    kind: Kind
    heard_at: UtcTime
    waiting: WireInt = Field(description="How many changes waited at the station when it was last heard.")
    is_listing: bool = Field(default=False, description="The station's catalogue is being gone through as a whole.")
    refused: int = Field(default=0, description="Documents that could not be taken, since the listing began.")
    unlisted: int = Field(default=0, description="Files here that the station's catalogue does not have.")
    message: Title = ""


class SiteLink(Model):
    """At the station: how its changes get to the site's catalogue."""

    url: str
    waiting: WireInt = Field(description=f"How many changes the site does not have yet, up to {MANY}.")
    is_listing: bool = Field(default=False, description="The catalogue is being sent as a whole, beside what waits.")
    heard_at: UtcTime | None = Field(default=None, description="When the site last took something.")
    cut_off_since: UtcTime | None = None
    message: Title = Field(default="", description="Why it is cut off, or what the site refused last.")
