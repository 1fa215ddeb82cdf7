"""Server-sent events: one reader of the feed a process, and a bounded queue for each who listens.

Asynchronous, as the only part of the system: as many synchronous streams as there are threads would hold all that the
other routes need (ADR 0001).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from beamkeeper.core import events as core
from beamkeeper.db import Database
from beamkeeper.db.news import OTHERS_S, Topic
from beamkeeper.domain.errors import DmError
from beamkeeper.domain.events import Cursor, Event
from beamkeeper.domain.users import Caller
from beamkeeper.server.deps import Context

KEEP_ALIVE_S = 15.0
"""An idle stream says so this often, so that proxies keep it open and a dead listener is noticed."""

QUEUE_EVENTS = 1000
"""A listener that falls further behind is sent away; it comes back with the last number that it had."""

PAGE = 500


class Bell:
    """Rings in the event loop when a commit brought news: the one bridge from threads to the streams."""

    def __init__(self, database: Database[Any]) -> None:
        self._loop = asyncio.get_running_loop()
        self._waited_for: dict[Topic | None, asyncio.Event] = {}
        """What the next ring sets, by what is waited for; under None what any ring sets."""
        self.is_closed = False
        self.stop = database.hear(self._ring_from_thread)

    def _ring_from_thread(self, about: Collection[Topic]) -> None:
        self._loop.call_soon_threadsafe(self._ring, about)

    def _ring(self, about: Collection[Topic] = ()) -> None:
        for topic in (None, *about) if about else tuple(self._waited_for):
            if ring := self._waited_for.pop(topic, None):
                ring.set()

    def close(self) -> None:
        """Send everybody who waits home, with what there is: the service stops."""
        self.is_closed = True
        self._ring()

    def next(self, about: Topic | None = None) -> asyncio.Event:
        """Return what the next ring sets, or the next of a topic: taken before one looks, so that none is missed."""
        return self._waited_for.setdefault(about, asyncio.Event())

    async def wait(self, timeout_s: float, *, ring: asyncio.Event) -> None:
        """Return once this ring was, or after OTHERS_S: news may come from another process."""
        with suppress(TimeoutError):
            await asyncio.wait_for(ring.wait(), min(timeout_s, OTHERS_S))


@dataclass(eq=False)
class _Listener:
    """One who listens: what it may see, and what waits for it. None in the queue is the end."""

    caller: Caller
    sees: core.Visible = field(default_factory=core.Visible)
    looked_up_at: float = -math.inf
    queue: asyncio.Queue[Event | None] = field(default_factory=lambda: asyncio.Queue(QUEUE_EVENTS))
    is_lost: bool = False

    def may_see(self, event: Event) -> bool:
        return self.sees.has(event)

    def offer(self, event: Event | None) -> None:
        if self.is_lost or (event is not None and not self.may_see(event)):
            return
        try:
            self.queue.put_nowait(event)
        except asyncio.QueueFull:
            self.is_lost = True


class Stream:
    """The reader of one service's feed, and who listens to it."""

    def __init__(self, context: Context, bell: Bell) -> None:
        self._context = context
        self._database = context.database
        self._bell = bell
        self._listeners: set[_Listener] = set()
        self._reader: asyncio.Task[None] | None = None
        self._at: Cursor | None = None

    async def lines(self, request: Request, caller: Caller, after: Cursor | None) -> AsyncIterator[str]:
        """Give the text of a stream, from a cursor or from now, until the listener goes or is sent away."""
        listener = _Listener(caller)
        try:
            await self._renew(listener)
            at = await self._join(listener)
            begin = after or at
            yield f": from {begin}\n\n"
            async for event in self._missed(listener, begin, at):
                yield _line(begin.epoch, event)
            async for text in self._live(request, listener, at):
                yield text
        except DmError:  # it is no longer logged in, or there is nothing to read from: the answer has begun
            return
        finally:
            self._listeners.discard(listener)

    async def _join(self, listener: _Listener) -> Cursor:
        """Begin to listen; returns where the reader is: what comes after goes to the queue."""
        if self._reader is None or self._reader.done():
            self._at = await run_in_threadpool(self._end)
            self._reader = asyncio.create_task(self._read())
        if self._at is None:
            raise RuntimeError("the reader of the feed has no place in it")
        self._listeners.add(listener)
        return self._at

    async def _missed(self, listener: _Listener, begin: Cursor, end: Cursor) -> AsyncIterator[Event]:
        """Give what was missed; a listener that reads slowly may be shut out in the middle of it."""
        cursor = begin
        while cursor.number < end.number or cursor.epoch != end.epoch:
            events, cursor = await run_in_threadpool(self._page_for, listener.caller, cursor)
            for event in events:
                await self._renew(listener)
                if event.number <= end.number and listener.may_see(event):
                    yield event

    async def _live(self, request: Request, listener: _Listener, at: Cursor) -> AsyncIterator[str]:
        said = time.monotonic()
        while not (self._bell.is_closed or listener.is_lost or await request.is_disconnected()):
            try:
                event = await asyncio.wait_for(listener.queue.get(), 1.0)
            except TimeoutError:
                event = None
            await self._renew(listener)
            now = time.monotonic()
            if event is not None and listener.may_see(event):
                said = now
                yield _line(at.epoch, event)
            elif now - said > KEEP_ALIVE_S:
                said = now
                yield ": here\n\n"

    async def _read(self) -> None:
        """Read the feed once for all who listen; ends when nobody does."""
        while self._listeners and not self._bell.is_closed and self._at is not None:
            ring = self._bell.next(Topic.EVENTS)
            try:
                events, self._at = await run_in_threadpool(self._page_of_all, self._at)
            except DmError:
                break
            for event in events:
                for listener in self._listeners:
                    listener.offer(event)
            if len(events) < PAGE:
                await self._bell.wait(OTHERS_S, ring=ring)
        for listener in self._listeners:
            listener.is_lost = True

    async def close(self) -> None:
        """End the reader."""
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader

    async def _renew(self, listener: _Listener) -> None:
        """Look up again what a listener may see, if that is due; raises where its session has ended."""
        if time.monotonic() - listener.looked_up_at >= self._context.recheck_s:
            await run_in_threadpool(self._look_up, listener)

    def _look_up(self, listener: _Listener) -> None:
        began = time.monotonic()
        with self._database.read() as tx:
            listener.caller = core.still(tx, listener.caller)
            listener.sees = core.visible(tx, listener.caller)
        listener.looked_up_at = began

    def _end(self) -> Cursor:
        with self._database.read() as tx:
            found: Cursor = tx.events.cursor()
            return found

    def _page_for(self, caller: Caller, cursor: Cursor) -> tuple[Sequence[Event], Cursor]:
        with self._database.read() as tx:
            page = core.events_after(tx, caller, cursor, limit=PAGE)
        return page.items, Cursor.parse(page.next)

    def _page_of_all(self, cursor: Cursor) -> tuple[Sequence[Event], Cursor]:
        with self._database.read() as tx:
            return core.all_after(tx, cursor, limit=PAGE)


def _line(epoch: str, event: Event) -> str:
    return f"id: {epoch}.{event.number}\nevent: {event.kind}\ndata: {event.model_dump_json()}\n\n"
