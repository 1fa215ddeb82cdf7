"""How long somebody has to wait who keeps failing to log in: by account and by source, and never for good."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class LoginLimit:
    """So many failures are free; from then on each one doubles the pause, up to the longest."""

    free: int
    first: timedelta
    longest: timedelta

    def pause(self, failures: int) -> timedelta:
        """Return how long nobody may try after so many failures."""
        over = failures - self.free
        if over <= 0:
            return timedelta(0)
        return min(self.longest, self.first * (1 << min(over - 1, 30)))


FORGOTTEN_AFTER = timedelta(minutes=15)
"""Failures count no more when nobody failed for so long."""

LIMITS: Mapping[str, LoginLimit] = {
    "account": LoginLimit(free=50, first=timedelta(seconds=1), longest=timedelta(seconds=5)),
    "source": LoginLimit(free=50, first=timedelta(seconds=1), longest=timedelta(minutes=5)),
    "both": LoginLimit(free=5, first=timedelta(seconds=1), longest=timedelta(minutes=5)),
}
"""One source trying one account is slowed down soon. Many sources trying one account are slowed down a little, so
that its owner is never kept out; and one source that tries many accounts is slowed down in the end."""


def limit_keys(username: str, source: str) -> dict[str, str]:
    """Return under which names failures are counted: of hashes, since people type their passwords as names."""
    name, place = hashlib.sha256(username.encode("utf-8", "surrogateescape")).hexdigest()[:32], network(source)
    return {"account": f"account:{name}", "source": f"source:{place}", "both": f"both:{name}:{place}"}


def network(source: str) -> str:
    """Return the part of an address that one person has: of IPv6 a whole /64."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
