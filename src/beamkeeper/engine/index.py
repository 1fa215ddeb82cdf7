"""The indexer: brings the search index of the catalogue up to date with the files, in the order of their changes."""

from __future__ import annotations

import time

from beamkeeper.db import CatalogTransaction, Database
from beamkeeper.db.news import Topic
from beamkeeper.engine.worker import Loop, Report

BATCH = 1000
"""So many files are indexed in one transaction: registering waits for no more than that, where one writes at a time."""

IDLE_S = 1.0
KEYS_S = 60.0
"""How often it is looked whether experiment types name other keys than those by which files were indexed."""

QUIET_S, LONGEST_QUIET_S = 0.05, 0.5
PATIENCE_S = 2.5
"""While files are registered without a pause the index waits, for at most so long: both use one processor, and files
that are registered soon matter more than files that are found soon."""


class IndexLoop(Loop):
    """Takes a batch of the files that have changed, and begins as soon as no more come for a moment.

    A batch is one transaction: what a crash cuts off has not happened, and is done anew.
    """

    def __init__(self, database: Database[CatalogTransaction], *, report: Report) -> None:
        super().__init__("index", report=report, idle_s=IDLE_S)
        self._database = database
        self._stop_listening = database.listen(self._hear, Topic.FILES)
        self._heard_at = 0.0
        self._gap_s = LONGEST_QUIET_S
        self._looked_at = 0.0

    def _hear(self) -> None:
        now = time.monotonic()
        self._gap_s, self._heard_at = now - self._heard_at, now
        self.wake()

    def _is_quiet(self) -> bool:
        """Whether no more seem to come: of calls close to one another, after thrice the time between the last two."""
        quiet_s = QUIET_S if self._gap_s > 2 * LONGEST_QUIET_S else max(QUIET_S, min(LONGEST_QUIET_S, 3 * self._gap_s))
        return time.monotonic() - self._heard_at >= quiet_s

    def step(self) -> bool:
        """Index a batch; tell whether there may be more."""
        if time.monotonic() > self._looked_at + KEYS_S:
            with self._database.write() as tx:
                tx.search.follow_types()
            self._looked_at = time.monotonic()
        with self._database.read() as tx:
            oldest, now = tx.search.oldest(), tx.now
        if oldest is None:
            return False
        is_late = (now - oldest).total_seconds() >= PATIENCE_S
        if not is_late and not self._is_quiet():
            self._stopping.wait(QUIET_S)
            return True
        began = time.monotonic()
        with self._database.write() as tx:
            done = tx.search.step(BATCH)
        if is_late and not self._is_quiet():
            self._stopping.wait(time.monotonic() - began)  # by turns with those who register
        return done > 0

    def ended(self) -> None:
        """Listen to the database no longer."""
        self._stop_listening()
