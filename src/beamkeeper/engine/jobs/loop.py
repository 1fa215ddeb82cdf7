"""The loop of jobs: takes those that wait, begins their commands, writes down what came of them, ends them.

Everything that happened since the last step goes into one transaction, whatever number of jobs it is of. An attempt
is in the database before a runner is asked for it, and its result is on disk before the database has it: so after
any crash, what is under way is found again, and nothing runs twice that may not.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile
from typing import Any
from uuid import UUID

from beamkeeper.config.failpoints import JobPoint, hit
from beamkeeper.core import job_accounts
from beamkeeper.db import Database, ProcessingTransaction
from beamkeeper.db.base import new_uid
from beamkeeper.db.processing.engine import HeldJob
from beamkeeper.domain.errors import DmError
from beamkeeper.domain.processing import ACTIVE_ATTEMPTS, AttemptState, Cause, JobStatus
from beamkeeper.engine.jobs import orders, outcomes, tree
from beamkeeper.engine.jobs.ahead import Ahead
from beamkeeper.engine.jobs.local import Over
from beamkeeper.engine.jobs.orders import RunRules
from beamkeeper.engine.jobs.places import LOCAL, Places, Rooms
from beamkeeper.engine.jobs.plan import JobRun
from beamkeeper.engine.jobs.remote import ExecutorSpec
from beamkeeper.engine.jobs.saving import attempt_row, ended_row, events_of, job_row, stage_row
from beamkeeper.engine.jobs.sessions import JobSessions
from beamkeeper.engine.jobs.stages import Ended, Launch
from beamkeeper.engine.jobs.starting import StartLoop
from beamkeeper.engine.jobs.system import variables_of
from beamkeeper.engine.worker import Loop, Report

logger = logging.getLogger(__name__)

_Result = tuple[JobRun, Mapping[str, Any]]
"""A job, and the row of an attempt of it that is over."""

IDLE_S = 1.0
CLAIMED_AT_ONCE = 64
DOOR_S = 60.0
"""So long an answer counts that a door to another account is open or not."""


@dataclass(frozen=True, slots=True)
class Under:
    """An attempt that is under way, or about to be."""

    run: JobRun
    launch: Launch
    number: int
    uid: UUID
    order: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """How many at once: commands, and jobs of some workflows by name; and which executors run the rest."""

    station: str
    slots: int
    limits: Mapping[str, int]
    executors: Mapping[str, ExecutorSpec] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)


class JobsLoop(Loop):
    """Runs the jobs of one processing service."""

    rest_s = 0.01
    """Under load, what ends meanwhile shares a step and its transaction."""

    def __init__(
        self,
        database: Database[ProcessingTransaction],
        owner: UUID,
        rules: RunRules,
        settings: Settings,
        *,
        report: Report,
        sessions: JobSessions | None = None,
        starting: StartLoop | None = None,
    ) -> None:
        super().__init__("jobs", report=report, idle_s=IDLE_S)
        self._database = database
        self._owner = owner
        self._rules = rules
        self._settings = settings
        self._sessions = sessions
        self._starting = starting
        self._is_to_begin_again = False
        self._host, self._boot_id = socket.gethostname(), tree.boot_id()
        self._runs: dict[int, JobRun] = {}
        self._under: dict[str, Under] = {}
        self._places = Places(settings.executors, settings.roles, self.wake, self.warn, slots=settings.slots)
        self._ahead = Ahead(settings.slots)
        self._adopted: deque[int] = deque()
        self._doors: dict[str, tuple[float, str]] = {}
        self._stop_listening = database.listen(self.wake)
        if starting is not None:
            starting.serve(self._order, self._some_failed)

    def take_up(self, ids: Sequence[int]) -> None:
        """Go on with jobs that another process had in hand; called by the reaper."""
        self._adopted.extend(ids)
        self.wake()

    def ended(self) -> None:
        """Watch no more: commands go on under their runners, and the next process finds them."""
        self._stop_listening()
        self._places.close()

    def step(self) -> bool:
        """Write down what happened since the last step, and begin what may begin."""
        if self._is_to_begin_again:
            self._is_to_begin_again = False
            self._begin_again([])
        if not self._is_anything():
            self._places.rest()
            return False
        self._places.warm()
        over = self._places.take_over()
        if over:
            hit(JobPoint.RESULT_READ)
        adopted = [self._adopted.popleft() for _ in range(len(self._adopted))]
        try:
            launched, found, stopped = self._write(over, adopted)
            if over:
                hit(JobPoint.RESULT_KEPT)
            self._carry_out(launched, found, stopped)
        except Exception:
            self._begin_again(adopted)
            raise
        self._idle_s = min([IDLE_S, *(due for run in self._runs.values() if (due := run.due_in()) is not None)])
        return False

    def _carry_out(self, launched: Sequence[Under], found: Sequence[Under], stopped: Sequence[str]) -> None:
        """Do what is written down: order attempts, find others again, and stop some."""
        if launched:
            hit(JobPoint.ATTEMPT_WRITTEN)
        self._forget_ended()
        for under in launched:
            self._places.expect(under.order)
        if self._starting is not None:
            self._starting.give(launched)
        else:
            for under in launched:
                self._order(under)
        for under in found:
            self._find(under)
        for attempt in stopped:
            self._places.stop(attempt)

    def _some_failed(self) -> None:
        """Take note, in another thread, that attempts could not be ordered."""
        self._is_to_begin_again = True
        self.wake()

    def _begin_again(self, adopted: Sequence[int]) -> None:
        """Forget what is in memory and not in the database; what is there is loaded again."""
        self._adopted.extend([*adopted, *self._runs])
        self._runs.clear()
        self._under.clear()
        self._places.forget()

    def _rooms(self) -> Rooms:
        used = Counter(under.order["executor"] for under in self._under.values())
        slots = {LOCAL: self._settings.slots, **{name: one.slots for name, one in self._settings.executors.items()}}
        return Rooms({name: most - used[name] for name, most in slots.items()}, self._places.executor_of, self._ahead)

    def _is_anything(self) -> bool:
        """Whether there is something to do: asked often, so it only reads."""
        has_room = self._rooms().total > 0
        if self._adopted or self._places.has_news or (has_room and any(r.is_due for r in self._runs.values())):
            return True
        with self._database.read() as tx:
            asked = [self._runs.get(id_) for id_ in tx.engine_jobs.aborting(self._owner)]
            if any(run is None or not run.is_aborting for run in asked):
                return True
            if has_room:
                return tx.engine_jobs.is_any_waiting(self._settings.limits)
            return self._room_ahead(tx) > 0

    def _write(self, over: Sequence[Over], adopted: Sequence[int]) -> tuple[list[Under], list[Under], list[str]]:
        """Make one transaction of all that is new; return attempts to order, to find again, and to stop."""
        with self._database.write() as tx:
            rows = self._take_results(over, tx.now)
            asked = tx.engine_jobs.aborting(self._owner)
            found = self._adopt(tx, [*adopted, *asked])
            stopped = self._abort(asked, tx.now)
            launched = self._launch(tx)
            room = self._rooms().total
            if len(self._settings.executors):  # what waits for one place is no reason to leave another empty
                room -= sum(run.is_due for run in self._runs.values())
            room = min(room, CLAIMED_AT_ONCE) if room > 0 else self._room_ahead(tx)
            if room > 0:
                ids = tx.engine_jobs.claim(self._owner, room, self._settings.limits)
                for run in self._load(tx, ids, are_new=True):
                    self._ahead.begun(*run.beginning)
                launched += self._launch(tx)
            self._save(tx, rows, launched)
        return launched, found, stopped

    def _room_ahead(self, tx: ProcessingTransaction) -> int:
        """Return for how many of the next jobs there is room ahead: those that begin with what is short."""
        left = self._ahead.most + min(0, self._rooms().here)
        if left <= 0 or not self._ahead.is_anything or any(run.is_due for run in self._runs.values()):
            return 0
        found = takewhile(self._ahead.begins_short, tx.engine_jobs.next_workflows(left, self._settings.limits))
        return sum(1 for _ in found)

    def _take_results(self, over: Sequence[Over], now: datetime) -> list[_Result]:
        rows: list[_Result] = []
        for one in over:
            under = self._under.pop(one.attempt, None)
            if under is None:
                continue
            outputs = under.launch.command.outputs
            if under.order["executor"] == LOCAL:
                self._ahead.ended(under.launch.definition.command, one.result)
            found = outcomes.read(one.result, has_begun=one.has_begun, order=under.order, outputs=outputs)
            try:
                under.run.ended(under.launch.stage, under.number, found, now)
            except DmError as error:  # an output's pattern that takes too long, for example
                found = Ended(AttemptState.FAILED, Cause.VALUES, error.message, exit_status=found.exit_status)
                under.run.failed_late(under.launch.stage, found, now)
            rows.append((under.run, ended_row(under.uid, found, one.result, now)))
        return rows

    def _adopt(self, tx: ProcessingTransaction, ids: Sequence[int]) -> list[Under]:
        """Take up jobs that were begun; return their attempts that have to be found again."""
        ours = tx.engine_jobs.held(self._owner, [id_ for id_ in dict.fromkeys(ids) if id_ not in self._runs])
        found = []
        for run in self._load(tx, sorted(ours)):
            for attempt in run.held.attempts:
                if attempt.state in ACTIVE_ATTEMPTS:
                    launch = run.launch_of(attempt.stage, attempt.number)
                    if launch is not None:
                        found.append(self._under_way(run, launch, attempt.number, attempt.uid))
        return found

    def _load(self, tx: ProcessingTransaction, ids: Sequence[int], *, are_new: bool = False) -> list[JobRun]:
        loaded = []
        for held in tx.engine_jobs.load(ids, are_new=are_new):
            run = self._begin(tx, held)
            if run is not None:
                self._runs[run.id] = run
                loaded.append(run)
        return loaded

    def _begin(self, tx: ProcessingTransaction, held: HeldJob) -> JobRun | None:
        try:
            run = JobRun(held, variables_of(tx, held, self._settings.station), now=tx.now)
            self._check_account(run)
        except (DmError, ValueError) as error:
            why = error.message if isinstance(error, DmError) else f"its definition cannot be used: {error}"
            cause = Cause.ACCOUNT if "account" in why else Cause.VALUES
            row = {"status": str(JobStatus.FAILED), "ended_at": tx.now, "message": why, "cause": str(cause)}
            tx.engine_jobs.save_jobs([{"id": held.id, **row}])
            tx.events.add(events_of([(held, JobStatus.FAILED)])[0])
            return None
        return run

    def _check_account(self, run: JobRun) -> None:
        account = run.definition.user_account
        if account and account not in self._rules.accounts:
            raise DmError(f'commands cannot run under the account "{account}" here: see `processing.accounts`')
        if account and (why := self._refusal(account)):
            raise DmError(f'commands cannot run under the account "{account}" here: {why}')

    def _refusal(self, account: str) -> str:
        """Return why an account cannot be used; asked again only after a while, since it starts a process."""
        asked_at, why = self._doors.get(account, (-DOOR_S, ""))
        if time.monotonic() - asked_at >= DOOR_S:
            why = job_accounts.refusal(self._rules.run_as, account)
            self._doors[account] = (time.monotonic(), why)
        return why

    def _abort(self, asked: Mapping[int, str], now: datetime) -> list[str]:
        """Take note of jobs whose end is asked for; return the attempts that are to be ended."""
        stopped = []
        for id_, message in asked.items():
            run = self._runs.get(id_)
            if run is None:
                continue
            run.message = run.message or message
            run.abort(now)
            numbers = set(run.active)
            stopped += [uid for uid, under in self._under.items() if under.run is run and under.number in numbers]
        return stopped

    def _launch(self, tx: ProcessingTransaction) -> list[Under]:
        launched = []
        rooms = self._rooms()
        for run in self._runs.values():
            if not rooms:
                break
            for launch in run.launches(rooms):
                under = self._under_way(run, launch, run.launched(launch), new_uid())
                launched.append(under)
        return launched

    def _under_way(self, run: JobRun, launch: Launch, number: int, uid: UUID) -> Under:
        directory = orders.attempt_directory(self._rules.work, run.uid, number)
        account = run.definition.user_account
        executor = self._places.executor_of(launch.definition)
        order = orders.order(
            self._rules,
            launch,
            job=run.uid,
            attempt=uid,
            directory=directory,
            account=account,
            groups=self._places.groups if executor == LOCAL else {},
            executor=executor,
        )
        under = Under(run, launch, number, uid, order)
        self._under[str(uid)] = under
        return under

    def _save(self, tx: ProcessingTransaction, results: Sequence[_Result], launched: list[Under]) -> None:
        """Write all that changed, but of jobs that were taken from us."""
        changed = [run for run in self._runs.values() if run.is_changed]
        ours = tx.engine_jobs.held(self._owner, [run.id for run in changed])
        for run in [run for run in changed if run.id not in ours]:
            self._lose(tx, run, launched)
        changed = [run for run in changed if run.id in ours]
        tx.engine_jobs.save_attempts([row for run, row in results if self._runs.get(run.id) is run])
        here = {"host": self._host, "boot_id": self._boot_id}
        tx.engine_jobs.add_attempts([attempt_row(under, here) for under in launched])
        tx.engine_jobs.save_stages(
            [stage_row(run, name) for run in changed for name in run.stages if name in run.dirty_stages]
        )
        tx.engine_jobs.save_files(
            [
                {"job_id": run.id, "number": place, "variables": dict(run.files[place].variables)}
                for run in changed
                for place in run.dirty_files
            ]
        )
        tx.engine_jobs.save_jobs([job_row(run, tx.now) for run in changed])
        for event in events_of([(run.held, run.status) for run in changed if run.is_news]):
            tx.events.add(event)
        for run in changed:
            run.is_saved()

    def _lose(self, tx: ProcessingTransaction, run: JobRun, launched: list[Under]) -> None:
        """Let go of a job that somebody else has taken; what runs of it here ends, if that cannot follow it."""
        self.warn(f"job {run.uid} was taken over by another process")
        follows = tx.engine_jobs.worker_of(run.id)
        is_elsewhere = any(one.uid == follows and one.host != self._host for one in tx.workers.all())
        del self._runs[run.id]
        launched[:] = [under for under in launched if under.run is not run]
        for uid in [uid for uid, under in self._under.items() if under.run is run]:
            del self._under[uid]
            if is_elsewhere:
                self._places.stop(uid)

    def _forget_ended(self) -> None:
        ended = [run for run in self._runs.values() if run.has_ended]
        for run in ended:
            del self._runs[run.id]
        if self._sessions is not None:
            self._sessions.end([run.held for run in ended])

    def _order(self, under: Under) -> None:
        """Ask for a runner; where its directories cannot be made, the attempt is over."""
        try:
            orders.make_directories(self._rules, under.run.uid, under.number, under.run.definition.user_account)
        except OSError as error:
            fault = {"what": "directory", "error": error.strerror or str(error)}
            self._places.refuse(str(under.uid), {"fault": fault, "why": "", "exit_status": None, "signal": None})
            return
        order = under.order if self._sessions is None else self._sessions.into(under.order, under.run)
        self._places.start(order)
        hit(JobPoint.ATTEMPT_ORDERED)

    def _find(self, under: Under) -> None:
        """Find an attempt again that was under way before this process."""
        attempt = next(each for each in under.run.held.attempts if each.uid == under.uid)
        self._places.attach(under.order, is_here=attempt.host == self._host, boot_id=attempt.boot_id)
