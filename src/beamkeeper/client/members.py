"""Files that belong to something, such as a dataset or a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from uuid import UUID

from beamkeeper.client.http import Http
from beamkeeper.domain.datasets import Changed, FileUids, Member, MemberPage, MemberQuery
from beamkeeper.domain.files import REGISTER_LIMIT


def members(http: Callable[[], Http], path: str) -> Iterator[Member]:
    """Yield every file, asking for a page at a time."""
    query = MemberQuery(limit=1000)
    while True:
        page: MemberPage = http().get(path, MemberPage, query=query)
        yield from page.items
        if page.next is None:
            return
        query = query.model_copy(update={"after": page.next})


def change_members(http: Callable[[], Http], path: str, file_uids: Sequence[UUID]) -> int:
    """Add or remove files, in calls that a service takes; return how many came or went."""
    total = 0
    for start in range(0, len(file_uids), REGISTER_LIMIT):
        body = FileUids(file_uids=tuple(file_uids[start : start + REGISTER_LIMIT]))
        done: Changed = http().call("POST", path, Changed, body=body)
        total += done.files
    return total
