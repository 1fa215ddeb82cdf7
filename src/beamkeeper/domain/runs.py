"""Runs: one scan or measurement as the control system names it, and the rules by which files belong to runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from beamkeeper.domain.errors import ConflictError, InvalidError
from beamkeeper.domain.metadata import dotted
from beamkeeper.domain.names import Input, Metadata, Model, PlainName, Title, Uid, UtcTime
from beamkeeper.domain.patterns import Pattern

RunName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x20/][^\x00-\x1f/]{0,127}$")]
"""The control system's uid or number of a scan."""

RULES_LIMIT = 20
"""The most rules of one experiment or type."""

RUN_GROUP = "run"


class RunState(StrEnum):
    """Whether the control system has said that a run is over."""

    INFERRED = "inferred"
    """Known from files only: a rule made it."""
    RUNNING = "running"
    STOPPED = "stopped"


class NewRun(Input):
    """A run that has begun; its name is unique in the experiment, so that asking again gives the same one."""

    experiment_uid: Uid
    name: RunName
    started_at: UtcTime | None = Field(default=None, description="By the control system's clock; else now.")
    start: Metadata = Field(default_factory=dict, description="What the control system says of it as it begins.")


class RunStop(Input):
    """The end of a run; saying the same again changes nothing."""

    stopped_at: UtcTime | None = Field(default=None, description="By the control system's clock; else now.")
    stop: Metadata = Field(default_factory=dict, description="What the control system says of it as it ends.")


class Run(Model):
    """One scan or measurement; its metadata has what was said as it began (`start`) and as it ended (`stop`)."""

    uid: Uid
    experiment_uid: Uid
    name: RunName
    state: RunState
    started_at: UtcTime | None = None
    stopped_at: UtcTime | None = None
    metadata: Metadata
    created_at: UtcTime
    created_by: Title

    def check_same_start(self, new: NewRun) -> None:
        """Refuse a second start that says something else."""
        is_other_time = new.started_at is not None and new.started_at != self.started_at
        if is_other_time or self.metadata.get("start", {}) != new.start:
            raise ConflictError(
                f'run "{self.name}" has begun already, with another time or other metadata: '
                f"change its metadata, or give the new run a name of its own",
                uid=str(self.uid),
            )

    def is_same_stop(self, stop: RunStop) -> bool:
        """Whether the run has ended just so; refuses another end."""
        if self.state is not RunState.STOPPED:
            return False
        is_other_time = stop.stopped_at is not None and stop.stopped_at != self.stopped_at
        if is_other_time or self.metadata.get("stop", {}) != stop.stop:
            raise ConflictError(
                f'run "{self.name}" has ended already, with another time or other metadata', uid=str(self.uid)
            )
        return True


class RunPage(Model):
    """Some runs, newest first, and the cursor that continues the list."""

    items: tuple[Run, ...]
    next: str | None = None


class RunQuery(Input):
    """Which runs are wanted; conditions are joined by AND."""

    experiment_uid: Uid | None = None
    name: RunName | None = None
    state: RunState | None = None
    file_uid: Uid | None = Field(default=None, description="Those that this file belongs to.")
    after: str | None = Field(default=None, description="The `next` of the page before.")
    limit: int = Field(default=100, ge=1, le=1000)


class NewRunRule(Input):
    """How a file's path, or a field of its metadata, tells its run; of one experiment, or of all of a type."""

    experiment_uid: Uid | None = None
    type: PlainName | None = None
    path: Annotated[str, StringConstraints(max_length=500)] | None = Field(
        default=None,
        description="A pattern of paths: `*` any characters, `?` one, `{run}` the run's name, other names in braces "
        "what is kept of the path in the run's metadata.",
    )
    field: Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00]*$")] | None = Field(
        default=None, description="A key of the files' metadata, as a dotted path, whose value is the run's name."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.experiment_uid is None) == (self.type is None):
            raise ValueError("say of which experiment or of which type the rule is: one of the two")
        if (self.path is None) == (self.field is None):
            raise ValueError("say by which path or by which field: one of the two")
        try:
            if self.path is not None:
                Pattern.parse(self.path, RUN_GROUP)
            if self.field is not None:
                dotted(self.field)
        except InvalidError as error:
            raise ValueError(error.message) from error
        return self


class RunRule(Model):
    """A rule; `is_applied` tells whether all files that were there before it have been looked at."""

    uid: Uid
    experiment_uid: Uid | None = None
    type: PlainName | None = None
    path: str | None = None
    field: str | None = None
    created_at: UtcTime
    created_by: Title
    is_applied: bool


class RunRules(Model):
    """The rules of an experiment: its own, and those of its type."""

    items: tuple[RunRule, ...]


class Belonging(Model):
    """What a rule says of a file: the run's name, and what else is told by its path."""

    run: RunName
    path: Metadata = Field(default_factory=dict)


def belonging(rule: RunRule, shown_path: str, metadata: Metadata) -> Belonging | None:
    """Return to which run a file belongs by a rule; None where the rule says nothing of it."""
    if rule.path is not None:
        found = Pattern.parse(rule.path, RUN_GROUP).match(shown_path)
        if found is None:
            return None
        name = found.pop(RUN_GROUP)
        return _named(name, dict(found))
    value: object = metadata
    for part in dotted(rule.field or ""):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, dict):
        value = value.get("value")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_name = isinstance(value, str | int) and not isinstance(value, bool)
    return _named(str(value).strip(), {}) if is_name else None


def _named(name: str, path: Metadata) -> Belonging | None:
    try:
        return Belonging(run=name, path=path)
    except ValueError:  # no name that a run can have
        return None
