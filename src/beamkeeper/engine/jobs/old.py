"""Removing what jobs wrote that ended long ago; their records stay."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from uuid import UUID

from beamkeeper.db import Database, ProcessingTransaction
from beamkeeper.engine.jobs.orders import job_directory
from beamkeeper.engine.worker import Loop, Report

EVERY_S = 3600.0
AT_ONCE = 500
"""Directories that one question to the database is about."""


class OldJobsLoop(Loop):
    """Removes the directories of jobs that ended more than so many days ago."""

    def __init__(
        self, database: Database[ProcessingTransaction], work: Path, keep_days: float, *, report: Report
    ) -> None:
        super().__init__("old jobs", report=report, idle_s=EVERY_S)
        self._database = database
        self._work = work
        self._keep = timedelta(days=keep_days)

    def step(self) -> bool:
        """Look through all directories once; what is of no job that we know stays."""
        with self._database.read() as tx:
            before = tx.now - self._keep
        left = 0
        directories = _directories(self._work, before)
        while not self._stopping.is_set() and (some := list(islice(directories, AT_ONCE))):
            with self._database.read() as tx:
                old = tx.engine_jobs.ended_before(some, before)
            for uid in old:
                if self._stopping.is_set():
                    break
                shutil.rmtree(job_directory(self._work, uid), ignore_errors=True)
                left += job_directory(self._work, uid).exists()
        if left:
            self.warn(
                f"{left} directories of old jobs in {self._work} cannot be removed: see to whom their files belong"
            )
        return False


def _directories(work: Path, before: datetime) -> Iterator[UUID]:
    """Yield the jobs that have a directory, without those whose uid tells that they are younger than this."""
    with os.scandir(work) as entries:
        for entry in entries:
            with suppress(ValueError):
                uid = UUID(entry.name)
                made_ms = uid.int >> 80 if uid.version == 7 else 0  # a UUIDv7 begins with its time
                if str(uid) == entry.name and made_ms <= before.timestamp() * 1000:
                    yield uid
