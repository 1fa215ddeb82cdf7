"""ssh connections that outlast a batch: making one costs more than sending a hundred small files over it."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

IDLE_S = 20
"""A connection over which nothing goes for so long is ended, by ssh itself."""

MOST_AGE_S = 600.0
"""A connection that is older takes no further batch: keys that are no longer accepted there are asked for again."""

MOST_BYTES = 90
"""ssh makes a socket under a longer name first, and the kernel takes 107 bytes."""


class Connections:
    """Names of the sockets by which ssh shares its connections, each for one batch at a time.

    Batches side by side have a connection each: over a single one they would share a cipher's processor. ssh makes the
    connection where there is none at a name, and so again where one has broken or ended.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._place: str | None = None
        self._free: dict[str, list[tuple[str, float]]] = {}
        self._made = 0

    @contextmanager
    def one(self, host: str) -> Iterator[list[str]]:
        """Yield what tells ssh which connection to a host to use; it is used again unless the block fails."""
        name, made_at = self._take(host)
        if len(os.fsencode(name)) > MOST_BYTES:
            yield []
            return
        told = name.replace("%", "%%")
        yield [f'ControlPath "{told}"', "ControlMaster auto", f"ControlPersist {IDLE_S}"]
        with self._lock:
            self._free.setdefault(host, []).append((name, made_at))

    def _take(self, host: str) -> tuple[str, float]:
        oldest = time.monotonic() - MOST_AGE_S
        with self._lock:
            free = self._free.get(host, [])
            while free:
                if (found := free.pop())[1] > oldest:
                    return found
            if self._place is None:
                self._place = tempfile.mkdtemp(prefix="beamkeeper-ssh-")
                weakref.finalize(self, shutil.rmtree, self._place, ignore_errors=True)
            self._made += 1
            return f"{self._place}/{self._made}", time.monotonic()
