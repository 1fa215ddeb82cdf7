"""What people and writers have asked of a DAQ or upload, as its intake obeys it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from uuid import UUID

from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.db.acquisition import Control
from beamkeeper.db.news import OTHERS_S, Topic

Announced = Sequence[tuple[int, bytes]]
"""Paths that were announced, each with its number, in the order of the numbers."""


class Orders:
    """Reads them at news, and each OTHERS_S: an intake looks at its directory far more often than they change."""

    def __init__(
        self, database: Database[AcquisitionTransaction], acquisition_uid: UUID, wake: Callable[[], None]
    ) -> None:
        self._database = database
        self._uid = acquisition_uid
        self._wake = wake
        self._control: Control | None = None
        self._read_at = 0.0
        self._is_news = True
        self.close = database.listen(self._hear, Topic.ORDERS)
        """Hear of no more."""

    def _hear(self) -> None:
        self._is_news = True
        self._wake()

    def take(self, heard_to: int) -> tuple[Control, Announced]:
        """Return what holds now, and what was announced after a number, as far as that is news."""
        if self._control is not None and not self._is_news and time.monotonic() - self._read_at < OTHERS_S:
            return self._control, ()
        self._is_news, self._read_at = False, time.monotonic()  # before it is read: what comes meanwhile is news again
        with self._database.read() as tx:
            self._control = tx.acquisitions.control(self._uid)
            return self._control, tx.announcements.after(self._uid, heard_to)

    def take_again(self) -> None:
        """Have everything read once more: what was announced was not taken in."""
        self._is_news = True
