"""DAQs and uploads, and the steps of a file on its way: the journal's states."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from beamkeeper.domain.errors import ConflictError
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.files import AreaNames, FileKind, SourceIdentity, Verify
from beamkeeper.domain.masters import MasterCount
from beamkeeper.domain.names import Input, Metadata, Model, Title, Uid, UtcTime, WireInt, WithPath
from beamkeeper.domain.workflows.plans import JobPlan

Pattern = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
"""A glob on a path below the directory: `*` any characters, `?` one."""

CANARY_PREFIX = ".dm-canary-"
"""Files of this name are our own: they come and go in a watched directory to prove that its watch is alive."""


def _sentinel(value: str) -> str:
    if value == "*" or value.count("*") > 1 or any(char in "/?[\0" for char in value):
        raise ValueError("a sentinel is a name with at most one `*`, such as *.done or FINISHED")
    return value


SentinelPattern = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_sentinel)]
"""The names of files by which a writer says that others are finished."""

ANNOUNCE_LIMIT = 1000
"""The most paths of one announcement."""

TEMPORARY_NAMES = ("*.tmp", "*.part", "*.partial", "*.filepart", "*.crdownload", "~?*", ".*.??????", ".nfs*")
"""Names that writers use until a file is whole (rsync, browsers, areaDetector's TempSuffix): not taken as they are."""

SNAPSHOT_INTERVAL_S = 600.0
"""A file that only grows becomes a new version at most this often, and when its DAQ ends (DESIGN 4)."""

PUT_CHUNK_BYTES = 8 * 1024 * 1024
"""The most bytes of a file in one call of a put."""

LONGEST_RUN_S = 10 * 366 * 86400.0
"""The largest maximum run time that may be asked for, so that its end is a time that exists."""


class Kind(StrEnum):
    """A running watch, or one pass."""

    DAQ = "daq"
    UPLOAD = "upload"


class State(StrEnum):
    """Where a DAQ or an upload stands."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    DONE = "done"
    FAILED = "failed"
    ABORTED = "aborted"


STEPS: Mapping[State, frozenset[State]] = {
    State.PENDING: frozenset({State.RUNNING, State.STOPPING, State.FAILED, State.ABORTED}),
    State.RUNNING: frozenset({State.STOPPING, State.DONE, State.FAILED, State.ABORTED}),
    State.STOPPING: frozenset({State.DONE, State.FAILED, State.ABORTED}),
    State.DONE: frozenset(),
    State.FAILED: frozenset({State.STOPPING}),
    State.ABORTED: frozenset(),
}
"""Which step follows which. One that failed can run again, for the files that were quarantined."""

ACTIVE = frozenset({State.PENDING, State.RUNNING, State.STOPPING})


class Finished(StrEnum):
    """When a file counts as finished."""

    EVIDENCE = "evidence"
    CLOSED = "closed"


class MadeBy(Model):
    """The attempt of a job that keeps files: they are derived from what it worked on."""

    job_uid: Uid
    attempt_uid: Uid | None = None


class _Options(Input):
    """What DAQs and uploads share."""

    uid: Uid | None = Field(default=None, description="Asking again with the same uid gives the same one.")
    experiment_uid: Uid
    destination: str = Field(default="", description="Directory below the tree; empty for its top.")
    tree: Tree = Tree.DATA
    include: tuple[Pattern, ...] = Field(default=(), description="Only these; empty for all.")
    exclude: tuple[Pattern, ...] = ()
    with_hidden: bool = Field(default=True, description="Take names that begin with a dot.")
    resend: bool = Field(default=False, description="Send files again that are stored and unchanged.")
    metadata: Metadata = Field(default_factory=dict, description="Given to every file.")
    processors: tuple[str, ...] | None = Field(default=None, description="In place of the station's chain.")
    skip_processors: tuple[str, ...] = ()
    max_run_time_s: float | None = Field(default=None, gt=0, le=LONGEST_RUN_S)
    agent: str | None = Field(default=None, description="Where the directory is; the station's own by default.")
    first: tuple[Pattern, ...] = Field(default=(), max_length=32, description="These go before all other files.")
    workflow: JobPlan | None = Field(default=None, description="What runs on the files as they arrive.")
    attempt_uid: Uid | None = Field(default=None, description="For commands of jobs: which attempt this is.")
    verify: Verify | None = Field(
        default=None, description="When copies are read back; as the station's settings say by default."
    )
    also: AreaNames | None = None


class NewDaq(_Options, WithPath):
    """A watch to be started; `path` is the directory, without its leading slash."""

    with_existing: bool = Field(default=True, description="Take the files that are there already.")
    wait: bool = Field(default=False, description="Wait for the directory to appear.")
    take_over: bool = Field(default=False, description="End the DAQ that holds the directory, and go on from there.")
    finished: Finished = Finished.EVIDENCE
    quiet_s: float | None = Field(default=None, ge=0, le=3600)
    poll: bool = Field(default=False, description="Scan often, in place of waiting for word from the kernel.")
    sentinel: SentinelPattern | None = Field(
        default=None,
        description="A file `scan_1.done` says for `*.done` that scan_1, scan_1.* and all in scan_1/ are finished; "
        "for a name without `*`, that all in its directory is.",
    )


class NewUpload(_Options, WithPath):
    """One pass to be made over a directory; `path` is the directory, without its leading slash."""


class NewPut(_Options):
    """Files that a client will send over HTTP."""


class PathBelow(Input, WithPath):
    """A path below the directory of a DAQ."""


class Announcement(Input):
    """The writer's own word: these files, and all files in these directories, are finished."""

    paths: tuple[PathBelow, ...] = Field(min_length=1, max_length=ANNOUNCE_LIMIT)


class Announced(Model):
    """How many paths were taken; each is decided when it is there and no process has it open for writing."""

    paths: int


class AcquisitionQuery(Input):
    """Which DAQs or uploads are wanted, newest first."""

    experiment_uid: Uid | None = None
    is_active: bool = Field(default=False, description="Only those that have not ended.")
    after: str | None = Field(default=None, description="The `next` of the page before.")
    limit: int = Field(default=100, ge=1, le=1000)


class ChunkQuery(Input):
    """Which part of which file is sent."""

    offset: int = Field(ge=0, le=2**62, description="Where in the file the bytes begin.")
    size: int = Field(ge=0, le=2**62, description="How many bytes the whole file has.")
    modified_ns: int | None = Field(
        default=None, ge=-(2**62), le=2**62, description="When its source was modified, in nanoseconds since 1970."
    )


class PutChunk(Model):
    """How much of a file that is being put has arrived."""

    size: WireInt


class StopRequest(Input):
    """How to stop: with a last scan, until all is delivered; or now, leaving the rest to a later DAQ."""

    now: bool = False


class JournalState(StrEnum):
    """Where a file stands on its way."""

    CANDIDATE = "candidate"
    GROWING = "growing"
    READY = "ready"
    STAGED = "staged"
    STORED = "stored"
    AVAILABLE = "available"
    SKIPPED = "skipped"
    VANISHED = "vanished"
    QUARANTINED = "quarantined"


JOURNAL_STEPS: Mapping[JournalState, frozenset[JournalState]] = {
    JournalState.CANDIDATE: frozenset(
        {
            JournalState.GROWING,
            JournalState.READY,
            JournalState.VANISHED,
            JournalState.SKIPPED,
            JournalState.QUARANTINED,
        }
    ),
    JournalState.GROWING: frozenset(
        {JournalState.CANDIDATE, JournalState.READY, JournalState.VANISHED, JournalState.QUARANTINED}
    ),
    JournalState.READY: frozenset(
        {
            JournalState.STAGED,
            JournalState.SKIPPED,
            JournalState.CANDIDATE,
            JournalState.VANISHED,
            JournalState.QUARANTINED,
        }
    ),
    JournalState.STAGED: frozenset({JournalState.STORED, JournalState.READY, JournalState.QUARANTINED}),
    JournalState.STORED: frozenset({JournalState.AVAILABLE, JournalState.QUARANTINED}),
    JournalState.AVAILABLE: frozenset({JournalState.CANDIDATE}),
    JournalState.SKIPPED: frozenset({JournalState.CANDIDATE}),
    JournalState.VANISHED: frozenset({JournalState.CANDIDATE}),
    JournalState.QUARANTINED: frozenset({JournalState.CANDIDATE, JournalState.READY, JournalState.VANISHED}),
}
"""Which step follows which. A file that changes after it is available begins again as a candidate."""

UNDELIVERED = frozenset(
    {
        JournalState.CANDIDATE,
        JournalState.GROWING,
        JournalState.READY,
        JournalState.STAGED,
        JournalState.STORED,
    }
)
"""On their way: the journal balances when there are none."""

LISTED = frozenset({JournalState.SKIPPED, JournalState.VANISHED, JournalState.QUARANTINED})
"""Not delivered, and listed with a reason (I3)."""

UNCHANGED = "unchanged"
"""The reason code of what is skipped because it is stored already: delivered, though not by this DAQ."""

UNFINISHED = "unfinished"
"""What is stored as a snapshot, since its writer did not finish it: counted apart from what is whole."""


class JournalEntry(Model, WithPath):
    """One file on its way; `path` is below the DAQ's directory."""

    uid: Uid
    acquisition_uid: Uid
    kind: FileKind = FileKind.FILE
    state: JournalState
    size: WireInt = 0
    identity: SourceIdentity | None = None
    version_uid: Uid | None = None
    is_snapshot: bool = False
    attempts: int = 0
    reason_code: str = ""
    reason: Title = ""
    first_seen_at: UtcTime
    finished_at: UtcTime | None = Field(default=None, description="When the last byte was written, as far as we saw.")
    ready_at: UtcTime | None = None
    staged_at: UtcTime | None = None
    stored_at: UtcTime | None = None
    available_at: UtcTime | None = None


class JournalQuery(Input):
    """Which files of a DAQ or upload are wanted, in the order of their paths."""

    state: JournalState | None = None
    after: str | None = Field(default=None, description="The `next` of the page before.")
    limit: int = Field(default=100, ge=1, le=1000)


class JournalPage(Model):
    """Some entries, and the cursor that continues the list."""

    items: tuple[JournalEntry, ...]
    next: str | None = None


class Tally(Model):
    """How many files are in one state, and how large they are together."""

    state: JournalState
    reason_code: str = ""
    files: WireInt
    bytes: WireInt


class Acquisition(Model, WithPath):
    """A DAQ or an upload with its options and where its files stand; `path` is its directory."""

    uid: Uid
    kind: Kind
    state: State
    experiment_uid: Uid
    experiment: str
    agent: str
    destination: str
    tree: Tree
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    with_hidden: bool
    with_existing: bool
    resend: bool
    finished: Finished
    quiet_s: float | None
    poll: bool = False
    sentinel: str | None = None
    metadata: Metadata
    processors: tuple[str, ...] | None
    skip_processors: tuple[str, ...]
    max_run_time_s: float | None
    is_put: bool = False
    verify: Verify = Verify.READ_BACK
    also: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    workflow: JobPlan | None = None
    made_by: MadeBy | None = None
    jobs: dict[str, int] = Field(default_factory=dict, description="How many files wait for a job, or had one.")
    policy: Title = Field(default="", description="When a file counts as finished here, and why.")
    message: Title = ""
    started_by: str
    created_at: UtcTime
    started_at: UtcTime | None = None
    stop_requested_at: UtcTime | None = None
    ended_at: UtcTime | None = None
    tallies: tuple[Tally, ...] = ()
    masters: MasterCount = MasterCount()

    def count(self, *states: JournalState) -> int:
        """Return how many files are in these states."""
        return sum(tally.files for tally in self.tallies if tally.state in states)

    def size(self, *states: JournalState) -> int:
        """Return how many bytes are in these states."""
        return sum(tally.bytes for tally in self.tallies if tally.state in states)


class RetryRequest(Input):
    """Files that were quarantined are to be tried again."""

    pattern: Pattern | None = Field(default=None, description="Only those whose path, or name, it matches.")


class PriorityRequest(Input):
    """Which files go before all others from now on, in place of what was asked before; empty for none."""

    first: tuple[Pattern, ...] = Field(max_length=32)


class Picked(Model):
    """What was asked for some files of a DAQ or upload: how many it concerns now, and where all stand."""

    files: WireInt
    acquisition: Acquisition


class AcquisitionPage(Model):
    """Some DAQs or uploads, newest first, and the cursor that continues the list."""

    items: tuple[Acquisition, ...]
    next: str | None = None


def check_step(name: str, here: State, there: State) -> State:
    """Return the new state; refuse a step that STEPS does not list."""
    if there not in STEPS[here]:
        raise ConflictError(f"{name} cannot go from {here} to {there}")
    return there


def overlaps(one: bytes, other: bytes) -> bool:
    """Return whether two paths are the same, or one lies below the other."""
    one, other = one.strip(b"/") + b"/", other.strip(b"/") + b"/"
    return b"/" in (one, other) or one.startswith(other) or other.startswith(one)


class PluginInfo(Model):
    """A plugin that this station can use."""

    group: str
    name: str
    package: str
    version: str
    summary: Title = ""
    is_active: bool = False
