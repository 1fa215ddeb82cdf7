"""How a station's catalogue is carried to the site's: whole documents, from a position that the site keeps."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, JsonValue, model_validator

from beamkeeper.domain.datasets import DatasetState, QueryText
from beamkeeper.domain.files import FileKind, ReadFrom, ReplicaState, Source, SourceIdentity
from beamkeeper.domain.names import (
    Checksum,
    Input,
    Metadata,
    Model,
    PlainName,
    StationName,
    Title,
    Uid,
    UtcTime,
    WireInt,
    WithPath,
)
from beamkeeper.domain.provenance import JobName, Making
from beamkeeper.domain.runs import RunName, RunState

CHANGES_LIMIT = 1000
"""The most documents in one call."""

MANY = 100_000
"""Changes that wait are counted up to this many."""

UNLISTED_LIMIT = 10_000
"""At most so much of a kind is hidden at the site because a listing of its station lacks it; the rest is counted."""


class Kind(StrEnum):
    """What is carried, each kind after those that it refers to."""

    DATASETS = "datasets"
    RUNS = "runs"
    FILES = "files"
    DERIVATIONS = "derivations"


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
    """A change of metadata."""

    uid: Uid
    changed_at: UtcTime
    changed_by: Title
    patch: Metadata
    before: Metadata
    version: int | None = None


class DatasetDocument(Input):
    """A dataset; which files it has, their documents say."""

    uid: Uid
    experiment_uid: Uid
    name: PlainName
    title: Title = ""
    owner: Title
    state: DatasetState
    query: QueryText | None = None
    metadata: Metadata = Field(default_factory=dict)
    created_at: UtcTime
    frozen_at: UtcTime | None = None
    deleted_at: UtcTime | None = None
    history: tuple[MetadataChangeDocument, ...] = ()


class RunDocument(Input):
    """A run; which files it has, their documents say."""

    uid: Uid
    experiment_uid: Uid
    name: RunName
    state: RunState
    started_at: UtcTime | None = None
    stopped_at: UtcTime | None = None
    metadata: Metadata = Field(default_factory=dict)
    created_at: UtcTime
    created_by: Title
    deleted_at: UtcTime | None = None
    history: tuple[MetadataChangeDocument, ...] = ()


class DerivationDocument(Input):
    """A link between versions: one was made from the other."""

    uid: Uid
    experiment_uid: Uid = Field(description="Of the file that was made.")
    derived_uid: Uid
    source_uid: Uid
    job: JobName = ""
    stage: JobName = ""
    making: Making | None = None
    recorded_at: UtcTime
    recorded_by: Title


class MembershipDocument(Input):
    """That a file belongs to a dataset; with the number of its version, where the dataset is frozen."""

    dataset_uid: Uid
    version: int | None = Field(default=None, ge=1)
    added_at: UtcTime
    added_by: Title


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
    datasets: tuple[MembershipDocument, ...] = Field(default=(), description="To which datasets it belongs.")
    runs: tuple[Uid, ...] = Field(default=(), description="To which runs it belongs, by rule or by call.")

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

    @property
    def is_idle(self) -> bool:
        """Whether this says no more than that nothing has changed."""
        is_listing = self.upto.is_listing or self.is_listed_to_end
        return not (self.documents or self.waiting or is_listing)


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
    unlisted: int = Field(default=0, description="What is here that the station's catalogue does not have.")
    message: Title = ""


class SiteLink(Model):
    """At the station: how its changes get to the site's catalogue."""

    url: str
    waiting: WireInt = Field(description=f"How many changes the site does not have yet, up to {MANY}.")
    is_listing: bool = Field(default=False, description="The catalogue is being sent as a whole, beside what waits.")
    heard_at: UtcTime | None = Field(default=None, description="When the site last took something.")
    cut_off_since: UtcTime | None = None
    message: Title = Field(default="", description="Why it is cut off, or what the site refused last.")
