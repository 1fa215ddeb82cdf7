"""Begins walks through the rights of files, where there is something to walk through."""

from __future__ import annotations

import time

from beamkeeper.db import Database, StorageTransaction
from beamkeeper.db.news import Topic
from beamkeeper.domain.names import Uid
from beamkeeper.domain.storage import StorageArea
from beamkeeper.engine.worker import Loop, Report

IDLE_S = 5.0
SWEEP_S = 3600.0


class PermissionLanes(Loop):
    """Keeps a walking thread for each storage area in which there is something to walk through."""

    rest_s = 0.2

    def __init__(self, database: Database[StorageTransaction], *, report: Report) -> None:
        super().__init__("permissions", report=report, idle_s=IDLE_S)
        self._database = database
        self._lanes: dict[Uid, Loop] = {}
        self._sweep_at = time.monotonic() + SWEEP_S
        self._unlisten = database.listen(self.wake, Topic.WALKS)

    def step(self) -> bool:
        """Start the threads that are needed."""
        if time.monotonic() > self._sweep_at:
            self._sweep_at = time.monotonic() + SWEEP_S
            with self._database.write() as tx:
                tx.permissions.sweep()
        with self._database.read() as tx:
            areas = [tx.storage.get(uid) for uid in tx.permissions.areas() if uid not in self._lanes]
        for area in areas:
            if not area.is_objects and not self.is_stopping:
                self._start(area)
        return False

    def _start(self, area: StorageArea) -> None:
        from beamkeeper.engine.permissions import PermissionLoop  # most of the time nobody walks, and it takes memory

        self._lanes[area.uid] = PermissionLoop(self._database, area, report=self._report)
        self._lanes[area.uid].start()

    def stop(self) -> None:
        """Let no thread begin another walk."""
        super().stop()
        for lane in list(self._lanes.values()):
            lane.stop()

    def ended(self) -> None:
        """Wait for the last steps."""
        self._unlisten()
        for lane in self._lanes.values():
            lane.stop()
        for lane in self._lanes.values():
            lane.join()
