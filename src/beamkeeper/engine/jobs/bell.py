"""What wakes a thread that waits for other processes as well: no event of Python can be waited for beside those."""

from __future__ import annotations

import os
import select
import threading
from contextlib import suppress


class Bell:
    """Rung by any thread, waited for by one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ring(self) -> None:
        """Wake who waits, or let its next wait end at once."""
        with self._lock:
            if self._descriptor >= 0:
                os.eventfd_write(self._descriptor, 1)

    def wait(self, timeout_s: float, *others: int) -> None:
        """Wait until it is rung, or one of some other descriptors can be read, for no longer than a time."""
        poll = select.poll()
        for descriptor in (self._descriptor, *others):
            poll.register(descriptor, select.POLLIN)
        poll.poll(timeout_s * 1000)
        with suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)

    def close(self) -> None:
        """Give back its descriptor; who rings it later is heard by nobody."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = -1
