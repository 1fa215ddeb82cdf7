"""Replicas beyond the first: asking for copies in other storage areas, reading them again, dropping them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from beamkeeper.domain.files import ALSO_LIMIT, REGISTER_LIMIT, FileKind, ReadFrom, ReplicaState
from beamkeeper.domain.names import Checksum, Input, Model, PlainName, Title, Uid, UtcTime, WireInt, WithPath
from beamkeeper.domain.storage import Outcome, Replaced, TaskState

FRESH_DAYS = 7.0
"""Before a copy is dropped the other one is read, unless its device was read within this time."""


class ReplicaAction(StrEnum):
    """What is asked for replicas."""

    ADD = "add"
    VERIFY = "verify"
    DROP = "drop"

    @property
    def past(self) -> str:
        """What became of a replica for which it was done."""
        return {ReplicaAction.ADD: "made", ReplicaAction.VERIFY: "read", ReplicaAction.DROP: "dropped"}[self]


class RequestState(StrEnum):
    """Where a request for replicas stands."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"


class NewReplicaRequest(Input):
    """Replicas of an experiment's files are to be made, read again, or dropped; the same uid again asks once."""

    uid: Uid
    action: ReplicaAction
    experiment_uid: Uid
    storage_area: PlainName | None = Field(default=None, description="Where; needed but to verify in every area.")
    glob: Annotated[str, StringConstraints(max_length=4096)] | None = Field(
        default=None, description="Only files whose path it matches, such as `data/scan1/*`."
    )
    all_versions: bool = Field(default=False, description="Of older versions too, not of the newest only.")


class ReplicaRequest(Model):
    """A request for replicas, and how far it is: first replicas are chosen, then one after the other is seen to."""

    uid: Uid
    action: ReplicaAction
    experiment_uid: Uid
    experiment: str
    storage_area: str = ""
    glob: str | None
    all_versions: bool
    state: RequestState
    message: Title = ""
    is_chosen: bool = Field(description="All files have been gone through.")
    chosen: WireInt = Field(description="Replicas that it is about.")
    there: WireInt = Field(description="For which nothing was to be done: as it is asked for already.")
    refused: WireInt = Field(description="That are left as they are, for good reason.")
    done: WireInt = 0
    failed: WireInt = Field(default=0, description="That could not be made, or were found damaged.")
    bytes: WireInt = Field(default=0, description="Of the replicas that are done.")
    asked_by: str
    created_at: UtcTime
    ended_at: UtcTime | None = None

    @property
    def left(self) -> int:
        """How many replicas wait to be seen to."""
        return self.chosen - self.done - self.failed


class ReplicaRequestQuery(Input):
    """Which requests are wanted, newest first."""

    experiment_uid: Uid | None = None
    is_active: bool = Field(default=False, description="Only those that have not ended.")
    limit: int = Field(default=100, ge=1, le=1000)


class ReplicaListQuery(Input):
    """Which replicas of an experiment are wanted, in the order of paths."""

    experiment_uid: Uid
    glob: Annotated[str, StringConstraints(max_length=4096)] | None = None
    storage_area: PlainName | None = None
    state: ReplicaState | None = None
    all_versions: bool = False
    after: str | None = Field(default=None, description="The `next` of the page before.")
    limit: int = Field(default=100, ge=1, le=REGISTER_LIMIT)


class ListedReplica(Model, WithPath):
    """A replica as people see it; `path` is that of its file."""

    uid: Uid
    file_uid: Uid
    number: int = Field(description="Of the version.")
    size: WireInt
    storage_area: str
    is_first: bool = Field(description="It stands in the experiment's own storage area.")
    state: ReplicaState
    verified_at: UtcTime | None = Field(default=None, description="When its right bytes were last seen.")
    checked_at: UtcTime | None = Field(default=None, description="When it was last looked at.")
    message: Title = Field(default="", description="Why it waits, or could not be made.")


class ListedReplicaPage(Model):
    """Some replicas, and the cursor that continues the list."""

    items: tuple[ListedReplica, ...]
    next: str | None = None


