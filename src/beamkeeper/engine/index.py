"""The indexer: brings the search index of the catalogue up to date with the files, in the order of their changes."""

from __future__ import annotations

import time
from collections.abc import Callable

from beamkeeper.db import CatalogTransaction, Database
from beamkeeper.db.news import Topic
from beamkeeper.domain.units import read_definitions
from beamkeeper.engine.worker import Loop, Report

BATCH = 1000
"""So many files are indexed in one transaction: registering waits for no more than that, where one writes at a time."""

IDLE_S = 1.0
KEYS_S = 60.0
"""How often it is looked whether experiment types name other keys than those by which files were indexed."""

QUIET_S, LONGEST_QUIET_S = 0.05, 0.5
PATIENCE_S = 1.5
"""While files are registered without a pause the index waits, for at most so long: both use one processor, and files
that are registered soon matter more than files that are found soon."""

SWARM_FILES_S, SWARM_PATIENCE_S = 1500.0, 30.0
"""Where more files come each second than the thousand for which a lag is promised, it waits for so long: a swarm is
taken in at full speed first, and then indexed."""

REST = 0.5
"""So long is it rested between two batches while more come, as a part of what the last one took."""

PACE_S = 0.5
"""Over so long at least it is measured how fast files come."""

SETTLED_S = 10.0
"""So long after its start, once nothing waits, the indexer reads what units there are: else the first who searches for
one waits for that, and a service that has just started has better to do."""


class Pace:
    """How fast files come, by how many have come so far."""

    def __init__(self) -> None:
        self.files_s = 0.0
        self._seen: tuple[float, int] | None = None

    def look(self, now: float, come: int) -> None:
        """Take how many have come until a monotonic time in seconds, from whenever on."""
        if self._seen is None:
            self._seen = now, come
        elif (since := now - self._seen[0]) >= PACE_S:
            self.files_s = (come - self._seen[1]) / since
            self._seen = now, come

    def end(self) -> None:
        """No more come: what comes next is measured anew."""
        self.files_s, self._seen = 0.0, None


class IndexLoop(Loop):
    """Takes a batch of the files that have changed, and begins as soon as no more come for a moment.

    `is_busy` tells whether a call is being worked on that may bring more.
    A batch is one transaction: what a crash cuts off has not happened, and is done anew.
    """

    def __init__(
        self, database: Database[CatalogTransaction], *, report: Report, is_busy: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__("index", report=report, idle_s=IDLE_S)
        self._database = database
        self._is_busy = is_busy
        self._stop_listening = database.listen(self._hear, Topic.FILES)
        self._heard_at = 0.0
        self._gap_s = LONGEST_QUIET_S
        self._looked_at = 0.0
        self._pace = Pace()
        self._settled_at = time.monotonic() + SETTLED_S
        self._has_units = False
        self._indexed = 0
        self._is_late = False
        """It indexes while others register, for those files have waited long."""

    def _hear(self) -> None:
        now = time.monotonic()
        self._gap_s, self._heard_at = now - self._heard_at, now
        self.wake()

    def _is_quiet(self) -> bool:
        """Whether no more seem to come: of calls close to one another, after thrice the time between the last two."""
        return not self._is_busy() and time.monotonic() - self._heard_at >= self._quiet_s

    @property
    def _quiet_s(self) -> float:
        if self._gap_s > 2 * LONGEST_QUIET_S:
            return QUIET_S
        return max(QUIET_S, min(LONGEST_QUIET_S, 3 * self._gap_s))

    def step(self) -> bool:
        """Index a batch; tell whether there may be more."""
        if time.monotonic() > self._looked_at + KEYS_S:
            with self._database.write() as tx:
                tx.search.follow_types()
            self._looked_at = time.monotonic()
        if not self._is_late:
            self._stopping.wait(max(0.0, self._heard_at + self._quiet_s - time.monotonic()))
        with self._database.read() as tx:
            oldest, now = tx.search.oldest(), tx.now
            is_quiet = self._is_quiet()
            waiting = 0 if is_quiet else tx.search.lag()[0]
        if oldest is None:
            self._is_late = False
            self._read_units()
            return False
        if is_quiet:
            self._pace.end()
        else:
            self._pace.look(time.monotonic(), self._indexed + waiting)
            patience_s = SWARM_PATIENCE_S if self._pace.files_s > SWARM_FILES_S else PATIENCE_S
            if (now - oldest).total_seconds() < patience_s:
                self._stopping.wait(QUIET_S)
                return True
        began = time.monotonic()
        with self._database.write() as tx:
            done = tx.search.step(BATCH)
        self._indexed += done
        self._is_late = not self._is_quiet()
        if self._is_late:
            self._stopping.wait(REST * (time.monotonic() - began))  # by turns with those who register
        return done >= BATCH or self._is_late

    def _read_units(self) -> None:
        if not self._has_units and time.monotonic() >= self._settled_at:
            read_definitions()
            self._has_units = True

    def ended(self) -> None:
        """Listen to the database no longer."""
        self._stop_listening()
