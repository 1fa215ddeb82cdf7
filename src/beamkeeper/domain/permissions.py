"""Looking through the rights of an experiment's files: what differs from the policy, and what was put right."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field

from beamkeeper.domain.file_rights import Way
from beamkeeper.domain.names import Input, Model, Title, Uid, UtcTime, WireInt

RATE = 10_000
MOST_FAULTS = 1000
"""So many are listed of one walk; all are counted."""


class WalkMode(StrEnum):
    """Whether what differs is only told, or put right."""

    CHECK = "check"
    REPAIR = "repair"


class WalkState(StrEnum):
    """Where a walk stands."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


ACTIVE_WALKS = frozenset({WalkState.PENDING, WalkState.RUNNING})


class FaultKind(StrEnum):
    """What differs."""

    OPEN = "open"
    """Somebody has rights there who should have none, or more than they should."""
    CLOSED = "closed"
    """The experiment's group has not the rights that it should have."""
    GROUP = "group"
    """It belongs to another group."""
    INHERITED = "inherited"
    """What is made in that directory will have other rights than it should."""
    ELSEWHERE = "elsewhere"
    """Another file system is mounted there, or it is deeper than is looked: what is below was passed over."""


class PermissionFault(Model):
    """What differs of one file or directory."""

    path: str = Field(description="Below the experiment's directory; with \\xNN for what does not print.")
    path_b64: str
    kind: FaultKind
    message: Title
    is_repaired: bool = False
    why_not: Title = Field(default="", description="Why it could not be put right.")


class NewPermissionWalk(Input):
    """A walk that is wanted; asked for again under the same uid it is the same one."""

    uid: Uid
    mode: WalkMode = WalkMode.CHECK
    rate: int = Field(default=RATE, ge=1, le=1_000_000, description="At most so many files and directories a second.")


class PermissionWalk(Model):
    """A walk through the files of an experiment, and what it found so far."""

    uid: Uid
    experiment_uid: Uid
    mode: WalkMode
    state: WalkState
    message: Title = ""
    asked_by: str
    way: Way | None = Field(default=None, description="How the experiment's group gets its rights.")
    gid: int | None = Field(default=None, description="The number of the experiment's group.")
    entries: WireInt = Field(default=0, description="Files and directories that were looked at.")
    differing: WireInt = Field(default=0, description="Of which so many were not as they should be.")
    repaired: WireInt = 0
    faults: tuple[PermissionFault, ...] = Field(default=(), description="The first of them.")
    created_at: UtcTime
    ended_at: UtcTime | None = None


WALK_WORDS: Mapping[Way, str] = {
    Way.OWNED: "files belong to the experiment's group",
    Way.NAMED: "the experiment's group is named in access control lists",
    Way.UNKNOWN: "no group is given rights by the service: files belong to the group of who makes them",
}
