"""The overview of the station: what runs now, live; and what is stored, over time and by experiment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import date
from functools import partial
from uuid import UUID

from anyio import to_thread
from starlette.responses import Response, StreamingResponse

from beamkeeper.domain.acquisition import JournalState
from beamkeeper.domain.errors import DmError, NotAuthenticatedError, TooManyAttemptsError
from beamkeeper.domain.stats import Stat, StatsBy, StatsQuery
from beamkeeper.domain.users import Action, Target, may
from beamkeeper.portal import drawing
from beamkeeper.portal.live import Running, Sight
from beamkeeper.portal.routes import forms, get, listing
from beamkeeper.portal.tables import Column, Rows, Table
from beamkeeper.portal.visits import Visit

ALIVE_S = 15.0
MOST_WATCHERS = 500
FIRST_SIGHT_S = 60.0
"""A page begins with what was seen so long ago at most: a look asks four services, and takes longer than the page."""

MOST_DAYS = 20_000
SHOWN_EXPERIMENTS = 10


def show(visit: Visit) -> Response:
    """Show the station as it was seen last, and when; its live part looks as soon as the page is there, and goes on."""
    with suppress(DmError):
        visit.portal.lookout.look_once(FIRST_SIGHT_S)
    days = _days(visit)
    largest = sorted(_experiments(visit), key=lambda one: -one.bytes)[:SHOWN_EXPERIMENTS]
    return visit.page(
        "overview/show.html",
        sight=_seen(visit),
        growth=drawing.growth(days) if days else None,
        largest=largest,
    )


def _days(visit: Visit) -> list[tuple[date, int]]:
    """Return how many bytes there were at the end of each day, of files that were modified until then."""
    total, found = 0, []
    for stat in _read(visit, StatsBy.DAY):
        total += stat.bytes
        with suppress(ValueError):
            found.append((date.fromisoformat(stat.name), total))
    return found


def _experiments(visit: Visit) -> list[Stat]:
    return _read(visit, StatsBy.EXPERIMENT)


def _read(visit: Visit, by: StatsBy) -> list[Stat]:
    found: list[Stat] = []
    with suppress(DmError):
        for stat in visit.client.files.stats(by):
            found.append(stat)
            if len(found) >= MOST_DAYS:
                break
    return found


def use(visit: Visit) -> Response:
    """List what is stored by experiment."""

    def read(after: str | None) -> Rows[Stat]:
        page = visit.client.files.stat_page(StatsQuery(by=StatsBy.EXPERIMENT, after=after, limit=100))
        return Rows(page.items, page.next)

    columns: Sequence[Column[Stat]] = (
        Column("experiment", "Experiment", lambda one: one.name, href=lambda one: f"/experiments/{one.experiment_uid}"),
        Column("files", "Files", lambda one: one.files, "count"),
        Column("bytes", "Size", lambda one: one.bytes, "size"),
    )
    return Table("storage", columns, read, "Nothing is stored yet.").answer(visit, "overview/use.html")


def running(visit: Visit) -> Response:
    """List what runs now, as the live page has it."""
    with suppress(DmError):
        visit.portal.lookout.look_once()
    sight = _seen(visit)
    columns: Sequence[Column[Running]] = (
        Column("experiment", "Experiment", lambda one: one.acquisition.experiment),
        Column("kind", "What", lambda one: one.acquisition.kind),
        Column("state", "State", lambda one: one.acquisition.state, "state"),
        Column("bytes_s", "Rate", lambda one: one.bytes_s, "size"),
        Column("delivered", "Delivered", lambda one: one.acquisition.count(JournalState.AVAILABLE), "count"),
        Column("waiting", "Waiting", lambda one: one.waiting, "count"),
        Column("quarantined", "Quarantined", lambda one: one.acquisition.count(JournalState.QUARANTINED), "count"),
        Column("uid", "Uid", lambda one: str(one.acquisition.uid), "uid"),
    )
    return Table("running", columns, lambda after: Rows(sight.running if sight else ())).answer(visit, "")


def _seen(visit: Visit) -> Sight | None:
    """Return what who looks may see of the station."""
    sight, station = visit.portal.lookout.sight, visit.portal.lookout.station_uid
    if sight is None:
        return None
    caller = visit.caller

    def is_visible(experiment_uid: UUID) -> bool:
        return may(caller, Action.ACQUISITION_READ, Target(station_uid=station, experiment_uid=experiment_uid))

    return sight.within(is_visible)


def live(visit: Visit) -> Response:
    """Send the station as it is now, and again at each change, as server-sent events."""
    if visit.portal.lookout.watchers >= MOST_WATCHERS:
        raise TooManyAttemptsError("too many live pages are open: this one shows what was when it was loaded")
    return StreamingResponse(_events(visit), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


async def _events(visit: Visit) -> AsyncIterator[str]:
    rung, closed = asyncio.Event(), visit.portal.is_closed
    visit.portal.lookout.watch(rung)
    ends = asyncio.ensure_future(closed.wait())
    drawn = ""
    try:
        yield ": here\n\n"
        while not closed.is_set():
            ring = asyncio.ensure_future(rung.wait())
            try:
                await asyncio.wait((ring, ends), timeout=ALIVE_S, return_when=asyncio.FIRST_COMPLETED)
            finally:
                ring.cancel()
            rung.clear()
            text, goes_on = await to_thread.run_sync(_told, visit, limiter=visit.portal.threads)
            yield _event(text) if text != drawn else ": here\n\n"
            if not goes_on:
                return
            drawn = text
    finally:
        ends.cancel()
        visit.portal.lookout.leave(rung)


def _event(text: str) -> str:
    lines = "".join(f"data: {line}\n" for line in text.splitlines())
    return f"event: sight\n{lines}\n"


def _told(visit: Visit) -> tuple[str, bool]:
    """Return what is sent, and whether anything more will be."""
    try:
        return _draw(visit), True
    except NotAuthenticatedError:
        return visit.portal.render("alert.html", visit, message="You were logged out: load the page again."), False
    except DmError as error:
        return visit.portal.render("alert.html", visit, message=error.message), True


def _draw(visit: Visit) -> str:
    """Return the live part as who watches may see it, drawn once for all who see the same."""
    if visit.portal.sessions.find(visit.request.cookies.get(visit.portal.cookie, ""), is_use=False) is None:
        raise NotAuthenticatedError("logged out meanwhile")  # the session of a shell goes on by itself
    visit.__dict__.pop("caller", None)  # roles may have changed since
    seen = _seen(visit)
    if seen is None:
        return ""
    shown = frozenset(one.acquisition.uid for one in seen.running), frozenset(one.uid for one in seen.jobs)
    draw = partial(visit.portal.render, "overview/part.html", visit, sight=seen, states=JournalState)
    return visit.portal.lookout.draw_once(seen.at, shown, draw)


ROUTES = (
    get("/station", show),
    get("/station/live", live),
    *forms("/station/running", running),
    *listing("/station/use", use),
)
