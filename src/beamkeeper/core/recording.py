"""Who was sent what and how far it came, written down beside the sending: some at a time, and never in its way."""

from __future__ import annotations

import logging
import threading
from uuid import UUID

from beamkeeper.db import Database, StorageTransaction
from beamkeeper.domain.downloads import Delivery
from beamkeeper.domain.errors import DmError

logger = logging.getLogger(__name__)

EVERY_S = 1.0
"""What a crash can lose of the record; the bytes themselves do not depend on it."""

MOST_KEPT = 10_000
"""So many deliveries wait for a database that takes nothing; then the oldest are forgotten."""


class Recorder:
    """Takes what is told of deliveries, and writes it to the database once a second while there is news."""

    def __init__(self, database: Database[StorageTransaction]) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._news: dict[UUID, Delivery] = {}
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None

    def tell(self, delivery: Delivery) -> None:
        """Take over how far a delivery has come."""
        with self._lock:
            self._news[delivery.uid] = delivery
            if self._thread is None and not self._ends.is_set():
                self._thread = threading.Thread(target=self._run, name="deliveries", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Write what is left, and end."""
        self._ends.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()
        self.write()

    def _run(self) -> None:
        while True:
            self._ends.wait(EVERY_S)
            self.write()
            with self._lock:
                if self._ends.is_set() or not self._news:
                    self._thread = None
                    return

    def write(self) -> None:
        """Write what there is."""
        with self._lock:
            news, self._news = self._news, {}
        if not news:
            return
        try:
            with self._database.write() as tx:
                tx.downloads.record(list(news.values()))
        except DmError as error:
            with self._lock:  # what has come of them since is told already
                self._news = dict([*news.items(), *self._news.items()][-MOST_KEPT:])
            logger.warning("deliveries are not recorded yet", extra={"count": len(news), "why": error.message})
