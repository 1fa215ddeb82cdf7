"""How much unfinished work a service has, and how old the oldest of it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from beamkeeper.db import AcquisitionTransaction, StorageTransaction, Transaction


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Queue lengths by kind of work, and the age of the oldest item in seconds."""

    queues: Mapping[str, int] = field(default_factory=dict)
    oldest_s: float | None = None


def unfinished(tx: Transaction) -> Unfinished:
    """Return what this service has still to do."""
    if isinstance(tx, StorageTransaction):
        return _of(tx, *tx.publishes.queue())
    if isinstance(tx, AcquisitionTransaction):
        return _of(tx, *tx.journal.queue())
    return Unfinished()


def _of(tx: Transaction, queues: Mapping[str, int], oldest: datetime | None) -> Unfinished:
    return Unfinished(queues, None if oldest is None else (tx.now - oldest).total_seconds())
