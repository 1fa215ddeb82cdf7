"""Keeps an intake for every active DAQ and upload of this agent, and ends those whose journal balances."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from datetime import timedelta
from uuid import UUID

from beamkeeper.core import acquisition as core
from beamkeeper.core.sources import Rules as SourceRules
from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.db.news import Topic
from beamkeeper.domain.acquisition import Acquisition, JournalState, Kind, State
from beamkeeper.domain.problems import ProblemKind
from beamkeeper.engine.intake import Intake, Rules
from beamkeeper.engine.problems import Tell, about
from beamkeeper.engine.worker import Loop, Report

J = JournalState
SWEEP_S = 60.0
"""How often the spool is freed of what puts have delivered."""


class AcquireLoop(Loop):
    """Starts and ends intakes as the database says; holds nothing that a restart would miss."""

    rest_s = 0.05
    quiet_s = 2.0

    def __init__(
        self,
        database: Database[AcquisitionTransaction],
        sources: SourceRules,
        rules: Rules,
        *,
        wake_workers: Callable[[], None],
        report: Report,
        tell: Tell,
    ) -> None:
        super().__init__("acquire", report=report, idle_s=0.5)
        self._database = database
        self._agent = sources.agent
        self._rules = rules
        self._wake_workers = wake_workers
        self._tell = tell
        self._sources = sources
        self._swept_at = float("-inf")
        self._intakes: dict[UUID, Intake] = {}
        self._unlisten = database.hear(self._hear)

    def _hear(self, told: Collection[Topic]) -> None:
        """Look at once, unless news is of one matter; of files, where all else is done: the last may have come."""
        if not told or any(intake.is_drained for intake in list(self._intakes.values())):
            self.wake()

    def intake(self, uid: UUID) -> Intake | None:
        """Return the intake of an acquisition, where it runs."""
        return self._intakes.get(uid)

    def written(self) -> list[tuple[int, bytes]]:
        """Return the directories that detectors write to now, each with its file system."""
        found = [i.written for i in list(self._intakes.values()) if i.acquisition.kind is Kind.DAQ]
        return [written for written in found if written is not None]

    def step(self) -> bool:
        """Bring the intakes to what the database says."""
        with self._database.read() as tx:
            active = [a for a in tx.acquisitions.active() if a.agent == self._agent]
        for acquisition in active:
            intake = self._intakes.get(acquisition.uid)
            if intake is None or not intake.is_alive():
                self._start(acquisition)
            self._look_at(acquisition)
        for uid in set(self._intakes) - {a.uid for a in active}:
            self._end(uid)
        if time.monotonic() - self._swept_at > SWEEP_S:
            self._swept_at = time.monotonic()
            self._sweep()
        return False

    def _sweep(self) -> None:
        with self._database.read() as tx:
            expired = core.expired_puts(tx, self._sources)
        for put in expired:
            with self._database.write() as tx:
                ended = core.expire_put(tx, put.uid, self._sources)
            if ended is not None:
                self._tell(about(ProblemKind.PUT_EXPIRED, ended, f"put {put.uid} is given up: {ended.message}"))
        with self._database.read() as tx:
            core.sweep_spool(tx, self._sources)

    def _start(self, acquisition: Acquisition) -> None:
        intake = Intake(
            acquisition,
            self._database,
            self._rules,
            wake_workers=self._wake_workers,
            report=self._report,
            tell=self._tell,
        )
        self._intakes[acquisition.uid] = intake
        intake.start()

    def _look_at(self, acquisition: Acquisition) -> None:
        with self._database.read() as tx:
            if self._wanted(tx, acquisition) is None:
                return
        # Looked at again in the transaction that writes: a worker may have given files back meanwhile.
        with self._database.write() as tx:
            tx.acquisitions.lock(acquisition.uid)  # nor may somebody want files to be tried again meanwhile
            wanted = self._wanted(tx, acquisition)
            if wanted is State.STOPPING:
                tx.events.add(core.changed(tx.acquisitions.request_stop(acquisition.uid)))
            elif wanted is not None:
                if wanted is State.ABORTED:
                    tx.journal.park(acquisition.uid)
                ended = tx.acquisitions.mark_ended(acquisition.uid, wanted, balance(tx, acquisition))
                tx.announcements.drop_all(acquisition.uid)
                tx.events.add(core.changed(ended))
                if wanted is State.FAILED:
                    why = f"{acquisition.kind} {acquisition.uid} has failed: {ended.message}"
                    self._tell(about(ProblemKind.DAQ_FAILED, acquisition, why))

    def _wanted(self, tx: AcquisitionTransaction, acquisition: Acquisition) -> State | None:
        """Return the state that an acquisition should go to now, if to another."""
        if tx.acquisitions.control(acquisition.uid).stop_now:
            return State.ABORTED
        if self._is_over_time(tx, acquisition):
            return State.STOPPING
        if not self._intakes[acquisition.uid].is_drained or tx.journal.undelivered(acquisition.uid) > 0:
            return None
        tallies = tx.journal.tallies(acquisition.uid)
        is_failed = any(t.state is J.QUARANTINED for t in tallies)
        return State.FAILED if is_failed or (not tallies and acquisition.kind is Kind.UPLOAD) else State.DONE

    def _is_over_time(self, tx: AcquisitionTransaction, acquisition: Acquisition) -> bool:
        if acquisition.max_run_time_s is None or acquisition.state is not State.RUNNING or not acquisition.started_at:
            return False
        return tx.now >= acquisition.started_at + timedelta(seconds=acquisition.max_run_time_s)

    def _end(self, uid: UUID) -> None:
        self._intakes.pop(uid).stop()

    def ended(self) -> None:
        """Stop every intake; what they saw is in the journal."""
        self._unlisten()
        for intake in self._intakes.values():
            intake.stop()
        for intake in self._intakes.values():
            intake.join(timeout=5)


def balance(tx: AcquisitionTransaction, acquisition: Acquisition) -> str:
    """Return the one sentence that says what was delivered and what was not."""
    tallies = tx.journal.tallies(acquisition.uid)
    delivered = sum(t.files for t in tallies if t.state is J.AVAILABLE)
    others = [
        f"{t.files} {t.state}" + (f" ({t.reason_code})" if t.reason_code else "")
        for t in tallies
        if t.state is not J.AVAILABLE
    ]
    if not tallies:
        return "there was nothing to deliver"
    return f"{delivered} available" + "".join(f", {other}" for other in others)
