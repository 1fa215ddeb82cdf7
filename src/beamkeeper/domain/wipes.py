"""Wipes: whether a directory at the source may be wiped, what proves it, and what was deleted. Holds that forbid it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from beamkeeper.domain.errors import ConflictError
from beamkeeper.domain.files import FileKind, ReplicaState, SourceIdentity
from beamkeeper.domain.ledger import FileProof, ReplicaProof
from beamkeeper.domain.names import Input, Model, Title, Uid, UtcTime, WireInt, WithPath

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

PLAN_GOOD_FOR = timedelta(hours=24)
"""So long a plan can be carried out; then what it proved is too old, and another has to be made."""

LONGEST_AGE_H = 10 * 366 * 24.0
"""The largest minimum age that may be asked for."""


class WipeState(StrEnum):
    """Where a wipe stands."""

    PENDING = "pending"
    PLANNING = "planning"
    PLANNED = "planned"
    ASKED = "asked"
    """The run was asked for, and has not begun."""
    RUNNING = "running"
    DONE = "done"
    REFUSED = "refused"
    """Nothing more will be deleted: the message says why."""


WIPE_STEPS: Mapping[WipeState, frozenset[WipeState]] = {
    WipeState.PENDING: frozenset({WipeState.PLANNING, WipeState.REFUSED}),
    WipeState.PLANNING: frozenset({WipeState.PLANNED, WipeState.REFUSED}),
    WipeState.PLANNED: frozenset({WipeState.ASKED}),
    WipeState.ASKED: frozenset({WipeState.RUNNING, WipeState.REFUSED}),
    WipeState.RUNNING: frozenset({WipeState.DONE, WipeState.REFUSED}),
    WipeState.DONE: frozenset(),
    WipeState.REFUSED: frozenset(),
}
ACTIVE_WIPES = frozenset({WipeState.PENDING, WipeState.PLANNING, WipeState.ASKED, WipeState.RUNNING})
"""The engine has work with these."""


class Reason(StrEnum):
    """Why an entry is not proven. What the journal skipped has the journal's reason in place of these."""

    NEVER_SEEN = "never-seen"
    ON_ITS_WAY = "on-its-way"
    GROWING = "growing"
    QUARANTINED = "quarantined"
    NOT_CATALOGUED = "not-catalogued"
    OTHER_SOURCE = "other-source"
    DELETED = "deleted"
    CHANGED = "changed"
    TOO_YOUNG = "too-young"
    OPEN = "open"
    HELD = "held"
    SUSPECT = "suspect"
    NOT_VERIFIED = "not-verified"
    NOT_FROM_DEVICE = "not-from-device"
    NOT_IN_STORAGE = "not-in-storage"
    SPECIAL = "special"
    UNREADABLE = "unreadable"
    OTHER_DEVICE = "other-device"
    NOT_IN_PLAN = "not-in-plan"
    GONE = "gone"
    NOT_PERMITTED = "not-permitted"


class NewWipe(Input, WithPath):
    """A directory for which a plan is wanted; `path` is absolute, without its leading slash."""

    uid: Uid | None = Field(default=None, description="Asking again with the same uid gives the same one.")
    agent: str | None = Field(default=None, description="Where the directory is; the station's own by default.")
    min_age_hours: Annotated[float, Field(ge=0, le=LONGEST_AGE_H)] | None = Field(
        default=None, description="Files must be older than this; the setting wipe.min_age_hours by default."
    )


class WipeRun(Input):
    """A plan is to be carried out; `expected_files` is what the plan says, and was agreed to."""

    expected_files: int
    remove_directories: bool = Field(default=False, description="Remove directories that are left empty.")


class WipeTally(Model):
    """How many entries are not proven for one reason, and how large they are together."""

    reason: str
    files: WireInt
    bytes: WireInt


class Wipe(Model, WithPath):
    """A plan to wipe a directory, and what became of it; `path` is the directory."""

    uid: Uid
    agent: str
    state: WipeState
    is_safe: bool | None = Field(default=None, description="The plan's answer; none while it is being made.")
    message: Title = ""
    min_age_hours: float
    within_days: float = Field(description="A replica has to have been read from its device within so many days.")
    max_files: WireInt = Field(description="A run deletes at most so many files.")
    proven_files: WireInt = 0
    proven_bytes: WireInt = 0
    not_proven: tuple[WipeTally, ...] = Field(default=(), description="By reason; empty where all is proven.")
    directories: WireInt = 0
    not_seen_open: WireInt = Field(
        default=0, description="Proven files of which it cannot be seen from here whether a process has them open."
    )
    remove_directories: bool = False
    deleted_files: WireInt = 0
    deleted_bytes: WireInt = 0
    kept: tuple[WipeTally, ...] = Field(default=(), description="Not deleted after all, by reason.")
    removed_directories: WireInt = 0
    list_file: Title = Field(default="", description="Where the names are that only their owner may delete.")
    is_glance: bool = Field(default=False, description="Only its answer counts: no entry of it is kept.")
    planned_by: str
    created_at: UtcTime
    planned_at: UtcTime | None = None
    run_by: str | None = None
    run_at: UtcTime | None = None
    ended_at: UtcTime | None = None

    @property
    def took(self) -> timedelta:
        """How long it took to be planned, or to be refused."""
        return (self.planned_at or self.ended_at or self.created_at) - self.created_at

    @property
    def not_proven_files(self) -> int:
        """How many entries are not proven."""
        return sum(tally.files for tally in self.not_proven)

    @property
    def kept_files(self) -> int:
        """How many proven files were not deleted after all."""
        return sum(tally.files for tally in self.kept)