class AreaReplicas(Model):
    """How an experiment's files stand in one storage area, newest versions alone."""

    storage_area: str
    is_first: bool
    states: Mapping[ReplicaState, WireInt] = Field(description="How many copies are in each state.")
    waiting: WireInt = Field(default=0, description="Copies that are to be made, read or dropped.")
    message: Title = Field(default="", description="Why some wait.")


class WantedReplicas(Input):
    """Versions that are to be in further storage areas, for services."""

    version_uids: tuple[Uid, ...] = Field(min_length=1, max_length=REGISTER_LIMIT)
    storage_area_uids: tuple[Uid, ...] = Field(min_length=1, max_length=ALSO_LIMIT)
    asked_by: str = ""


class DueSource(Model):
    """Another copy of a version that is to be made, read or dropped somewhere."""

    replica_uid: Uid
    storage_area_uid: Uid
    state: ReplicaState
    is_fresh: bool = Field(description="Its right bytes were read from the device not long ago.")


class DueReplica(Model, WithPath):
    """A replica to be made, read or dropped, with all that is needed for it."""

    replica_uid: Uid
    version_uid: Uid
    number: int
    kind: FileKind
    size: WireInt
    checksums: tuple[Checksum, ...]
    link_target_b64: str | None = None
    state: ReplicaState
    is_plain: bool = Field(description="No later version is in that area: the plain name is this one's.")
    is_ours: bool = Field(description="It stood there before: whatever is in its place is what became of it.")
    replaces: Replaced | None = Field(default=None, description="The earlier version that has the plain name there.")
    sources: tuple[DueSource, ...] = Field(default=(), description="Copies elsewhere that are not suspect, best first.")


class DueReplicas(Model):
    """A batch of replicas of one experiment in one area, all for the same; it is the same until it is settled."""

    uid: Uid
    action: ReplicaAction
    experiment_uid: Uid
    storage_area_uid: Uid
    asked_by: str
    items: tuple[DueReplica, ...]


class Settling(StrEnum):
    """What became of one replica of a batch."""

    DONE = "done"
    AGAIN = "again"
    """It is tried again later."""
    FAILED = "failed"
    DROPPING = "dropping"
    """Another copy is proven: it may be removed, unless the catalogue knows better."""


class SettledReplica(Input):
    """What became of one replica of a batch."""

    replica_uid: Uid
    outcome: Settling
    message: Title = ""
    verified_at: UtcTime | None = Field(default=None, description="When the new copy was read back.")
    read_from: ReadFrom | None = None


class SettledReplicas(Input):
    """What became of a batch; saying it again changes nothing."""

    batch_uid: Uid
    action: ReplicaAction
    items: tuple[SettledReplica, ...] = Field(min_length=1, max_length=REGISTER_LIMIT)


class NewCopyItem(Input, WithPath):
    """A version that is to be copied to a storage area, or removed from it."""

    version_uid: Uid
    number: int = Field(ge=1)
    size: WireInt = Field(ge=0)
    checksums: tuple[Checksum, ...]
    link_target_b64: str | None = None
    is_plain: bool = Field(description="Its place is the plain name, and not where older versions are kept.")
    is_ours: bool = Field(default=False, description="To be removed whatever bytes it has: it was this version once.")
    replaces: Replaced | None = None


class NewCopy(Input):
    """Versions to be copied from one storage area to another, or without a source to be removed from it.

    Asking again with the same uid gives the same copy.
    """

    uid: Uid
    experiment_uid: Uid
    storage_area_uid: Uid
    source_area_uid: Uid | None = None
    items: tuple[NewCopyItem, ...] = Field(min_length=1, max_length=REGISTER_LIMIT)


class CopyItem(Model):
    """What became of one version of a copy."""

    version_uid: Uid
    outcome: Outcome
    message: Title = ""
    is_source: bool = Field(default=False, description="It is the source that has other bytes, or none.")
    read_from: ReadFrom | None = None
    at: UtcTime


class Copy(Model):
    """A copy on its way; `items` are told once it is done. `trouble` is what the area as a whole fails with."""

    uid: Uid
    experiment_uid: Uid
    state: TaskState
    trouble: str = ""
    message: Title = ""
    created_at: UtcTime
    ended_at: UtcTime | None = None
    items: tuple[CopyItem, ...] = ()
