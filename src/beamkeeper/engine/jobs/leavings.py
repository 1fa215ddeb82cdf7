"""Removing what was sent to the nodes of executors, and what was left there, once its jobs have ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from beamkeeper.db import Database, ProcessingTransaction
from beamkeeper.domain.errors import DmError
from beamkeeper.engine.jobs.carrying import MARKS, Staging
from beamkeeper.engine.worker import Loop, Report

EVERY_S = 60.0
SETTLED_S = 60.0
"""A job that ended so long ago has nothing under way any more."""

AT_ONCE = 500
"""Jobs that one question to the database is about."""


class LeavingsLoop(Loop):
    """Looks what may still lie there by the marks that are set before anything is sent; `places` are executors' own."""

    def __init__(
        self,
        database: Database[ProcessingTransaction],
        places: Mapping[Path, Staging],
        *,
        report: Report,
        settled_s: float = SETTLED_S,
    ) -> None:
        super().__init__("what lies at executors", report=report, idle_s=EVERY_S)
        self._database = database
        self._places = places
        self._settled = timedelta(seconds=settled_s)

    def step(self) -> bool:
        """Remove what is of jobs that have ended; one place that is away keeps no other from it."""
        faults: list[DmError] = []
        for directory, staging in self._places.items():
            try:
                self._see_to(directory / MARKS, staging)
            except DmError as error:
                faults.append(error)
        if faults:
            raise faults[0]
        return False

    def _see_to(self, marks: Path, staging: Staging) -> None:
        jobs: dict[UUID, list[Path]] = {}
        for mark in marks.iterdir() if marks.exists() else ():
            with suppress(ValueError, FileNotFoundError):
                jobs.setdefault(UUID(mark.read_text()), []).append(mark)
        if not (old := self._ended(list(jobs))):
            return
        transfer = staging.plugin()
        for mark in (mark for uid in old for mark in jobs[uid]):
            if self._stopping.is_set():
                return
            transfer.remove(f"{staging.url}/{mark.name}")
            mark.unlink(missing_ok=True)

    def _ended(self, jobs: Sequence[UUID]) -> list[UUID]:
        found: list[UUID] = []
        for start in range(0, len(jobs), AT_ONCE):
            with self._database.read() as tx:
                found += tx.engine_jobs.ended_before(jobs[start : start + AT_ONCE], tx.now - self._settled)
        return found