class EntryState(StrEnum):
    """Where one entry of a wipe stands."""

    PROVEN = "proven"
    NOT_PROVEN = "not-proven"
    DELETING = "deleting"
    """Written before it is deleted: after a crash the file may be there, or not."""
    DELETED = "deleted"
    KEPT = "kept"


class WipeEntry(Model, WithPath):
    """One entry of a directory; `path` is absolute, without its leading slash."""

    state: EntryState
    kind: FileKind | None = Field(default=None, description="None of what is neither a file nor a link.")
    reason: str = ""
    why: Title = ""
    size: WireInt = 0
    identity: SourceIdentity | None = None
    version_uid: Uid | None = None
    replica_uid: Uid | None = None
    by: str | None = Field(default=None, description="Who asked for it to be deleted.")
    at: UtcTime | None = Field(default=None, description="When that was written down, before it was done.")
    deleted_at: UtcTime | None = None


class WipeEntryQuery(Input):
    """Which entries are wanted, in the order in which they were found: a directory's own before those below it."""

    state: EntryState | None = None
    reason: Annotated[str, Field(max_length=64)] | None = None
    after: str | None = Field(default=None, description="The `next` of the page before.")
    limit: int = Field(default=100, ge=1, le=1000)


class WipeEntryPage(Model):
    """Some entries, and the cursor that continues the list."""

    items: tuple[WipeEntry, ...]
    next: str | None = None


class WipeQuery(Input):
    """Which wipes are wanted, newest first."""

    after: str | None = Field(default=None, description="The `next` of the page before.")
    limit: int = Field(default=100, ge=1, le=1000)


class WipePage(Model):
    """Some wipes, newest first, and the cursor that continues the list."""

    items: tuple[Wipe, ...]
    next: str | None = None


class Verdict(Model):
    """Whether all that lies where files were taken from lately may be wiped; has neither names nor titles."""

    is_safe: bool | None = Field(description="None where nobody can tell, or it is being looked at.")
    as_of: UtcTime | None = Field(default=None, description="When the oldest of what was looked at was proven.")
    reasons: tuple[str, ...] = Field(default=(), description="Why something is not proven; the first that was met.")
    proven_files: WireInt = 0


NO_ANSWER = "no-answer"
"""The reason of a verdict where something could not be proven for want of the storage, the catalogue or the site."""

EFFORT = 20
"""A glance is taken again after so many times what it took: a large directory is not listed all the time."""

FREE = timedelta(seconds=1)
"""What a glance may take without being put off for it."""

BELIEVED = 3
"""So many times as old as one that is taken again may a glance be, and still be told."""


def rest_after(glance: Wipe, least: timedelta) -> timedelta:
    """Return how long after a glance another one is taken."""
    return max(least, EFFORT * (glance.took - FREE))


def verdict_of(glances: Sequence[Wipe | None], now: datetime, least: timedelta) -> Verdict:
    """Return what several glances come to; None is a directory of which nothing is known yet."""
    known = [one for one in glances if one and now - one.created_at <= BELIEVED * rest_after(one, least)]
    reasons = {tally.reason for one in known for tally in one.not_proven}
    if any(one.state is not WipeState.PLANNED for one in known):
        reasons.add(NO_ANSWER)
    is_all = len(known) == len(glances) and bool(known)
    is_yes = is_all and not reasons and any(one.is_safe for one in known)
    is_no = bool(reasons - {NO_ANSWER}) or (is_all and not reasons and not is_yes)
    return Verdict(
        is_safe=True if is_yes else False if is_no else None,
        as_of=min((one.planned_at or one.created_at for one in known), default=None),
        reasons=tuple(sorted(reasons)),
        proven_files=sum(one.proven_files for one in known) if is_yes else 0,
    )


class Hold(Model, WithPath):
    """Nothing at or below this path may be wiped; `path` is absolute, without its leading slash."""

    uid: Uid
    agent: str
    why: Title = ""
    by: str
    created_at: UtcTime


class NewHold(Input, WithPath):
    """A path to be held; one that is held already gets a second hold, and each has to be removed by itself."""

    uid: Uid | None = Field(default=None, description="Asking again with the same uid gives the same one.")
    agent: str | None = None
    why: Title = ""


def check_wipe_step(uid: Uid, here: WipeState, there: WipeState) -> WipeState:
    """Return the new state; refuse a step that WIPE_STEPS does not list."""
    if there not in WIPE_STEPS[here]:
        raise ConflictError(f"wipe {uid} cannot go from {here} to {there}")
    return there


def age_of(identity: SourceIdentity, finished_at: datetime, now: datetime) -> timedelta:
    """Return how long ago anything happened to a file: to its bytes, its name or rights, or as we saw it.

    A time in the future makes it younger than anything.
    """
    newest_us = max(identity.mtime_ns, identity.ctime_ns) // 1000
    now_us = (now - _EPOCH) // timedelta(microseconds=1)
    return min(timedelta(microseconds=now_us - newest_us), now - finished_at)


def best_replica(proof: FileProof, since: datetime) -> tuple[ReplicaProof, bool] | None:
    """Return the replica to go by, and whether it was read from its device since then.

    A suspect one never counts, nor one that is still to be made or is being dropped.
    """
    states = (ReplicaState.VERIFIED, ReplicaState.UNVERIFIED)
    good = [found for state in states for found in proof.replicas if found.replica.state is state]
    fresh = [found for found in good if found.is_fresh(since)]
    if fresh:
        return fresh[0], True
    return (good[0], False) if good else None


def is_at_or_below(path: bytes, top: bytes) -> bool:
    """Whether an absolute path (without its leading slash) is `top`, or lies below it."""
    return path == top or path.startswith(top + b"/")
