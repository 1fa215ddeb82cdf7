"""Inspections: scrubs, which read replicas again, and audits, which compare names; what they find is only told."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field

from beamkeeper.domain.errors import ConflictError
from beamkeeper.domain.names import Input, Model, Title, Uid, UtcTime, WireInt, WithPath

WEEK_S = 7 * 86400.0
LONGEST_S = 10 * 366 * 86400.0
RATE_BYTES_S = 100_000_000


class InspectionKind(StrEnum):
    """What is inspected."""

    SCRUB = "scrub"
    AUDIT = "audit"


class InspectionState(StrEnum):
    """Where a scrub or an audit stands."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    """Before its end: it was asked to, or it would have flagged too much to be believed."""
    FAILED = "failed"


INSPECTION_STEPS: Mapping[InspectionState, frozenset[InspectionState]] = {
    InspectionState.PENDING: frozenset({InspectionState.RUNNING, InspectionState.STOPPED, InspectionState.FAILED}),
    InspectionState.RUNNING: frozenset({InspectionState.DONE, InspectionState.STOPPED, InspectionState.FAILED}),
    InspectionState.DONE: frozenset(),
    InspectionState.STOPPED: frozenset(),
    InspectionState.FAILED: frozenset(),
}
ACTIVE_INSPECTIONS = frozenset({InspectionState.PENDING, InspectionState.RUNNING})


class FindingKind(StrEnum):
    """What is not as it should be."""

    DIFFERENT = "different"
    """A replica has other bytes, or another size, than the catalogue says."""
    MISSING = "missing"
    """A replica is not there."""
    UNREADABLE = "unreadable"
    """A replica cannot be read."""
    DARK = "dark"
    """It stands in the storage, and the catalogue knows nothing of it."""
    LOST = "lost"
    """The catalogue has it, and it is not in the storage."""


class Finding(Model, WithPath):
    """Something that is not as it should be; `path` is below the experiment."""

    kind: FindingKind
    experiment_uid: Uid
    number: int | None = Field(default=None, description="Of the version; none of what is dark.")
    version_uid: Uid | None = None
    replica_uid: Uid | None = None
    size: WireInt | None = None
    message: Title = ""
    is_confirmed: bool = Field(
        default=False, description="Found twice: read a second time by a scrub, or by two audits one after the other."
    )
    found_at: UtcTime


class FindingPage(Model):
    """Some findings in the order in which they were found, and the cursor that continues the list."""

    items: tuple[Finding, ...]
    next: str | None = None


class FindingQuery(Input):
    """Which findings are wanted."""

    after: str | None = Field(default=None, description="The `next` of the page before.")
    limit: int = Field(default=100, ge=1, le=1000)


class InspectionQuery(Input):
    """Which scrubs or audits are wanted, newest first."""

    is_active: bool = Field(default=False, description="Only those that have not ended.")
    after: str | None = Field(default=None, description="The `next` of the page before.")
    limit: int = Field(default=100, ge=1, le=1000)


class NewScrub(Input):
    """Replicas are to be read again: all of the station, or of one experiment."""

    uid: Uid | None = Field(default=None, description="Asking again with the same uid gives the same one.")
    experiment_uid: Uid | None = None
    older_than_s: float = Field(
        default=WEEK_S, ge=0, le=LONGEST_S, description="Those that were looked at longer ago than this."
    )
    rate_bytes_s: float = Field(default=RATE_BYTES_S, gt=0, le=1e12, description="About the most bytes a second.")


class NewAudit(Input):
    """The names of an experiment are to be compared: those of the catalogue with those in the storage."""

    uid: Uid | None = Field(default=None, description="Asking again with the same uid gives the same one.")
    experiment_uid: Uid


class _Inspection(Model):
    """What scrubs and audits share."""

    uid: Uid
    state: InspectionState
    message: Title = ""
    experiment_uid: Uid | None
    experiment: str | None
    started_by: str
    created_at: UtcTime
    started_at: UtcTime | None = None
    stop_requested_at: UtcTime | None = None
    ended_at: UtcTime | None = None


class Scrub(_Inspection):
    """A scrub: replicas are read again, and the ledger says what was found."""

    older_than_s: float
    rate_bytes_s: float
    files: WireInt = Field(default=0, description="Replicas that were looked at.")
    bytes: WireInt = 0
    matched: WireInt = 0
    different: WireInt = 0
    missing: WireInt = 0
    unreadable: WireInt = 0

    @property
    def bad(self) -> int:
        """How many replicas are not as they should be."""
        return self.different + self.missing + self.unreadable


class Audit(_Inspection):
    """An audit: what the catalogue has before and after is compared with what stands in the storage."""

    catalogued: WireInt = Field(default=0, description="Files that the catalogue has, as far as they were compared.")
    listed: WireInt = Field(default=0, description="Names that stand in the storage.")
    dark: WireInt = 0
    lost: WireInt = 0
    confirmed: WireInt = Field(default=0, description="Found by the audit before this one too.")
    limit: WireInt = Field(default=0, description="With more findings than this it stops: that is no longer decay.")


class ScrubPage(Model):
    """Some scrubs, newest first, and the cursor that continues the list."""

    items: tuple[Scrub, ...]
    next: str | None = None


class AuditPage(Model):
    """Some audits, newest first, and the cursor that continues the list."""

    items: tuple[Audit, ...]
    next: str | None = None


def check_inspection_step(name: str, here: InspectionState, there: InspectionState) -> InspectionState:
    """Return the new state; refuse a step that INSPECTION_STEPS does not list."""
    if there not in INSPECTION_STEPS[here]:
        raise ConflictError(f"{name} cannot go from {here} to {there}")
    return there


def most_findings(files: int) -> int:
    """Return how many findings an audit of so many files may have: max(100, 0.1 %).

    More of them look like a storage that is not mounted rather than like files that decayed (rucio#4170).
    """
    return max(100, files // 1000)
