"""Looks at the disks of directories that are being written, and tells `manners` how their writers fare.

A disk that we write to ourselves, for a storage area or our databases are on it, tells nothing: the writes that take
long there are our own, which make things durable, and the same bytes have to be written later all the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo

from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.engine.manners import Manners, WriteTime, disk_of, write_time
from beamkeeper.engine.worker import Loop, Report

LOOK_S = 1.0
LEARN_EVERY = 60
"""After so many looks, the station's time zone and our own disks are looked up again."""

Written = tuple[int, bytes]
"""A file system by its number, and a directory on it."""


class MindLoop(Loop):
    """Takes a look each second, as long as a detector writes."""

    def __init__(
        self,
        database: Database[AcquisitionTransaction],
        manners: Manners,
        station: str,
        *,
        written: Callable[[], Iterable[Written]],
        is_minding: bool,
        report: Report,
        data_dir: Path | None = None,
        measure: Callable[[int], WriteTime | None] = write_time,
        find_disk: Callable[[bytes], int | None] = disk_of,
    ) -> None:
        super().__init__("mind", report=report, idle_s=LOOK_S)
        self._database = database
        self._manners = manners
        self._station = station
        self._written = written
        self._is_minding = is_minding
        self._measure = measure
        self._find_disk = find_disk
        self._data_dir = data_dir
        self._own: set[int] = set()
        """Disks that we write to ourselves."""
        self._disks: dict[int, int | None] = {}
        self._before: dict[int, WriteTime] = {}
        self._looks = 0

    def step(self) -> bool:
        """Take a look."""
        if self._looks % LEARN_EVERY == 0:
            self._learn()
        self._looks += 1
        written = dict(self._written()) if self._is_minding else {}
        for device, path in written.items():
            if device not in self._disks:
                self._disks[device] = self._find_disk(path)
            disk = self._disks[device]
            after = None if disk is None or disk in self._own else self._measure(disk)
            if after is not None:
                if (before := self._before.get(device)) is not None:
                    self._manners.look(device, before, after)
                self._before[device] = after
        for device in self._before.keys() - written.keys():
            del self._before[device]
            self._manners.leave(device)
        return False

    def _learn(self) -> None:
        with self._database.read() as tx:
            station = tx.experiments.find_station(self._station)
            places = list(_places(area.station_url for area in tx.storage.list()))
        if self._data_dir is not None:
            places.append(os.fsencode(self._data_dir))
        self._own = {disk for place in places if (disk := self._find_disk(place)) is not None}
        if station is not None:
            zone = ZoneInfo(station.timezone)
            self._manners.limiter.now = lambda: datetime.now(UTC).astimezone(zone)

    def ended(self) -> None:
        """Hold nobody up."""
        for device in self._before:
            self._manners.leave(device)


def _places(urls: Iterable[str]) -> Iterator[bytes]:
    """Yield the directories of storage areas that are mounted here."""
    for parts in map(urlsplit, urls):
        if parts.scheme == "file":
            yield os.fsencode(unquote(parts.path))
