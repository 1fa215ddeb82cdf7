"""Fail points of the spawner and of runners, which import nothing of the settings unless a test sets one."""

from __future__ import annotations

import os

VARIABLE = "BEAMKEEPER_FAILPOINT"


def hit(name: str) -> None:
    """Pass a fail point: one of `beamkeeper.config.failpoints.JobPoint`, by its name."""
    if os.environ.get(VARIABLE):
        from beamkeeper.config import failpoints

        failpoints.hit(failpoints.JobPoint(name))
