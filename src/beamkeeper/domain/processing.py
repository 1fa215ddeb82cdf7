"""Jobs: what they are, which states they may be in, what is asked of them, and what came of each attempt."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, JsonValue, StringConstraints, model_validator

from beamkeeper.domain.errors import ConflictError
from beamkeeper.domain.names import Input, Model, Title, Uid, Username, UtcTime

LARGEST_SUBMISSION = 1000
"""Jobs of one request."""

MOST_FILES = 10_000
"""Input files of one job."""


class JobStatus(StrEnum):
    """Where a job is, in the words of the original."""

    PENDING = "pending"
    RUNNING = "running"
    FINALIZING = "finalizing"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    ABORTING = "aborting"
    ABORTED = "aborted"


ACTIVE_JOBS = frozenset({JobStatus.PENDING, JobStatus.RUNNING, JobStatus.FINALIZING, JobStatus.ABORTING})
ENDED_JOBS = frozenset(JobStatus) - ACTIVE_JOBS

STEPS: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.PENDING: frozenset({JobStatus.RUNNING, JobStatus.ABORTED, JobStatus.FAILED}),
    JobStatus.RUNNING: frozenset({JobStatus.FINALIZING, JobStatus.FAILED, JobStatus.ABORTING, JobStatus.ABORTED})
    | frozenset({JobStatus.DONE, JobStatus.SKIPPED}),
    JobStatus.FINALIZING: frozenset({JobStatus.DONE, JobStatus.FAILED, JobStatus.SKIPPED}),
    JobStatus.ABORTING: frozenset({JobStatus.ABORTED}),
    **{status: frozenset() for status in ENDED_JOBS},
}
"""The steps that a job may take; one that has ended takes none."""


def check_step(before: JobStatus, after: JobStatus, uid: Uid) -> JobStatus:
    """Return the status after; refuse a step that STEPS does not list."""
    if after is not before and after not in STEPS[before]:
        raise ConflictError(f"job {uid} cannot go from {before} to {after}", status=str(before))
    return after


class StageStatus(StrEnum):
    """Where a stage of a job is."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    ABORTED = "aborted"


class AttemptState(StrEnum):
    """Where one try of a command is."""

    STARTING = "starting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    ABORTED = "aborted"
    UNKNOWN = "unknown"


ACTIVE_ATTEMPTS = frozenset({AttemptState.STARTING, AttemptState.RUNNING})


class Cause(StrEnum):
    """Why an attempt or a job failed, for people and for trying again in bulk."""

    EXIT = "exit"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    PROCESSES = "processes"
    OUTPUTS = "outputs"
    NOT_FOUND = "not-found"
    DIRECTORY = "directory"
    ACCOUNT = "account"
    INPUT = "input"
    VALUES = "values"
    REPEATS = "repeats"
    STORAGE = "storage"
    UNKNOWN = "unknown"
    STOPPED = "stopped"


InputPath = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^/\x00][^\x00]*$")]


class InputFileName(Input):
    """A file that a job works on: where it can be opened here, and its path below the experiment."""

    path: Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^/[^\x00]*$")]
    experiment_path: Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\x00]*$")] = ""


