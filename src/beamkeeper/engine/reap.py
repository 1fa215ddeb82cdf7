"""The reaper: shows that this process lives, and frees what dead ones held.

On one host, boot, pid and start time decide at once. Of another host we know only its counter: who has not
moved it for LEASE_S by our own monotonic clock has lost its leases; should it live after all, fencing makes its
results count for nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID

from beamkeeper.config.failpoints import FailPoint, hit
from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.db.workers import Registered
from beamkeeper.domain.errors import DmError
from beamkeeper.engine.processes import Process
from beamkeeper.engine.scene import Scene
from beamkeeper.engine.worker import Loop, Report
from beamkeeper.plugins.api import Transfer

LEASE_S = 60.0
BEAT_S = 5.0


class ReapLoop(Loop):
    """Beats for this process, and looks after the others."""

    def __init__(
        self,
        database: Database[AcquisitionTransaction],
        owner: UUID,
        transfer: Callable[[str], Transfer],
        *,
        report: Report,
    ) -> None:
        super().__init__("reap", report=report, idle_s=BEAT_S)
        self._database = database
        self._owner = owner
        self._transfer = transfer
        self._seen: dict[UUID, tuple[int, float]] = {}

    def register(self) -> None:
        """Write this process down, and free what dead ones of this host held; to be called before workers start."""
        me = Process.this()
        with self._database.write() as tx:
            tx.workers.add(self._owner, host=me.host, boot_id=me.boot_id, pid=me.pid, start_ticks=me.start_ticks)
        self.step()

    def step(self) -> bool:
        """Beat, and free what was held by workers that are no more."""
        with self._database.write() as tx:
            tx.workers.beat(self._owner)
            others = [worker for worker in tx.workers.all() if worker.uid != self._owner]
        for worker in others:
            if not self._lives(worker):
                self._bury(worker)
        return False

    def _lives(self, worker: Registered) -> bool:
        process = Process(worker.host, worker.boot_id, worker.pid, worker.start_ticks)
        if process.is_here:
            return process.is_alive
        beat, since = self._seen.get(worker.uid, (-1, 0.0))
        if beat != worker.beat:
            self._seen[worker.uid] = (worker.beat, time.monotonic())
            return True
        return time.monotonic() - since < LEASE_S

    def _bury(self, worker: Registered) -> None:
        # Free first, forget then: a worker row that goes first would leave its leases to nobody (procrastinate#1518).
        with self._database.write() as tx:
            stagings = tx.journal.release(worker.uid)
            places = [(Scene.of(tx, acquisition), batch) for acquisition, batch in stagings]
        hit(FailPoint.REAPING)
        for scene, batch in places:
            try:
                self._transfer(scene.area.transfer).discard(scene.staging(batch))
            except DmError as error:
                self.failed(error)  # a leftover takes space, and no more: it is tried again with its batch
        with self._database.write() as tx:
            tx.workers.remove(worker.uid)
        self._database.tell()

    def ended(self) -> None:
        """Free what this process held, and forget it: the workers have ended before."""
        with self._database.write() as tx:
            tx.journal.release(self._owner)
            tx.workers.remove(self._owner)
