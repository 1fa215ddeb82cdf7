"""Long polls: looking again after each commit with news, with no thread held meanwhile."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TypeVar

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from beamkeeper.server.stream import Bell

FoundT = TypeVar("FoundT")


async def wait_for(
    request: Request,
    look: Callable[[], FoundT],
    is_enough: Callable[[FoundT], bool],
    *,
    wait_s: float,
    step_s: float = math.inf,
) -> FoundT:
    """Return what `look` finds once that is enough, or the time is over; `look` runs in a thread.

    It looks again after each news, and with `step_s` also so often: for what no news is told of, such as files.
    """
    bell: Bell = request.app.state.bell
    loop = asyncio.get_running_loop()
    end = loop.time() + wait_s
    while True:
        ring = bell.next()
        found = await run_in_threadpool(look)
        left = end - loop.time()
        if is_enough(found) or left <= 0 or bell.is_closed:
            return found
        await bell.wait(min(left, step_s), ring=ring)
