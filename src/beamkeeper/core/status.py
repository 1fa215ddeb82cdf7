"""How much unfinished work a service has, and how old the oldest of it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from beamkeeper.core import copies, pauses, replication
from beamkeeper.db import (
    AcquisitionTransaction,
    CatalogTransaction,
    ProcessingTransaction,
    StorageTransaction,
    Transaction,
)
from beamkeeper.domain.replication import Follower, SiteLink
from beamkeeper.domain.status import Contact
from beamkeeper.domain.storage import AreaPause


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Queue lengths by kind of work, and the age of the oldest item in seconds."""

    queues: Mapping[str, int] = field(default_factory=dict)
    oldest_s: float | None = None
    paused: tuple[AreaPause, ...] = ()
    site: SiteLink | None = None
    followers: tuple[Follower, ...] = ()
    unsent: tuple[int, int] = (0, 0)
    """Experiments that the site does not have, and how many of them it refuses."""


def unfinished(tx: Transaction, site_url: str = "") -> Unfinished:
    """Return what this service has still to do; `site_url` is where the site's catalogue is that follows it."""
    if isinstance(tx, StorageTransaction):
        queues, since = tx.publishes.queue()
        return replace(_of(tx, {**queues, **tx.copies.queue()}, since), paused=copies.failing(tx))
    if isinstance(tx, AcquisitionTransaction):
        queues, since = tx.journal.queue()
        if pictures := tx.pictures.count():
            queues["pictures"] = pictures
        return replace(_of(tx, queues, since), paused=pauses.paused(tx), unsent=tx.unsent.counts())
    if isinstance(tx, ProcessingTransaction):
        counts = {f"jobs {status}": count for status, count in tx.jobs.counts().items()}
        return _of(tx, counts, tx.jobs.oldest())
    if isinstance(tx, CatalogTransaction):
        files, since = tx.search.lag()
        link = replication.link(tx, site_url)
        queues = {"index": files} | ({} if link is None else {"changes for the site": link.waiting})
        if copies_wait := tx.replica_orders.count():
            queues["copies"] = copies_wait
        return replace(_of(tx, queues, since), site=link, followers=tuple(replication.followers(tx)))
    return Unfinished()


def contacts(tx: Transaction, heard: Mapping[UUID, tuple[datetime, str]]) -> tuple[Contact, ...]:
    """Return when which station was heard of, and its version; stations that are gone are left out."""
    if not isinstance(tx, StorageTransaction):
        return ()
    stations = [station for station in tx.experiments.stations() if station.uid in heard]
    return tuple(
        Contact(station=one.name, at=heard[one.uid][0], version=heard[one.uid][1].removeprefix("beamkeeper/"))
        for one in stations
    )


def behind_s(tx: Transaction) -> float | None:
    """Return how long ago this service last heard from the storage service, in seconds; None at that one itself."""
    if isinstance(tx, StorageTransaction):
        return None
    state = tx.mirror.state()
    return None if state is None else max(0.0, (tx.now - state.heard_at).total_seconds())


def _of(tx: Transaction, queues: Mapping[str, int], oldest: datetime | None) -> Unfinished:
    return Unfinished(queues, None if oldest is None else (tx.now - oldest).total_seconds())
