"""A limit on bandwidth for each destination that serves every transport, also one that has none of its own.

A batch moves as fast as its transport can, and then none begins until so much time has passed as its bytes may take. So
the limit is an average over some batches, and no promise for any second. What was not used is not saved up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from uuid import UUID

from beamkeeper.domain.storage import StorageArea
from beamkeeper.plugins.api import TransferItem

Rate = Callable[[str], int | None]
"""Returns how many bytes a second a transfer may send on the average, by its name; None: as many as it can."""


class Pacing:
    """A token bucket for each storage area, shared by all that send."""

    def __init__(self, rate: Rate = lambda name: None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._open_at: dict[UUID, float] = {}

    def take(self, area: StorageArea, items: Sequence[TransferItem]) -> None:
        """Take what a batch needs, as it begins."""
        rate = self._rate(area.transfer)
        if rate is None:
            return
        wanted = sum(
            max(0, item.identity.size - item.ahead.size if item.ahead else item.identity.size) for item in items
        )
        with self._lock:
            now = self._clock()
            self._open_at[area.uid] = max(now, self._open_at.get(area.uid, now)) + wanted / rate

    def closed(self) -> set[UUID]:
        """Return the storage areas to which no batch may begin yet."""
        with self._lock:
            now = self._clock()
            self._open_at = {uid: at for uid, at in self._open_at.items() if at > now}
            return set(self._open_at)
