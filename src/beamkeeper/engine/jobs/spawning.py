"""The spawner as a process of ours: begun when somebody needs it, ahead of that where jobs are there, one at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from beamkeeper.engine.jobs.points import VARIABLE

IDLE_S = 300.0
"""A spawner that forked nothing for so long is ended: an idle service has none, and a scan does not wait for one."""

_PASSED_ON = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV", VARIABLE)


class Spawning:
    """Which spawner there is. `begun` is called with each new one, before anybody else has it."""

    def __init__(self, slots: int, begun: Callable[[subprocess.Popen[bytes]], None]) -> None:
        self._slots, self._begun = slots, begun
        self._lock = threading.Lock()
        self._warming: threading.Thread | None = None
        self._used = time.monotonic()
        self._is_closed = False
        self.present: subprocess.Popen[bytes] | None = None

    def running(self) -> subprocess.Popen[bytes] | None:
        """Return the spawner; begin one where there is none; None once it is closed."""
        self._used = time.monotonic()
        with self._lock:
            if self.present is None and not self._is_closed:
                made = _begin(self._slots)
                self._begun(made)
                self.present = made
            return self.present

    def warm(self) -> None:
        """Have a spawner begun beside everything else: jobs are there, and a Python takes its time to start."""
        if self.present is None and (self._warming is None or not self._warming.is_alive()):
            self._warming = threading.Thread(target=self.running, name="warming", daemon=True)
            self._warming.start()

    def part_with(self, spawner: subprocess.Popen[bytes] | None = None) -> subprocess.Popen[bytes] | None:
        """Return the spawner, which is no longer the one there is; None where there is none, or not this one."""
        with self._lock:
            found = self.present
            if found is None or (spawner is not None and found is not spawner):
                return None
            self.present = None
            return found

    def close(self) -> subprocess.Popen[bytes] | None:
        """Begin no more, and return the one there is."""
        with self._lock:
            self._is_closed = True
        return self.part_with()

    @property
    def is_idle(self) -> bool:
        """Whether it has had nothing to do for a while."""
        return time.monotonic() - self._used > IDLE_S


def _begin(slots: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "beamkeeper.engine.jobs.spawner", str(slots)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        cwd="/",
        start_new_session=True,  # who kills our group does not mean what runs
        env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
    )
