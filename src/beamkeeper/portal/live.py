"""Live pages: one look at the station for everybody who watches it, and to each of them what they may see.

While somebody watches, threads follow the event feeds of the station's services, one for each, and what changes of the
people of the site; and one thread looks at what runs: once when something happened, and every few seconds, since rates
change by themselves. All act under the station's service key. Who watches costs no call: rights are applied to what was
seen, and what is the same for several is drawn once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import Acquisition, JournalState
from beamkeeper.domain.errors import DmError, UnavailableError
from beamkeeper.domain.events import Cursor
from beamkeeper.domain.mirror import Mirror, MirrorState
from beamkeeper.domain.processing import Job, JobQuery
from beamkeeper.domain.status import AreaSpace, Service, Status

logger = logging.getLogger(__name__)

LEAST_S = 1.0
"""So long at least between two looks, however much happens."""

MOST_S = 4.0
LOOKED_AT_S = 3.0
RATE_WINDOW_S = 30.0
FEED_WAIT_S = 10.0
PAUSE_S = 3.0
MOST_JOBS = 200
PEOPLE = "people"
DELIVERED = (JournalState.AVAILABLE,)
HOPS: Mapping[JournalState, str] = {
    JournalState.CANDIDATE: "waiting for their writer to finish",
    JournalState.GROWING: "still growing",
    JournalState.READY: "waiting to be copied",
    JournalState.STAGED: "waiting to be read back and published",
    JournalState.STORED: "waiting to be catalogued",
}
"""Where files wait on their way, in its order."""


@dataclass(frozen=True)
class Running:
    """A DAQ or upload that runs, with how fast it delivers."""

    acquisition: Acquisition
    bytes_s: float
    files_s: float

    @property
    def waiting(self) -> int:
        """How many files are on their way."""
        return self.acquisition.count(*HOPS)


@dataclass(frozen=True)
class Sight:
    """What a station does now."""

    at: datetime
    running: tuple[Running, ...] = ()
    jobs: tuple[Job, ...] = ()
    services: Mapping[Service, Status | str] = field(default_factory=dict)
    """How each service is doing, or why that is not known."""

    def within(self, is_visible: Callable[[UUID], bool]) -> Sight:
        """Return what somebody may see of it."""
        return Sight(
            at=self.at,
            running=tuple(one for one in self.running if is_visible(one.acquisition.experiment_uid)),
            jobs=tuple(one for one in self.jobs if one.experiment_uid is not None and is_visible(one.experiment_uid)),
            services=self.services,
        )

    @property
    def disks(self) -> tuple[AreaSpace, ...]:
        """The space of the storage areas."""
        status = self.services.get(Service.STORAGE)
        return status.spaces if isinstance(status, Status) else ()

    def full_in_s(self, disk: AreaSpace) -> float | None:
        """Return when a storage area is full, if it goes on at this rate; None where nothing is delivered."""
        return disk.free_bytes / self.bytes_s if self.bytes_s > 0 else None

    def count(self, *states: JournalState) -> int:
        """Return how many files of all that runs are in these states."""
        return sum(one.acquisition.count(*states) for one in self.running)

    @property
    def bytes_s(self) -> float:
        """How fast files are delivered."""
        return sum(one.bytes_s for one in self.running)

    @property
    def slowest_hop(self) -> str:
        """Where most files wait; empty where none does."""
        counts = {hop: self.count(hop) for hop in HOPS}
        worst = max(counts, key=lambda hop: counts[hop])
        return HOPS[worst] if counts[worst] else ""

    @property
    def latency_s(self) -> float | None:
        """How old the oldest file is that was not delivered; None where there is none."""
        status = self.services.get(Service.ACQUISITION)
        return status.oldest_unfinished_s if isinstance(status, Status) else None


class Lookout:
    """Looks at the station as long as somebody watches."""

    def __init__(
        self,
        client: Callable[[], AbstractContextManager[Client]],
        people_changed: Callable[[Mirror], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._people_changed = people_changed
        self._lock = threading.Lock()
        self._watchers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._happened = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self._seen: dict[UUID, deque[tuple[float, int, int]]] = {}
        self._looking = threading.Lock()
        self.sight: Sight | None = None
        self.station_uid: UUID | None = None
        self._marking = threading.Lock()
        """Pages that are loaded look as well as the thread does; both go by the same marks."""
        self._cursors: dict[str, str | None] = {}
        self._drawing = threading.Lock()
        self._drawn: dict[tuple[datetime, object], str] = {}

    @property
    def watchers(self) -> int:
        """How many live pages are open."""
        return len(self._watchers)

    def look_once(self, old_s: float = MOST_S) -> None:
        """Look now, where nobody watches yet and what was seen is old; one looks for all who come meanwhile."""
        with self._looking:
            if self.sight is None or (datetime.now(UTC) - self.sight.at).total_seconds() > old_s:
                with self._client() as client:
                    self.sight = self._look(client)

    def draw_once(self, at: datetime, shown: object, draw: Callable[[], str]) -> str:
        """Return what was drawn of a sight by what is seen of it; only what is of the newest one is kept."""
        key = (at, shown)
        with self._drawing:
            if key not in self._drawn:
                self._drawn = {old: text for old, text in self._drawn.items() if old[0] == at}
                self._drawn[key] = draw()
            return self._drawn[key]

    def watch(self, rung: asyncio.Event) -> None:
        """Have an event set at each new sight, from now on."""
        with self._lock:
            self._watchers[rung] = asyncio.get_running_loop()
            for name, run in self._duties():
                if name not in self._threads or not self._threads[name].is_alive():
                    self._threads[name] = threading.Thread(target=run, name=f"portal-{name}", daemon=True)
                    self._threads[name].start()

    def _duties(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "look", partial(self._go_on, "look", self._look_on)
        for service in (Service.ACQUISITION, Service.PROCESSING):
            yield service, partial(self._go_on, service, partial(self._follow, service))
        yield PEOPLE, partial(self._go_on, PEOPLE, self._follow_people)

    def leave(self, rung: asyncio.Event) -> None:
        """Go; when nobody watches, nobody looks."""
        with self._lock:
            self._watchers.pop(rung, None)
        self._happened.set()

    def _goes_on(self, name: str) -> bool:
        """Whether somebody watches; if not, the thread that asks ends, and who comes next needs another."""
        with self._lock:
            if not self._watchers:
                self._threads.pop(name, None)
            return bool(self._watchers)

    def _go_on(self, name: str, work: Callable[[Client], None]) -> None:
        """Do the work of a thread again and again while somebody watches, whatever went wrong the last time.

        A thread that ended of an error would leave pages open that stand still, and say nothing of it.
        """
        while self._goes_on(name):
            try:
                with self._client() as client:
                    work(client)
                    while self._goes_on(name):
                        work(client)
                    return
            except DmError as error:
                logger.warning("the station cannot be looked at", extra={"part": name, "reason": error.message})
            except Exception:
                logger.exception("looking at the station failed", extra={"part": name})
            self._cursors.pop(name, None)
            time.sleep(PAUSE_S)

    def _look_on(self, client: Client) -> None:
        self._happened.clear()
        self.sight = self._look(client)
        with self._lock:
            for rung, loop in self._watchers.items():
                with suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(rung.set)
        time.sleep(LEAST_S)
        self._happened.wait(MOST_S - LEAST_S)

    def _follow(self, service: Service, client: Client) -> None:
        """Follow the feed of a service: the one stream of events for all who watch."""
        cursor = self._cursors.get(service)
        page = client.events(service).after(cursor, FEED_WAIT_S if cursor else 0.0)
        self._cursors[service] = page.next
        if page.items:
            self._happened.set()

    def _follow_people(self, client: Client) -> None:
        """Hear of changes of people; at first that anything may have changed."""
        at = self._cursors.get(PEOPLE)
        cursor = Cursor.parse(at or client.events(Service.STORAGE).after(None).next)
        state = MirrorState(epoch=cursor.epoch, number=cursor.number, heard_at=datetime.now(UTC))
        found = client.mirror.after(state, wait_s=FEED_WAIT_S if at else 0.0)
        self._people_changed(found if at else found.model_copy(update={"is_whole": True}))
        self._cursors[PEOPLE] = str(Cursor(found.epoch, found.number))

    def _look(self, client: Client) -> Sight:
        if self.station_uid is None:
            self.station_uid = client.sessions.whoami().station_uid
        with ThreadPoolExecutor(max_workers=len(Service) + 1) as asking:  # one after the other they take twice as long
            jobs = asking.submit(_jobs, client)
            services = {one: asking.submit(_status, client, one) for one in Service}
            running = self._all_running(client)
        return Sight(datetime.now(UTC), running, jobs.result(), {one: each.result() for one, each in services.items()})

    def _all_running(self, client: Client) -> tuple[Running, ...]:
        try:
            active = [*client.daqs.list(active=True), *client.uploads.list(active=True)]
        except UnavailableError:  # its status says so; what was seen last is as near as one can come
            return tuple(Running(one.acquisition, 0.0, 0.0) for one in (self.sight.running if self.sight else ()))
        now = time.monotonic()
        with self._marking:
            self._seen = {one.uid: self._seen.get(one.uid, deque()) for one in active}
            return tuple(self._running(one, now) for one in active)

    def _running(self, one: Acquisition, now: float) -> Running:
        """Return one with its rate over the last half minute."""
        marks = self._seen[one.uid]
        marks.append((now, one.size(*DELIVERED), one.count(*DELIVERED)))
        while len(marks) > 2 and now - marks[1][0] > RATE_WINDOW_S:
            marks.popleft()
        begin, size, files = marks[0]
        took = now - begin
        if took <= 0:
            return Running(one, 0.0, 0.0)
        return Running(one, (marks[-1][1] - size) / took, (marks[-1][2] - files) / took)


def _jobs(client: Client) -> tuple[Job, ...]:
    try:
        return tuple(client.jobs.page(JobQuery(active=True, limit=MOST_JOBS)).items)
    except DmError:
        return ()


def _status(client: Client, service: Service) -> Status | str:
    try:
        return client.status(service)
    except DmError as error:
        return error.message
