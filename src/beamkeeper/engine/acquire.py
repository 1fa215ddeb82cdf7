"""Keeps an intake for every active DAQ and upload of this agent, and ends those whose journal balances."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.domain.acquisition import Acquisition, JournalState, Kind, State
from beamkeeper.domain.events import NewEvent
from beamkeeper.engine.intake import Intake, Rules
from beamkeeper.engine.worker import Loop, Report

J = JournalState


class AcquireLoop(Loop):
    """Starts and ends intakes as the database says; holds nothing that a restart would miss."""

    def __init__(
        self,
        database: Database[AcquisitionTransaction],
        agent: str,
        rules: Rules,
        *,
        wake_workers: Callable[[], None],
        report: Report,
    ) -> None:
        super().__init__("acquire", report=report, idle_s=0.5)
        self._database = database
        self._agent = agent
        self._rules = rules
        self._wake_workers = wake_workers
        self._intakes: dict[UUID, Intake] = {}
        self._unlisten = database.listen(self.wake)

    def intake(self, uid: UUID) -> Intake | None:
        """Return the intake of an acquisition, where it runs."""
        return self._intakes.get(uid)

    def step(self) -> bool:
        """Bring the intakes to what the database says."""
        with self._database.read() as tx:
            active = [a for a in tx.acquisitions.active() if a.agent == self._agent]
        for acquisition in active:
            if acquisition.uid not in self._intakes:
                self._start(acquisition)
            self._look_at(acquisition)
        for uid in set(self._intakes) - {a.uid for a in active}:
            self._end(uid)
        return False

    def _start(self, acquisition: Acquisition) -> None:
        intake = Intake(acquisition, self._database, self._rules, wake_workers=self._wake_workers, report=self._report)
        self._intakes[acquisition.uid] = intake
        intake.start()

    def _look_at(self, acquisition: Acquisition) -> None:
        intake = self._intakes[acquisition.uid]
        with self._database.write() as tx:
            control = tx.acquisitions.control(acquisition.uid)
            if control.stop_now:
                tx.journal.park(acquisition.uid)
                self._finish(tx, acquisition, State.ABORTED)
            elif self._is_over_time(tx, acquisition):
                tx.acquisitions.request_stop(acquisition.uid)
            elif intake.is_drained and tx.journal.undelivered(acquisition.uid) == 0:
                self._finish(tx, acquisition, self._end_state(tx, acquisition))

    def _is_over_time(self, tx: AcquisitionTransaction, acquisition: Acquisition) -> bool:
        if acquisition.max_run_time_s is None or acquisition.state is not State.RUNNING or not acquisition.started_at:
            return False
        return tx.now >= acquisition.started_at + timedelta(seconds=acquisition.max_run_time_s)

    def _end_state(self, tx: AcquisitionTransaction, acquisition: Acquisition) -> State:
        tallies = tx.journal.tallies(acquisition.uid)
        is_failed = any(t.state is J.QUARANTINED for t in tallies)
        return State.FAILED if is_failed or (not tallies and acquisition.kind is Kind.UPLOAD) else State.DONE

    def _finish(self, tx: AcquisitionTransaction, acquisition: Acquisition, state: State) -> None:
        tx.acquisitions.mark_ended(acquisition.uid, state, balance(tx, acquisition))
        tx.events.add(
            NewEvent(
                kind="acquisition.ended",
                experiment_uid=acquisition.experiment_uid,
                data={"uid": str(acquisition.uid), "state": str(state)},
            )
        )

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
