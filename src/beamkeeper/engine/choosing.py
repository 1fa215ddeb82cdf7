"""Choosing replicas: what was asked for many files becomes an order for each of them, some hundred at a time."""

from __future__ import annotations

from beamkeeper.db import CatalogTransaction, Database
from beamkeeper.db.news import Topic
from beamkeeper.engine.worker import Loop, Report

IDLE_S = 5.0


class ChoosingLoop(Loop):
    """Works through the requests for replicas; each batch is one transaction, so that a crash leaves no half of it."""

    rest_s = 0.05

    def __init__(self, database: Database[CatalogTransaction], *, report: Report) -> None:
        super().__init__("replica requests", report=report, idle_s=IDLE_S)
        self._database = database
        self._unlisten = database.listen(self.wake, Topic.REPLICAS)

    def step(self) -> bool:
        """Choose the replicas of some files."""
        with self._database.read() as tx:
            if not tx.replica_requests.is_any():
                return False
        with self._database.write() as tx:
            is_busy = tx.replica_requests.step()
        self._database.tell(Topic.REPLICAS)
        self._stopping.wait(0.02)  # by turns with those who register, where one writes at a time
        return is_busy

    def ended(self) -> None:
        """Listen no more."""
        self._unlisten()
