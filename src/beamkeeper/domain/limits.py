"""Limits by hour: how many bytes a second may be read from the source, by the time of day."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import time
from typing import Self

_FORM = re.compile(r"([0-2]\d):([0-5]\d)-([0-2]\d):([0-5]\d) +(\d{1,15})([kMG]?B)?")
_UNITS = {None: 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True, slots=True)
class Limit:
    """From one time of day to another, at most so many bytes a second."""

    begins: time
    ends: time
    bytes_s: int

    @classmethod
    def of(cls, text: str) -> Self:
        """Return what a setting such as `08:00-18:00 50MB` says; ValueError where it says nothing."""
        found = _FORM.fullmatch(text)
        if found is None or int(found[1]) > 23 or int(found[3]) > 24 or (found[3] == "24" and found[4] != "00"):
            raise ValueError("it should be HH:MM-HH:MM and bytes a second, such as 08:00-18:00 50MB")
        bytes_s = int(found[5]) * _UNITS[found[6]]
        if bytes_s == 0:
            raise ValueError("at least 1 byte a second: files that never come can be had by starting no DAQ")
        return cls(time(int(found[1]), int(found[2])), time(int(found[3]) % 24, int(found[4])), bytes_s)

    def holds_at(self, now: time) -> bool:
        """Whether it holds at this time of day; one that ends before it begins goes on through midnight."""
        if self.begins < self.ends:
            return self.begins <= now < self.ends
        return now >= self.begins or now < self.ends


def allowed_at(limits: Sequence[Limit], now: time) -> int | None:
    """Return the lowest of the limits that hold; None where none does."""
    return min((limit.bytes_s for limit in limits if limit.holds_at(now)), default=None)