class NewJob(Input):
    """A job to be run: which workflow, with which arguments, on which files."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [{"workflow": "average", "arguments": {"filePath": "/data/scan_001.h5"}}]},
    )

    uid: Uid | None = Field(default=None, description="Given again, it is the same job.")
    workflow: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    workflow_owner: Title | None = Field(default=None, description="Needed where two owners have one of that name.")
    version: int | None = Field(default=None, ge=1, description="The newest where it is left out.")
    experiment_uid: Uid | None = None
    arguments: Annotated[dict[str, JsonValue], Field(max_length=1000)] = Field(
        default_factory=dict,
        description="Arguments of the workflow; filePath, filePathList and filePathPattern name its files.",
    )
    files: Annotated[tuple[InputFileName, ...], Field(max_length=MOST_FILES)] = ()
    paths: Annotated[tuple[InputPath, ...], Field(max_length=MOST_FILES)] = Field(
        default=(), description="More input files, by their paths below the experiment: data/scan_001.h5."
    )
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    run_uid: Uid | None = None
    on_behalf_of: Username | None = Field(default=None, description="For services: whose DAQ asks for it.")


class NewJobs(Input):
    """Several jobs at once: all of them, or none."""

    jobs: Annotated[tuple[NewJob, ...], Field(min_length=1, max_length=LARGEST_SUBMISSION)]


class WorkflowOfJob(Model):
    """The workflow that a job ran, in its version."""

    uid: Uid | None
    name: str
    owner: str
    version: int


class ChildProcess(Model):
    """One attempt of a command of a stage: what ran, where and when, and what came of it."""

    uid: Uid
    number: int = Field(description="Counted through the whole job.")
    stage: str
    file: int | None = Field(default=None, description="Which of the job's files it was for.")
    repeat: int = Field(default=1, description="Which repetition of its stage it belonged to.")
    try_number: int = Field(default=1, description="Which try it was.")
    state: AttemptState
    command: str
    working_dir: str
    account: str = ""
    environment: Mapping[str, str] = Field(
        default_factory=dict, description="Of its variables those that the station or the workflow sets."
    )
    host: str = ""
    submitted_at: UtcTime
    started_at: UtcTime | None = None
    ended_at: UtcTime | None = None
    run_time_s: float | None = None
    exit_status: int | None = None
    signal: int | None = None
    cause: Cause | None = None
    message: str = ""
    left_behind: int = Field(default=0, description="Processes that it had started and not ended; they were killed.")
    stdout: str = Field(default="", description="Its beginning and end; the log has more.")
    stderr: str = ""


class StageOfJob(Model):
    """A stage of a job, as far as it came."""

    name: str
    status: StageStatus
    repeats: int = 0
    message: str = ""
    cause: Cause | None = None
    started_at: UtcTime | None = None
    ended_at: UtcTime | None = None


class Job(Model):
    """One execution of a workflow."""

    uid: Uid
    number: int = Field(description="A number of this service, for people.")
    owner: Username
    status: JobStatus
    workflow: WorkflowOfJob
    experiment_uid: Uid | None = None
    run_uid: Uid | None = None
    arguments: Mapping[str, JsonValue] = Field(default_factory=dict)
    variables: Mapping[str, str] = Field(default_factory=dict, description="What stages have given.")
    count_files: int = 0
    priority: int = 0
    stage: str = Field(default="", description="The stage that it is in, or was in last.")
    submitted_at: UtcTime
    started_at: UtcTime | None = None
    ended_at: UtcTime | None = None
    completed: int = Field(default=0, description="Child processes that ended well.")
    failed: int = Field(default=0, description="Child processes that did not.")
    message: str = ""
    cause: Cause | None = None
    warnings: tuple[str, ...] = ()
    rerun_of: Uid | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.status in ENDED_JOBS


class JobRecord(Job):
    """A job with its files, stages and child processes."""

    files: tuple[InputFileName, ...] = ()
    stages: tuple[StageOfJob, ...] = ()
    child_processes: tuple[ChildProcess, ...] = ()
    definition: Mapping[str, JsonValue] = Field(default_factory=dict)


class JobQuery(Input):
    """Which jobs are asked for; newest last."""

    status: JobStatus | None = None
    active: bool | None = None
    workflow: str | None = None
    owner: str | None = None
    experiment_uid: Uid | None = None
    run_uid: Uid | None = None
    file: str | None = Field(default=None, description="A path that it worked on, as opened or below the experiment.")
    cause: Cause | None = None
    since: UtcTime | None = None
    until: UtcTime | None = None
    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class JobPage(Model):
    """Some jobs, and the cursor that continues the list."""

    items: tuple[Job, ...]
    next: str | None = None


class JobSelection(Input):
    """Jobs that something is to be done with: by uid, or all that fit."""

    uids: Annotated[tuple[Uid, ...], Field(max_length=LARGEST_SUBMISSION)] = ()
    status: JobStatus | None = None
    cause: Cause | None = None
    workflow: str | None = None
    experiment_uid: Uid | None = None
    everything: bool = Field(default=False, description="All jobs that the caller may change.")

    @model_validator(mode="after")
    def _name_some(self) -> Self:
        if not (self.uids or self.status or self.cause or self.workflow or self.experiment_uid or self.everything):
            raise ValueError("name jobs by uid, status, cause, workflow or experiment, or ask for everything")
        return self


class Rerun(Input):
    """A job is to be run again, as it was or with other arguments."""

    uid: Uid | None = None
    arguments: dict[str, JsonValue] = Field(default_factory=dict, description="Only what is to be different.")
    newest: bool = Field(default=False, description="With the newest version of the workflow, not the one that it ran.")


class Count(Model):
    """How many jobs something was done with."""

    jobs: int


class LogQuery(Input):
    """Which piece of what a child process wrote is wanted."""

    stream: Literal["stdout", "stderr"] = "stdout"
    offset: int = Field(default=0, ge=-(2**53), le=2**53, description="Negative counts from the end.")
    limit: int = Field(default=100_000, ge=1, le=1_000_000)
    wait: float = Field(default=0.0, ge=0, le=60, description="Seconds to wait for more.")


class LogPiece(Model):
    """A piece of what a child process wrote."""

    text: str = Field(description="Bytes that are not UTF-8 are replaced.")
    begin: int = Field(description="Where it begins; later than asked for where what lies between is kept no more.")
    next: int = Field(description="Where to go on.")
    size: int
    is_end: bool = Field(description="Whether no more will come.")


class ProcessingInfo(Model):
    """How this service runs commands, so that nobody has to guess."""

    host: str
    account: str = Field(description="The account that commands run under unless a workflow names another.")
    accounts: tuple[str, ...] = Field(default=(), description="Accounts that workflows may name here.")
    refused: Mapping[str, str] = Field(default_factory=dict, description="Those that cannot be used, each with why.")
    slots: int
    queued: int
    running: int
    most_queued: int
