"""What a stage of a job is while it runs, and when a command of it is tried again."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from beamkeeper.domain.processing import AttemptState, Cause, StageStatus
from beamkeeper.domain.workflows import Command, StageDefinition

LONGEST_PAUSE_S = 30.0
"""So long at most is waited after an attempt that did not begin, where others before it did not either."""

LONGEST_LUCK = 5
"""A command that may be run again where it is unknown whether it has run is begun so often at most."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A command that may begin now."""

    stage: str
    command: Command
    repeat: int
    try_number: int
    definition: StageDefinition


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of an attempt."""

    state: AttemptState
    cause: Cause | None = None
    message: str = ""
    exit_status: int | None = None
    has_begun: bool = True
    """False where it is certain that its command never began: then it is as if it had not been tried."""
    stdout: str = ""


@dataclass
class Waiting:
    """A command that waits for its turn or for its time."""

    command: Command
    try_number: int
    not_before: float = 0.0


@dataclass
class StageRun:
    """A stage of a job that runs."""

    name: str
    definition: StageDefinition
    status: StageStatus = StageStatus.PENDING
    repeats: int = 0
    message: str = ""
    cause: Cause | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    waiting: list[Waiting] = field(default_factory=list)
    active: dict[int, tuple[Command, int]] = field(default_factory=dict)
    """Attempts under way, by number, with their command and which try each is."""
    not_before: float = 0.0
    never_begun: int = 0
    """Attempts that certainly did not begin."""

    @property
    def has_ended(self) -> bool:
        """Whether it is over."""
        return self.status not in (StageStatus.PENDING, StageStatus.RUNNING)


def retry_delay(definition: StageDefinition, try_number: int, outcome: Ended) -> float | None:
    """Return after how many seconds a command is to be tried again; None for not at all."""
    if outcome.state is AttemptState.UNKNOWN:
        return 0.0 if definition.idempotent and try_number < LONGEST_LUCK else None
    retries = definition.retries
    if retries is None or try_number > retries.max or outcome.state is not AttemptState.FAILED:
        return None
    if retries.exit_codes and outcome.exit_status not in retries.exit_codes:
        return None
    return retries.delay * retries.back_off ** (try_number - 1)
