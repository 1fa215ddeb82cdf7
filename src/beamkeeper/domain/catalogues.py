"""A catalogue as a whole: pages of documents to be exported, documents to be imported, and what a check finds."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, JsonValue

from beamkeeper.domain.names import Input, Model, Title, Uid, WithPath
from beamkeeper.domain.replication import CHANGES_LIMIT, FileDocument, Refusal


class DocumentPage(Model):
    """Some files as whole documents, and the cursor that continues the list."""

    items: tuple[FileDocument, ...]
    next: str | None = None


class NewDocuments(Input):
    """Documents to be imported, as an export has them."""

    documents: tuple[dict[str, JsonValue], ...] = Field(min_length=1, max_length=CHANGES_LIMIT)


class Imported(Model):
    """What became of documents: what is in the catalogue already is never changed by an import."""

    created: tuple[Uid, ...] = ()
    existing: tuple[Uid, ...] = Field(default=(), description="There already, and just the same.")
    differing: tuple[Uid, ...] = Field(default=(), description="There already, and something of them is not the same.")
    refused: tuple[Refusal, ...] = ()


class Fault(StrEnum):
    """What does not fit together in a catalogue."""

    NO_VERSION = "no-version"
    """A file that has no version."""
    NEWEST_MISSING = "newest-missing"
    """The version that is called the newest is not there."""
    NEWER_VERSION = "newer-version"
    """There is a version beyond the one that is called the newest."""
    NO_REPLICA = "no-replica"
    """A version of which no copy is known."""
    NO_CHECKSUM = "no-checksum"
    """A version of a file that has no checksum, so that no copy of it can be proven."""
    UNPROVEN = "unproven"
    """A replica or version is called verified, and no row of the ledger says so."""
    UNTOLD = "untold"
    """The ledger's last word on a replica, or a replica's state, is not what is said of it or of its version."""
    OTHER_CHECKSUM = "other-checksum"
    """A row of the ledger calls bytes right that have another checksum than the version."""
    HIDDEN = "hidden"
    """A file is hidden without saying by whom, or says by whom and is not hidden."""
    OTHER_PATH = "other-path"
    """The path as it is shown, or its directory, is not that of the path."""
    NO_EXPERIMENT = "no-experiment"
    """The experiment is not known here."""


class CheckQuery(Input):
    """Which files are to be checked, a page at a time."""

    experiment_uid: Uid | None = None
    after: Uid | None = Field(default=None, description="The `next` of the page before.")
    limit: int = Field(default=1000, ge=1, le=CHANGES_LIMIT)


class Finding(Model, WithPath):
    """Something that does not fit together."""

    fault: Fault
    file_uid: Uid
    experiment_uid: Uid
    message: Title = ""


class CheckPage(Model):
    """What a check found among some files: it only tells, and repairs nothing."""

    checked: int
    findings: tuple[Finding, ...]
    index: Title = Field(default="", description="Where the search index counts an experiment's files otherwise.")
    next: Uid | None = None


class Reindexed(Model):
    """The search index was emptied, and follows every file anew."""

    files: int = Field(description="About how many files there are to be indexed.")
