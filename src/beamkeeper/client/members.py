"""Files that belong to something, such as a dataset or a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from uuid import UUID

from beamkeeper.client.http import Http
from beamkeeper.domain.datasets import BelongingFiles, Changed, FilesAsked, FileUids, Member, MemberPage, MemberQuery
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


def holders(
    http: Callable[[], Http], path: str, experiment_uid: UUID, file_uids: Sequence[UUID]
) -> Mapping[UUID, UUID]:
    """Return what each of some files of an experiment belongs to, by a question for each thousand."""
    found: dict[UUID, UUID] = {}
    for start in range(0, len(file_uids), REGISTER_LIMIT):
        some = tuple(file_uids[start : start + REGISTER_LIMIT])
        body = FilesAsked(experiment_uid=experiment_uid, file_uids=some)
        answer: BelongingFiles = http().call("POST", path, BelongingFiles, body=body)
        found.update({one.file_uid: one.uid for one in answer.items})
    return found


def change_members(http: Callable[[], Http], path: str, file_uids: Sequence[UUID]) -> int:
    """Add or remove files, in calls that a service takes; return how many came or went."""
    total = 0
    for start in range(0, len(file_uids), REGISTER_LIMIT):
        body = FileUids(file_uids=tuple(file_uids[start : start + REGISTER_LIMIT]))
        done: Changed = http().call("POST", path, Changed, body=body)
        total += done.files
    return total
