"""The ledger: verifications to be added to it, replicas that are due for one, and where files stand by directory."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

from pydantic import Field, StringConstraints

from beamkeeper.domain.acquisition import JournalState
from beamkeeper.domain.files import (
    REGISTER_LIMIT,
    File,
    FileKind,
    ReadFrom,
    Replica,
    ReplicaState,
)
from beamkeeper.domain.names import (
    Checksum,
    Input,
    Model,
    Title,
    Uid,
    UtcTime,
    WireInt,
    WithPath,
    from_b64,
)

DIRECTORY_LIMIT = 10_000
"""The most directories on one page."""


class NewVerification(Input):
    """A replica was looked at; the same `uid` again changes nothing."""

    uid: Uid
    replica_uid: Uid
    verified_at: UtcTime
    is_match: bool
    read_from: ReadFrom
    checksum: Checksum | None = Field(default=None, description="Of what was read; None of a link, or of nothing.")
    message: Title = Field(default="", description="What was wrong.")


class NewVerifications(Input):
    """Verifications to be added to the ledger in one transaction."""

    on_behalf_of: Annotated[str, StringConstraints(max_length=64)] = Field(
        default="", description="Who asked for it; the ledger names them beside the service."
    )
    items: tuple[NewVerification, ...] = Field(min_length=1, max_length=REGISTER_LIMIT)


class Recorded(Model):
    """What a replica is after a verification was recorded."""

    uid: Uid
    replica_uid: Uid
    state: ReplicaState


class RecordedVerifications(Model):
    """The answers, in the order asked."""

    items: tuple[Recorded, ...]


class ReplicaQuery(Input):
    """Which replicas are wanted: those looked at longest ago first, never looked at before all."""

    experiment_uid: Uid | None = None
    checked_before: UtcTime | None = None
    is_to_read: bool = Field(default=False, description="Only those that were stored unread, to be read later.")
    after: str | None = Field(default=None, description="The `next` of the page before.")
    limit: int = Field(default=100, ge=1, le=REGISTER_LIMIT)


class StoredReplica(Model, WithPath):
    """A replica with what is needed to look at it."""

    replica: Replica
    experiment_uid: Uid
    number: int
    kind: FileKind
    size: WireInt
    checksums: tuple[Checksum, ...]
    link_target_b64: str | None = None
    checked_at: UtcTime | None = Field(default=None, description="When it was last looked at.")


class ReplicaPage(Model):
    """Some replicas, and the cursor that continues the list."""

    items: tuple[StoredReplica, ...]
    next: str | None = None


class ReplicaProof(Model):
    """A replica, and when its right bytes were last read from where they lie, not from a cache."""

    replica: Replica
    device_read_at: UtcTime | None = None

    def is_fresh(self, since: datetime) -> bool:
        """Whether it is verified, and was read from the device or by another host since then."""
        is_verified = self.replica.state is ReplicaState.VERIFIED
        return is_verified and self.device_read_at is not None and self.device_read_at >= since


class FileProof(Model):
    """A file with everything that proves its newest version."""

    file: File
    replicas: tuple[ReplicaProof, ...]


class FileProofs(Model):
    """Files with their proofs; paths that are not catalogued are left out."""

    items: tuple[FileProof, ...]


class DirectoryQuery(Input):
    """Which directories of an experiment are wanted, in the order of their paths."""

    below_b64: str | None = Field(default=None, description="This directory and all below it; all by default.")
    after: str | None = Field(default=None, description="The `next` of the page before.")
    limit: int = Field(default=1000, ge=1, le=DIRECTORY_LIMIT)


class DirectoryCount(Model, WithPath):
    """What is stored in one directory itself, hidden files left out; `path` is the directory."""

    files: WireInt
    bytes: WireInt
    verified: WireInt
    suspect: WireInt = Field(default=0, description="Not verified, and with a replica that has other bytes.")


class DirectoryPage(Model):
    """Some directories, and the cursor that continues the list."""

    items: tuple[DirectoryCount, ...]
    next: str | None = None


class DirectoryTally(Model, WithPath):
    """How many files of one directory were seen and are not delivered, for one reason; `path` is the directory."""

    state: JournalState
    reason_code: str = ""
    was_available: bool = Field(description="An earlier state of them is stored: they have changed since.")
    files: WireInt
    bytes: WireInt


class DirectoryTallyPage(Model):
    """Some counts, and the cursor that continues the list."""

    items: tuple[DirectoryTally, ...]
    next: str | None = None


class LedgerCounts(Model):
    """Where files stand, in numbers."""

    arrived: WireInt = Field(default=0, description="Seen at the source, or stored.")
    stored: WireInt = 0
    verified: WireInt = 0
    missing: WireInt = Field(
        default=0, description="Seen, and not stored: on their way, or gone before they were read."
    )
    growing: WireInt = 0
    quarantined: WireInt = 0
    skipped: WireInt = Field(default=0, description="Not wanted: excluded, hidden, temporary, special.")
    suspect: WireInt = Field(default=0, description="Stored, and with other bytes when they were last read.")
    bytes: WireInt = Field(default=0, description="Stored.")

    @property
    def needs_somebody(self) -> bool:
        """Whether not everything that arrived is stored and verified."""
        # Not by `arrived`: a file that changed is in it once, by its earlier state, which is stored and verified.
        return self.verified < self.stored or self.missing + self.growing + self.quarantined > 0


class LedgerLine(LedgerCounts, WithPath):
    """Where the files of one directory of an experiment stand; `path` is the directory."""


_COLUMN = {JournalState.GROWING: "growing", JournalState.QUARANTINED: "quarantined", JournalState.SKIPPED: "skipped"}


def ledger_lines(stored: Iterable[DirectoryCount], undelivered: Iterable[DirectoryTally]) -> list[LedgerLine]:
    """Join the catalogue's counts with the journal's, in the order of directories."""
    lines: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for count in stored:
        line = lines[count.path_b64]
        line.update(arrived=count.files, stored=count.files, verified=count.verified)
        line.update(suspect=count.suspect, bytes=count.bytes)
    for tally in undelivered:
        line = lines[tally.path_b64]
        line[_COLUMN.get(tally.state, "missing")] += tally.files
        # What is stored in an earlier state is counted among the stored already.
        line["arrived"] += 0 if tally.was_available else tally.files
    return [LedgerLine(path_b64=path, **lines[path]) for path in sorted(lines, key=from_b64)]


def ledger_total(lines: Iterable[LedgerCounts]) -> LedgerCounts:
    """Return the sum of lines."""
    total: Counter[str] = Counter()
    for line in lines:
        total.update({name: getattr(line, name) for name in LedgerCounts.model_fields})
    return LedgerCounts(**total)
