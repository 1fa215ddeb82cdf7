"""Long polls: looking again after each commit with news, with no thread held meanwhile."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, cast

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from beamkeeper.core.events import still
from beamkeeper.db.news import Topic
from beamkeeper.domain.errors import DmError
from beamkeeper.domain.users import Caller
from beamkeeper.server.deps import context
from beamkeeper.server.stream import Bell

FoundT = TypeVar("FoundT")

ASKED_S = 2.0
"""So often it is found out who waits, where there is nothing to tell: news may have been the end of their session.

Where none came since it was last found out, nothing is owed, and nobody is woken.
"""


async def wait_for(
    request: Request,
    look: Callable[[Any, Caller], FoundT],
    is_enough: Callable[[FoundT], bool],
    *,
    wait_s: float,
    step_s: float = math.inf,
    about: Topic | None = None,
) -> FoundT:
    """Return what `look` finds once that is enough, or the time is over; `look` runs in a thread and a transaction.

    It looks again after each news, or each of a topic, and with `step_s` also so often: for what no news is told of.
    What is told is what the caller may see by then: who lost a session or a role is sent away within twice ASKED_S.
    """
    bell: Bell = request.app.state.bell
    caller: Caller = request.state.caller

    def once(*, is_last: bool, asks: bool) -> tuple[FoundT | None, bool]:
        with context(request).database.read() as tx:
            found, is_seen = None, False
            with suppress(DmError):  # it may be of the caller as that was
                found, is_seen = look(tx, caller), True
                if not (is_last or asks or is_enough(found)):
                    return None, False  # most news is of something else, and who is calling takes as long to find out
            now = still(tx, caller)
            if not is_seen or now != caller:
                found = look(tx, now)
            return found, is_last or is_enough(cast(FoundT, found))

    loop = asyncio.get_running_loop()
    asked_at = loop.time()
    end = asked_at + wait_s
    while True:
        ring = bell.next(about)
        left, asks = end - loop.time(), loop.time() - asked_at >= ASKED_S
        found, is_told = await run_in_threadpool(partial(once, is_last=left <= 0 or bell.is_closed, asks=asks))
        if is_told:
            return cast(FoundT, found)
        asked_at = loop.time() if asks else asked_at
        await bell.wait(min(left, step_s, math.inf if asks else ASKED_S), ring=ring)
