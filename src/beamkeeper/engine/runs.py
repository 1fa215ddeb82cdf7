"""Brings rules of runs, which are new or removed, to the files that are catalogued already."""

from __future__ import annotations

from beamkeeper.core.runs import STEP_FILES
from beamkeeper.db import CatalogTransaction, Database
from beamkeeper.db.news import Topic
from beamkeeper.engine.worker import Loop, Report


class RunRulesLoop(Loop):
    """Goes on with one rule a step; how far it has come is in the database, with what it did."""

    quiet_s = 4.0

    def __init__(self, database: Database[CatalogTransaction], *, report: Report, batch: int = STEP_FILES) -> None:
        super().__init__("run rules", report=report)
        self._database = database
        self._unlisten = database.listen(self.wake, Topic.RUN_RULES)
        self._batch = batch

    def step(self) -> bool:
        """Apply or undo a rule for some files; tell whether there may be more."""
        with self._database.read() as tx:
            if not tx.run_rules.is_waiting():
                return False
        with self._database.write() as tx:
            return tx.run_rules.step(self._batch)

    def ended(self) -> None:
        """Listen no more."""
        self._unlisten()
