"""Ordering attempts once their jobs have their tokens, so that nothing of other jobs waits for the storage service.

Jobs that wait get theirs ahead: while the loop of jobs still claims one, its token is asked for already.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from beamkeeper.db import Database, ProcessingTransaction
from beamkeeper.domain.users.jobs import MOST_AT_ONCE
from beamkeeper.engine.jobs.sessions import END_EVERY_S, JobSessions, OwnedJob
from beamkeeper.engine.worker import Loop, Report

if TYPE_CHECKING:
    from beamkeeper.engine.jobs.loop import Under

AHEAD = 32
"""So many of the jobs that wait have their tokens ahead, the first of them."""


class StartLoop(Loop):
    """Gets the tokens of jobs, many by one request, orders their attempts, and lets tokens end."""

    quiet_s = 4.0
    rest_s = 0.01
    """Each request is news to every service of the station: what comes close together shares one."""

    def __init__(self, database: Database[ProcessingTransaction], sessions: JobSessions, *, report: Report) -> None:
        super().__init__("tokens of jobs", report=report, idle_s=END_EVERY_S)
        self._database = database
        self._sessions = sessions
        self._waiting: deque[Under] = deque()
        self._asked: dict[UUID, None] = {}
        self._looked_at = 0.0
        self._order: Callable[[Under], None] = lambda _: None
        self._fail: Callable[[], None] = lambda: None
        self._unlisten = database.listen(self.wake)

    def serve(self, order: Callable[[Under], None], fail: Callable[[], None]) -> None:
        """Say what orders an attempt, and what is called where some could not be ordered."""
        self._order, self._fail = order, fail

    def give(self, launched: Sequence[Under]) -> None:
        """Take attempts that are to be ordered; those whose jobs want no token, or have theirs, are at once."""
        for under in launched:
            if self._sessions.is_wanted(under.run.held):
                self._waiting.append(under)
            else:
                self._order(under)
        if self._waiting:
            self.wake()

    def step(self) -> bool:
        """Order what waits, and let the tokens end of jobs that have."""
        some = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
        try:
            self._sessions.begin([*(under.run.held for under in some), *self._next()][:MOST_AT_ONCE])
            for under in some:
                self._order(under)
        except Exception:
            if some:
                self._fail()
            raise
        # One that was stopped meanwhile has ended before its token began.
        self._sessions.end([under.run.held for under in some if under.run.has_ended])
        if not self._waiting:
            self._forget_ended()
            self._sessions.flush()
        return bool(self._waiting)

    def _next(self) -> Sequence[OwnedJob]:
        """Return jobs that wait and have no token, each only once: who got none ahead gets one in its turn."""
        with self._database.read() as tx:
            found = tx.engine_jobs.next_of_experiments(AHEAD)
        fresh = [job for job in found if job.uid not in self._asked and self._sessions.is_wanted(job)]
        self._asked.update(dict.fromkeys(job.uid for job in fresh))
        return fresh

    def _forget_ended(self) -> None:
        """Let tokens end that were asked for ahead, of jobs that have ended: also of those that never began."""
        if not self._asked or time.monotonic() < self._looked_at + END_EVERY_S:
            return
        self._looked_at = time.monotonic()
        with self._database.read() as tx:
            left = tx.engine_jobs.not_ended(list(self._asked))
        ended = [uid for uid in self._asked if uid not in left]
        for uid in ended:
            del self._asked[uid]
        self._sessions.end_unused(ended)

    def ended(self) -> None:
        """Let tokens end; what was not ordered is found by the next process, as what never began."""
        self._unlisten()
        self._sessions.flush(is_last=True)
