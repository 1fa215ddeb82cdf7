"""The history of metadata, of whatever thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from beamkeeper.client.http import Http
from beamkeeper.domain.metadata import MetadataChange, MetadataHistory


def changes(http: Callable[[], Http], path: str) -> Iterator[MetadataChange]:
    """Yield every change, newest first, asking for a page at a time."""
    query: dict[str, str] = {"limit": "1000"}
    while True:
        page: MetadataHistory = http().get(path, MetadataHistory, query=query)
        yield from page.items
        if page.next is None:
            return
        query["after"] = page.next
