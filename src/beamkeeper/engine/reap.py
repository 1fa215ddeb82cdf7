"""The reaper: shows that this process lives, and frees what dead ones held.

On one host, boot, pid and start time tell at once that a process is dead. One that lives, here or on another
host, has to move its counter: who has not for the time of a lease, by our own monotonic clock, has lost its
leases. Should it go on after all (it was stopped, or its host was cut off), fencing makes its results count for
nothing, and it writes itself down again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol
from uuid import UUID

from beamkeeper.config.failpoints import FailPoint, hit
from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.db.workers import Registered
from beamkeeper.engine.processes import Process
from beamkeeper.engine.worker import Loop, Report

BEATS = 12
"""So often in the time of a lease a process shows that it lives."""


class Held(Protocol):
    """What processes of a service hold, and how it becomes free."""

    def owners(self, tx: Any) -> Sequence[UUID]:
        """Return every process that holds something."""
        ...

    def free(self, tx: Any, owner: UUID) -> None:
        """Free what a process held that is no more."""
        ...

    def freed(self) -> None:
        """Go on with what was freed: that is written down now."""
        ...

    def leave(self, tx: Any, owner: UUID) -> bool:
        """Free what this process held, as it ends; tell whether it is to be forgotten."""
        ...


class JournalHeld:
    """The leases on files of the journal."""

    def owners(self, tx: AcquisitionTransaction) -> Sequence[UUID]:
        """Return every process that has leases, or brings more of a file that is still written."""
        return [*{*tx.journal.owners(), *tx.ahead.owners()}]

    def free(self, tx: AcquisitionTransaction, owner: UUID) -> None:
        """End a process's leases."""
        found = next((worker for worker in tx.workers.all() if worker.uid == owner), None)
        tx.journal.release(owner)
        tx.ahead.release(owner, is_dead=found is not None and is_dead(found))

    def freed(self) -> None:
        """Leave the files to who takes them next."""

    def leave(self, tx: AcquisitionTransaction, owner: UUID) -> bool:
        """End this process's leases."""
        tx.journal.release(owner)
        tx.ahead.release(owner, is_dead=False)
        return True


class ReapLoop(Loop):
    """Beats for this process, and looks after the others."""

    def __init__(
        self, database: Database[Any], owner: UUID, *, lease_s: float, report: Report, held: Held | None = None
    ) -> None:
        super().__init__("reap", report=report, idle_s=lease_s / BEATS)
        self._database = database
        self._owner = owner
        self._lease_s = lease_s
        self._held = held or JournalHeld()
        self._seen: dict[UUID, tuple[int, float]] = {}

    def register(self) -> None:
        """Write this process down, and free what dead ones of this host held; to be called before workers start."""
        self.step()

    def step(self) -> bool:
        """Beat, and free what was held by workers that are no more."""
        with self._database.write() as tx:
            if not tx.workers.beat(self._owner):
                self._write_down(tx)
            others = [worker for worker in tx.workers.all() if worker.uid != self._owner]
            known = {self._owner, *(worker.uid for worker in others)}
            unknown = [owner for owner in self._held.owners(tx) if owner not in known]
        for worker in others:
            if not self._lives(worker):
                self._bury(worker.uid)
        for owner in unknown:
            # It was taken for dead and works on: it has the time of a lease to write itself down again.
            if self._is_silent(owner, 0):
                self._bury(owner)
        return False

    def _write_down(self, tx: Any) -> None:
        me = Process.this()
        tx.workers.add(self._owner, host=me.host, boot_id=me.boot_id, pid=me.pid, start_ticks=me.start_ticks)

    def _lives(self, worker: Registered) -> bool:
        return not is_dead(worker) and not self._is_silent(worker.uid, worker.beat)

    def _is_silent(self, owner: UUID, beat: int) -> bool:
        """Whether a counter has stood still for the time of a lease since we first saw it so."""
        seen, since = self._seen.get(owner, (-1, 0.0))
        if seen != beat:
            self._seen[owner] = (beat, time.monotonic())
            return False
        return time.monotonic() - since >= self._lease_s

    def _bury(self, owner: UUID) -> None:
        # Free first, forget then: a worker row that goes first would leave its leases to nobody (procrastinate#1518).
        with self._database.write() as tx:
            self._held.free(tx, owner)
        self._held.freed()
        hit(FailPoint.REAPING)
        with self._database.write() as tx:
            tx.workers.remove(owner)
        self._seen.pop(owner, None)
        self._database.tell()

    def ended(self) -> None:
        """Free what this process held, and forget it: the workers have ended before."""
        with self._database.write() as tx:
            if self._held.leave(tx, self._owner):
                tx.workers.remove(self._owner)


def is_dead(worker: Registered) -> bool:
    """Whether a process is known to be no more; of one on another host that is never known."""
    process = Process(worker.host, worker.boot_id, worker.pid, worker.start_ticks)
    return process.is_here and not process.is_alive
