"""What every loop is: a thread that takes a step, waits for news or a while, and survives its own errors."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import ClassVar

from beamkeeper.domain.errors import DmError

logger = logging.getLogger(__name__)

Report = Callable[[str], None]
"""Takes what went wrong, for the status page."""

LONGEST_PAUSE_S = 30.0
CALMING = 1.5
"""So much longer is each pause of a loop than the one before it, where nothing comes."""

MOST_CALM = 20
"""By then any pause has grown as far as it may."""


class Loop(threading.Thread):
    """Runs `step` again and again: at once while it has work, else when woken or after `idle_s`.

    `rest_s` is the least time between two steps of a loop whose work is not urgent: news comes in swarms.
    `quiet_s` is the longest pause of a loop whose work news tells of: its pauses grow up to that while nothing comes.
    What it finds by the time alone, it finds late by half of the time since the last news at most.
    An error in a step is reported and tried again with growing pauses: a loop ends only when it is stopped.
    """

    rest_s: ClassVar[float] = 0.0
    quiet_s: ClassVar[float] = 0.0

    def __init__(self, name: str, *, report: Report, idle_s: float = 1.0) -> None:
        super().__init__(name=name, daemon=True)
        self._report = report
        self._idle_s = idle_s
        self._woken = threading.Event()
        self._stopping = threading.Event()

    def step(self) -> bool:
        """Do some work; tell whether there may be more."""
        raise NotImplementedError

    def run(self) -> None:
        """Take steps until stopped."""
        failures, pauses = 0, 0
        while not self._stopping.is_set():
            self._woken.clear()
            try:
                is_busy = self.step()
                failures = 0
            except Exception as error:
                failures += 1
                self.failed(error)
                self._stopping.wait(min(LONGEST_PAUSE_S, 0.25 * 2 ** min(failures, 8)) * random.uniform(0.7, 1.0))
                continue
            if is_busy or self._woken.wait(self._calm_s(pauses)):
                pauses = 0
                if not is_busy:
                    self._stopping.wait(self.rest_s)
            else:
                pauses += 1
        self.ended()

    def _calm_s(self, before: int) -> float:
        """Return how long to wait after so many pauses in which nothing came; a step may have changed `_idle_s`."""
        return max(self._idle_s, min(self._idle_s * CALMING ** min(before, MOST_CALM), self.quiet_s))

    def failed(self, error: Exception) -> None:
        """Report an error of a step."""
        message = error.message if isinstance(error, DmError) else f"{type(error).__name__}: {error}"
        self._report(f"{self.name}: {message}")
        logger.error("loop failed", extra={"loop": self.name, "why": message}, exc_info=not isinstance(error, DmError))

    def warn(self, message: str) -> None:
        """Report what went another way than it should, and is taken care of."""
        self._report(f"{self.name}: {message}")
        logger.warning(message, extra={"loop": self.name})

    def ended(self) -> None:
        """Give back what the loop holds, after its last step."""

    def wake(self) -> None:
        """Take the next step now."""
        self._woken.set()

    def stop(self) -> None:
        """Take no further step."""
        self._stopping.set()
        self._woken.set()

    @property
    def is_stopping(self) -> bool:
        """Whether no further step will be taken."""
        return self._stopping.is_set()
