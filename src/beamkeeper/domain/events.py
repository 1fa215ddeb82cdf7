"""The feed of what happened, numbered in commit order, and the cursor that says how far one has read."""

from __future__ import annotations

import re
from typing import NamedTuple, Self

from pydantic import Field

from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.names import Metadata, Model, Uid, UtcTime, WireInt

_NUMBER = re.compile("[0-9]{1,18}")


class Cursor(NamedTuple):
    """How far a reader has come; a restored database begins a new epoch."""

    epoch: str
    number: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the cursor that this text names."""
        epoch, _, number = text.rpartition(".")
        if not epoch or not _NUMBER.fullmatch(number):
            raise InvalidError(f"cursor {text[:80]!r} is not EPOCH.NUMBER: take it from an earlier answer")
        return cls(epoch, int(number))


class NewEvent(Model):
    """Something that happened in a transaction; it gets its number as that commits."""

    kind: str
    station_uid: Uid | None = None
    experiment_uid: Uid | None = None
    data: Metadata = Field(default_factory=dict)


class Event(Model):
    """Something that happened."""

    number: WireInt
    at: UtcTime
    kind: str
    station_uid: Uid | None = None
    experiment_uid: Uid | None = None
    data: Metadata = Field(default_factory=dict)


class EventPage(Model):
    """Some events, and the cursor from which to go on."""

    items: tuple[Event, ...]
    next: str
