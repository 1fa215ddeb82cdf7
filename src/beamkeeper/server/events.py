"""The event feed over HTTP: pages, long poll, and server-sent events from one reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from beamkeeper.core import events as core
from beamkeeper.domain.events import Cursor, EventPage
from beamkeeper.domain.users import Caller
from beamkeeper.server.deps import Context, Ctx, Who

router = APIRouter(tags=["events"])

KEEP_ALIVE_S = 15.0
"""An idle stream says so this often, so that proxies keep it open and a dead reader is noticed."""


class Bell:
    """Rings in the event loop when a commit brought news: the one bridge from threads to the streams."""

    def __init__(self, ctx: Context) -> None:
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()
        self.is_closed = False
        self.stop = ctx.database.listen(self._ring_from_thread)

    def _ring_from_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        self._rung.set()
        self._rung = asyncio.Event()

    def close(self) -> None:
        """Send everybody who waits home, with what there is: the service stops."""
        self.is_closed = True
        self._ring()

    def next(self) -> asyncio.Event:
        """Return what the next ring sets: taken before one looks, so that no ring is missed between."""
        return self._rung

    async def wait(self, timeout_s: float, *, ring: asyncio.Event) -> None:
        """Return once this ring was, or after a second: news may come from another process."""
        try:
            await asyncio.wait_for(ring.wait(), min(timeout_s, 1.0))
        except TimeoutError:
            return


@router.get("/events", summary="What happened after a cursor")
async def events(
    *,
    request: Request,
    ctx: Ctx,
    who: Who,
    after: Annotated[str | None, Query(description="EPOCH.NUMBER of an earlier answer; none: from now.")] = None,
    wait: Annotated[float, Query(ge=0, le=60, description="Seconds to wait for an event.")] = 0.0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    last_event_id: Annotated[str | None, Header()] = None,
    accept: Annotated[str, Header()] = "*/*",
) -> EventPage:
    """Events after a cursor; as server-sent events where that is accepted."""
    begin = last_event_id or after
    if "text/event-stream" in accept:
        first = await run_in_threadpool(_page, ctx, who, begin, limit)
        return StreamingResponse(_stream(request, ctx, who, first, limit), media_type="text/event-stream")  # type: ignore[return-value]
    bell: Bell = request.app.state.bell
    loop = asyncio.get_running_loop()
    end = loop.time() + wait
    while True:
        ring = bell.next()
        page = await run_in_threadpool(_page, ctx, who, begin, limit)
        left = end - loop.time()
        if page.items or left <= 0 or bell.is_closed:
            return page
        begin = page.next
        await bell.wait(left, ring=ring)


def _page(ctx: Context, who: Caller, after: str | None, limit: int) -> EventPage:
    with ctx.database.read() as tx:
        return core.events_after(tx, who, Cursor.parse(after) if after else None, limit=limit)


async def _stream(request: Request, ctx: Context, who: Caller, page: EventPage, limit: int) -> AsyncIterator[str]:
    bell: Bell = request.app.state.bell
    loop = asyncio.get_running_loop()
    said = loop.time()
    yield f": from {page.next}\n\n"
    ring = bell.next()
    while not bell.is_closed and not await request.is_disconnected():
        for event in page.items:
            epoch = Cursor.parse(page.next).epoch
            yield f"id: {epoch}.{event.number}\nevent: {event.kind}\ndata: {event.model_dump_json()}\n\n"
            said = loop.time()
        if loop.time() - said > KEEP_ALIVE_S:
            yield f": at {page.next}\n\n"
            said = loop.time()
        if len(page.items) < limit:
            await bell.wait(1.0, ring=ring)
        ring = bell.next()
        page = await run_in_threadpool(_page, ctx, who, page.next, limit)
