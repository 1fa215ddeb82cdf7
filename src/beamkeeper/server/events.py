"""The event feed over HTTP: pages, long poll, and server-sent events from one reader."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from beamkeeper.core import events as core
from beamkeeper.db.news import Topic
from beamkeeper.domain.events import Cursor, EventPage
from beamkeeper.domain.users import Caller
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import Context, Ctx, Who
from beamkeeper.server.stream import Bell, Stream

router = APIRouter(route_class=StrictRoute, tags=["events"])


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
        stream: Stream = request.app.state.stream
        await run_in_threadpool(_page, ctx, who, begin, 1)  # so that a cursor beyond what is kept is answered with 410
        lines = stream.lines(request, who, Cursor.parse(begin) if begin else None)
        return StreamingResponse(lines, media_type="text/event-stream")  # type: ignore[return-value]
    bell: Bell = request.app.state.bell
    loop = asyncio.get_running_loop()
    end = loop.time() + wait
    while True:
        ring = bell.next(Topic.EVENTS)
        page = await run_in_threadpool(_page, ctx, who, begin, limit)
        left = end - loop.time()
        if page.items or left <= 0 or bell.is_closed:
            return page
        begin = page.next
        await bell.wait(left, ring=ring)


def _page(ctx: Context, who: Caller, after: str | None, limit: int) -> EventPage:
    with ctx.database.read() as tx:
        return core.events_after(tx, core.still(tx, who), Cursor.parse(after) if after else None, limit=limit)
