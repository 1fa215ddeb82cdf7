"""The scheduler's word on whether something may still run at the place where an attempt was taken."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from beamkeeper.domain.errors import DmError
from beamkeeper.engine.jobs import runner, tree

logger = logging.getLogger(__name__)

AGAIN_S = 5.0
"""So long one answer counts for all attempts."""

LONGEST_S = 30 * 86400.0
"""What was taken so long ago at a place that cannot be asked is given up."""


class Word:
    """What schedulers said last."""

    def __init__(self) -> None:
        self._asked: dict[str, tuple[float, frozenset[str] | None]] = {}

    def may_run(self, claim: Mapping[str, Any], directory: Path) -> bool:
        """Whether an attempt may still run; True as long as nobody says that it cannot."""
        place = claim.get("place") or {}
        if place.get("scheduler"):
            alive = self._alive(place["scheduler"])
            return alive is None or place["id"] in alive
        if place.get("host", "") == socket.gethostname() and claim["boot_id"] == tree.boot_id():
            return tree.start_ticks(int(claim["pid"])) == int(claim["start_ticks"])
        return time.time() - (directory / runner.CLAIM).stat().st_mtime < LONGEST_S

    def _alive(self, scheduler: str) -> frozenset[str] | None:
        """Return the jobs that a scheduler has in hand, by one question for all; None where it does not answer."""
        from beamkeeper.plugins import batch

        asked_at, alive = self._asked.get(scheduler, (-AGAIN_S, None))
        if time.monotonic() - asked_at < AGAIN_S:
            return alive
        try:
            rows = batch.scheduler_of(scheduler).queue()
            alive = frozenset(row.id for row in rows if not row.state.has_ended)
        except DmError as error:
            logger.warning("a scheduler cannot be asked", extra={"scheduler": scheduler, "why": error.message})
            alive = None
        self._asked[scheduler] = (time.monotonic(), alive)
        return alive
