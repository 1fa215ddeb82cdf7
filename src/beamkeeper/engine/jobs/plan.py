"""What a job does next: pure, from its definition, its rows, and what came of its attempts.

A stage begins when those that it needs have ended. It runs one command, or one for each file; tries those again
that may be; repeats as its definition says; and ends. Everything is decided from what the database has, so that a
job goes on after any crash from where it was written down last.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from beamkeeper.db.processing.engine import HeldAttempt, HeldJob, HeldStage
from beamkeeper.domain.errors import DmError
from beamkeeper.domain.processing import (
    ACTIVE_ATTEMPTS,
    AttemptState,
    Cause,
    JobStatus,
    StageStatus,
)
from beamkeeper.domain.workflows import (
    Command,
    Definition,
    InputFile,
    commands_for,
    graph,
    holds,
    is_per_file,
    outputs_of,
)
from beamkeeper.domain.workflows.patterns import names_in
from beamkeeper.engine.jobs.stages import LONGEST_PAUSE_S, Ended, Launch, StageRun, Waiting, retry_delay

if TYPE_CHECKING:
    from beamkeeper.engine.jobs.places import Rooms

NO_INPUT = "Invalid input file specification."
"""What the original says of a job whose stages want a file and that has none."""


class JobRun:
    """One job in hand."""

    def __init__(self, held: HeldJob, system: Mapping[str, str], *, now: datetime) -> None:
        self.held = held
        self.id, self.uid = held.id, held.uid
        self.definition = Definition.model_validate(held.definition)
        self.status = held.status
        self.variables: dict[str, str] = dict(held.variables)
        self.files = [InputFile(f.path, f.experiment_path, dict(f.variables)) for f in held.files]
        self.completed, self.failed = held.completed, held.failed
        self.message, self.cause, self.stage = "", None if held.status is JobStatus.RUNNING else Cause.STOPPED, ""
        self.next_number = max((attempt.number for attempt in held.attempts), default=0) + 1
        self._system = system
        self._needs = graph(self.definition)
        self.stages = {name: StageRun(name, self.definition.stages[name]) for name in self._needs}
        self.dirty_stages: set[str] = set()
        self.dirty_files: set[int] = set()
        self.is_dirty = False
        self._told = held.status if held.stages or held.attempts else JobStatus.PENDING
        for stage in held.stages:
            self._resume(stage)
        self.advance(now)

    @property
    def beginning(self) -> tuple[str, list[str]]:
        """Its workflow, and the commands that it begins with."""
        begun = [stage.definition.command for stage in self.stages.values() if stage.waiting]
        return f"{self.held.workflow_owner}/{self.held.workflow_name}", begun

    @property
    def experiment(self) -> str:
        """The name of its experiment; empty where it has none."""
        return self._system.get("experimentName", "")

    def _resume(self, held: HeldStage) -> None:
        """Put a stage back to where it was written down."""
        stage = self.stages[held.name]
        stage.status, stage.repeats, stage.message, stage.cause = held.status, held.repeats, held.message, held.cause
        stage.started_at, stage.ended_at = held.started_at, held.ended_at
        if stage.status is not StageStatus.RUNNING:
            return
        commands = self._commands(stage)
        mine = [a for a in self.held.attempts if a.stage == stage.name and a.repeat == stage.repeats]
        for command in commands:
            self._resume_command(stage, command, [a for a in mine if a.file == command.file])

    def _resume_command(self, stage: StageRun, command: Command, attempts: Sequence[HeldAttempt]) -> None:
        if any(attempt.state is AttemptState.DONE for attempt in attempts):
            return
        for attempt in attempts:
            if attempt.state in ACTIVE_ATTEMPTS:
                stage.active[attempt.number] = (command, attempt.try_number)
                return
        tried = max((a.try_number for a in attempts if a.state is not AttemptState.ABORTED), default=0)
        stage.waiting.append(Waiting(command, tried + 1))

    @property
    def is_aborting(self) -> bool:
        """Whether its end was asked for."""
        return self.status is JobStatus.ABORTING

    @property
    def has_ended(self) -> bool:
        """Whether it is over."""
        return self.status in (JobStatus.DONE, JobStatus.FAILED, JobStatus.SKIPPED, JobStatus.ABORTED)

    @property
    def is_changed(self) -> bool:
        """Whether anything of it is to be written down."""
        return self.is_dirty or bool(self.dirty_stages or self.dirty_files) or self.is_news

    @property
    def is_news(self) -> bool:
        """Whether its status is another than was written down last."""
        return self.status is not self._told

    def is_saved(self) -> None:
        """Take note that all of it is written down."""
        self.is_dirty, self._told = False, self.status
        self.dirty_stages.clear()
        self.dirty_files.clear()

    @property
    def is_due(self) -> bool:
        """Whether a command of it may begin now, where there is room."""
        if self.status is not JobStatus.RUNNING or self._has_failed:
            return False
        clock = time.monotonic()
        return any(
            stage.not_before <= clock
            and (stage.definition.parallel_exec or not stage.active)
            and any(one.not_before <= clock for one in stage.waiting)
            for stage in self.stages.values()
            if stage.status is StageStatus.RUNNING
        )

    def launch_of(self, stage_name: str, number: int) -> Launch | None:
        """Return the command of an attempt that is under way."""
        stage = self.stages[stage_name]
        if number not in stage.active:
            return None
        command, try_number = stage.active[number]
        return Launch(stage_name, command, stage.repeats, try_number, stage.definition)

    def failed_late(self, stage_name: str, outcome: Ended, now: datetime) -> None:
        """Take note that a command ended well, and that what it said cannot be used."""
        self.failed += 1
        self._end_stage(self.stages[stage_name], StageStatus.FAILED, now, cause=outcome.cause, message=outcome.message)
        self.advance(now)

    @property
    def active(self) -> list[int]:
        """The numbers of the attempts that are under way."""
        return [number for stage in self.stages.values() for number in stage.active]

    def abort(self, now: datetime) -> None:
        """Take note that its end was asked for."""
        if self.status is JobStatus.RUNNING:
            self.status, self.cause = JobStatus.ABORTING, Cause.STOPPED
        self.advance(now)

    def launches(self, rooms: Rooms) -> list[Launch]:
        """Return commands that may begin now, as far as there is room; each becomes an attempt by `launched`."""
        if self.status is not JobStatus.RUNNING or self._has_failed:
            return []
        found: list[Launch] = []
        clock = time.monotonic()
        for stage in self.stages.values():
            if stage.status is not StageStatus.RUNNING or clock < stage.not_before:
                continue
            room = rooms.at(stage.definition)
            width = room if stage.definition.parallel_exec else min(room, 1 - len(stage.active))
            due = [one for one in stage.waiting if one.not_before <= clock][: max(0, width)]
            rooms.take(stage.definition, len(due))
            for one in due:
                stage.waiting.remove(one)
                found.append(Launch(stage.name, one.command, stage.repeats, one.try_number, stage.definition))
        return found

    def launched(self, launch: Launch) -> int:
        """Take note that a command has become an attempt; returns its number."""
        number = self.next_number
        self.next_number += 1
        self.stages[launch.stage].active[number] = (launch.command, launch.try_number)
        if self.stage != launch.stage:
            self.stage, self.is_dirty = launch.stage, True
        return number

    def due_in(self) -> float | None:
        """Return in how many seconds something becomes due that waits for its time."""
        clock = time.monotonic()
        times = [
            max(one.not_before, stage.not_before)
            for stage in self.stages.values()
            if stage.status is StageStatus.RUNNING
            for one in stage.waiting
        ]
        later = [at for at in times if at > clock]
        return min(later) - clock if later else None

    def ended(self, stage_name: str, number: int, outcome: Ended, now: datetime) -> None:
        """Take note of what came of an attempt, and decide what follows."""
        stage = self.stages[stage_name]
        if number not in stage.active:
            return
        command, try_number = stage.active.pop(number)
        if not outcome.has_begun:
            # Once that is a service that died; again and again it is a disk that is full, for example.
            pause = min(LONGEST_PAUSE_S, 0.1 * 2 ** min(stage.never_begun, 10)) if stage.never_begun else 0.0
            stage.never_begun += 1
            stage.waiting.insert(0, Waiting(command, try_number, time.monotonic() + pause))
        elif outcome.state is AttemptState.DONE:
            self._take_outputs(stage, command, outcome)
            self.completed += 1
        else:
            self.failed += outcome.state is not AttemptState.ABORTED
            self._failed(stage, command, try_number, outcome, now)
        self.is_dirty = True
        self.advance(now)

    def _failed(self, stage: StageRun, command: Command, try_number: int, outcome: Ended, now: datetime) -> None:
        if outcome.state is AttemptState.ABORTED and self.is_aborting:
            return
        delay = retry_delay(stage.definition, try_number, outcome)
        if delay is not None:
            stage.waiting.append(Waiting(command, try_number + 1, time.monotonic() + delay))
            return
        self._end_stage(stage, StageStatus.FAILED, now, cause=outcome.cause, message=outcome.message)

    def _take_outputs(self, stage: StageRun, command: Command, outcome: Ended) -> None:
        patterns = stage.definition.output_variable_regex_list
        if not patterns:
            return
        found = outputs_of(patterns, outcome.stdout)
        if command.file is None:
            self.variables.update(found)
        elif found:
            file = self.files[command.file]
            self.files[command.file] = replace(file, variables={**file.variables, **found})
            self.dirty_files.add(command.file)

    def advance(self, now: datetime) -> None:
        """Let stages begin, repeat and end, and the job with the last of them."""
        if self.has_ended:
            return
        is_moving = True
        while is_moving and self.status is JobStatus.RUNNING:
            moved = [self._advance_stage(stage, now) for stage in self.stages.values()]
            is_moving = True in moved
        self._end_job(now)

    def _advance_stage(self, stage: StageRun, now: datetime) -> bool:
        """Move a stage on by one step; tell whether it moved."""
        if stage.status is StageStatus.PENDING and not self._has_failed:
            needed = [self.stages[name] for name in self._needs[stage.name]]
            if all(one.status in (StageStatus.DONE, StageStatus.SKIPPED) for one in needed):
                self._begin_stage(stage, now)
                return True
        if stage.status is StageStatus.RUNNING and not stage.waiting and not stage.active:
            self._end_round(stage, now)
            return True
        return False

    def _begin_stage(self, stage: StageRun, now: datetime) -> None:
        stage.started_at = now
        self.dirty_stages.add(stage.name)
        try:
            if stage.definition.run_if and not holds(stage.definition.run_if, self._values(stage)):
                stage.status, stage.ended_at = StageStatus.SKIPPED, now
                return
        except DmError as error:
            self._end_stage(stage, StageStatus.FAILED, now, cause=Cause.VALUES, message=error.message)
            return
        stage.status = StageStatus.RUNNING
        self._begin_round(stage, now)

    def _begin_round(self, stage: StageRun, now: datetime) -> None:
        stage.repeats += 1
        self.dirty_stages.add(stage.name)
        try:
            commands = self._commands(stage)
        except DmError as error:
            self._end_stage(stage, StageStatus.FAILED, now, cause=Cause.VALUES, message=error.message)
            return
        if not commands:
            self._end_stage(stage, StageStatus.FAILED, now, cause=Cause.INPUT, message=NO_INPUT)
            return
        stage.waiting = [Waiting(command, 1) for command in commands]

    def _end_round(self, stage: StageRun, now: datetime) -> None:
        """Every command of a round ended well: repeat the stage, or end it."""
        self._gather(stage)
        definition = stage.definition
        try:
            is_enough = definition.repeat_until is None or holds(definition.repeat_until, self._values(stage))
        except DmError as error:
            self._end_stage(stage, StageStatus.FAILED, now, cause=Cause.VALUES, message=error.message)
            return
        if is_enough:
            self._end_stage(stage, StageStatus.DONE, now)
        elif definition.max_repeats is not None and stage.repeats >= definition.max_repeats:
            why = f"it was run {stage.repeats} times, and {definition.repeat_until} does not hold"
            self._end_stage(stage, StageStatus.FAILED, now, cause=Cause.REPEATS, message=why)
        else:
            stage.not_before = time.monotonic() + (definition.repeat_period or 0)
            self._begin_round(stage, now)

    def _gather(self, stage: StageRun) -> None:
        """Give the job the values of its files: the last match in the order of the files."""
        if is_per_file(stage.definition):
            names = names_in(stage.definition.output_variable_regex_list)
            for file in self.files:
                self.variables.update({name: file.variables[name] for name in names if name in file.variables})
            self.is_dirty = True

    def _end_stage(
        self, stage: StageRun, status: StageStatus, now: datetime, *, cause: Cause | None = None, message: str = ""
    ) -> None:
        stage.status, stage.ended_at, stage.waiting = status, now, []
        stage.cause, stage.message = cause, message
        self.dirty_stages.add(stage.name)
        if status is StageStatus.FAILED:
            self.stage = stage.name
            self.cause, self.message = cause, f'stage "{stage.name}": {message}'
        self.is_dirty = True

    def _end_job(self, now: datetime) -> None:
        if self.active:
            return
        if self.is_aborting:
            self._finish(JobStatus.ABORTED, now)
        elif self._has_failed:
            self._finish(JobStatus.FAILED, now)
        elif all(stage.has_ended for stage in self.stages.values()):
            is_any_done = any(stage.status is StageStatus.DONE for stage in self.stages.values())
            self._finish(JobStatus.DONE if is_any_done else JobStatus.SKIPPED, now)

    def _finish(self, status: JobStatus, now: datetime) -> None:
        self.status, self.is_dirty = status, True
        for stage in self.stages.values():
            if stage.status is StageStatus.RUNNING:
                stage.status, stage.ended_at = StageStatus.ABORTED, now
                self.dirty_stages.add(stage.name)

    @property
    def _has_failed(self) -> bool:
        return any(stage.status is StageStatus.FAILED for stage in self.stages.values())

    def _commands(self, stage: StageRun) -> tuple[Command, ...]:
        return commands_for(self.definition, stage.name, self._values(stage), self.files)

    def _values(self, stage: StageRun) -> dict[str, str]:
        first = (
            {"filePath": self.files[0].path, "experimentFilePath": self.files[0].experiment_path} if self.files else {}
        )
        return {**self._system, **first, **self.variables, "stage": stage.name}
