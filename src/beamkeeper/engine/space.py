"""How much space storage areas have: looked up now and then by a thread of its own, since a dead mount may hold it."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime

from beamkeeper.db import Database, StorageTransaction
from beamkeeper.domain.status import AreaSpace
from beamkeeper.engine.worker import Loop, Report

EVERY_S = 15.0


class SpaceLoop(Loop):
    """Measures the storage areas of this host in turn; what an area does not tell stays as it was."""

    def __init__(self, database: Database[StorageTransaction], spaces: dict[str, AreaSpace], *, report: Report) -> None:
        super().__init__("space", report=report, idle_s=EVERY_S)
        self._database = database
        self._spaces = spaces

    def step(self) -> bool:
        """Measure each of them."""
        with self._database.read() as tx:
            areas = tx.storage.list()
        for area in areas:
            if area.is_objects:
                continue
            try:
                found = shutil.disk_usage(area.path)
            except OSError:
                continue  # whether it works is told by those who write to it
            now = datetime.now(UTC)
            self._spaces[area.name] = AreaSpace(
                name=area.name, free_bytes=found.free, total_bytes=found.total, measured_at=now
            )
        return False
