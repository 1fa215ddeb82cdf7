"""How much unfinished work a service has, and how old the oldest of it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from beamkeeper.core import pauses, replication
from beamkeeper.db import (
    AcquisitionTransaction,
    CatalogTransaction,
    ProcessingTransaction,
    StorageTransaction,
    Transaction,
)
from beamkeeper.domain.replication import Follower, SiteLink
from beamkeeper.domain.storage import AreaPause


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Queue lengths by kind of work, and the age of the oldest item in seconds."""

    queues: Mapping[str, int] = field(default_factory=dict)
    oldest_s: float | None = None
    paused: tuple[AreaPause, ...] = ()
    site: SiteLink | None = None
    followers: tuple[Follower, ...] = ()


def unfinished(tx: Transaction, site_url: str = "") -> Unfinished:
    """Return what this service has still to do; `site_url` is where the site's catalogue is that follows it."""
    if isinstance(tx, StorageTransaction):
        return _of(tx, *tx.publishes.queue())
    if isinstance(tx, AcquisitionTransaction):
        return replace(_of(tx, *tx.journal.queue()), paused=pauses.paused(tx))
    if isinstance(tx, ProcessingTransaction):
        counts = {f"jobs {status}": count for status, count in tx.jobs.counts().items()}
        return _of(tx, counts, tx.jobs.oldest())
    if isinstance(tx, CatalogTransaction):
        files, since = tx.search.lag()
        link = replication.link(tx, site_url)
        queues = {"index": files} | ({} if link is None else {"changes for the site": link.waiting})
        return replace(_of(tx, queues, since), site=link, followers=tuple(replication.followers(tx)))
    return Unfinished()


def behind_s(tx: Transaction) -> float | None:
    """Return how long ago this service last heard from the storage service, in seconds; None at that one itself."""
    if isinstance(tx, StorageTransaction):
        return None
    state = tx.mirror.state()
    return None if state is None else max(0.0, (tx.now - state.heard_at).total_seconds())


def _of(tx: Transaction, queues: Mapping[str, int], oldest: datetime | None) -> Unfinished:
    return Unfinished(queues, None if oldest is None else (tx.now - oldest).total_seconds())
