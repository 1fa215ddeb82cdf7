"""Asking the storage about replicas, waiting for services that are away for a moment, and telling the ledger."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

from beamkeeper.client import Client
from beamkeeper.db.base import new_uid
from beamkeeper.domain.errors import UnavailableError
from beamkeeper.domain.files import FileKind, ReadFrom
from beamkeeper.domain.ledger import NewVerification, StoredReplica
from beamkeeper.domain.names import Checksum
from beamkeeper.domain.storage import (
    CHECK_LIMIT,
    CheckItem,
    CheckMode,
    CheckOutcome,
    Listing,
    NewCheck,
    NewCheckItem,
    NewListing,
)
from beamkeeper.engine.readback import strongest

AnswerT = TypeVar("AnswerT")
PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Asked:
    """A replica that the storage is asked about."""

    replica_uid: UUID
    experiment_uid: UUID
    storage_area_uid: UUID
    item: NewCheckItem


def asked_of(one: StoredReplica) -> Asked:
    """Return what the storage is asked about a replica."""
    item = asked_item(
        one.path_b64,
        one.replica.version_uid,
        number=one.number,
        kind=one.kind,
        size=one.size,
        checksums=one.checksums,
        link_target_b64=one.link_target_b64,
    )
    return Asked(one.replica.uid, one.experiment_uid, one.replica.storage_area_uid, item)


def asked_item(
    path_b64: str,
    version_uid: UUID,
    *,
    number: int,
    kind: FileKind,
    size: int,
    checksums: Sequence[Checksum],
    link_target_b64: str | None,
) -> NewCheckItem:
    """Return what the storage is asked about one version."""
    return NewCheckItem(
        path_b64=path_b64,
        version_uid=version_uid,
        number=number,
        size=size,
        checksum=strongest(checksums) if checksums and kind is FileKind.FILE else None,
        link_target_b64=link_target_b64,
    )


def batches(asked: Iterable[Asked], *, size: int, files: int = CHECK_LIMIT) -> Iterator[list[Asked]]:
    """Yield what is asked in parts of at most so many files, and about so many bytes."""
    part: list[Asked] = []
    total = 0
    for one in asked:
        if part and (len(part) >= files or total + one.item.size > size):
            yield part
            part, total = [], 0
        part.append(one)
        total += one.item.size
    if part:
        yield part


class Services:
    """The storage and the catalogue, as a long task of the engine reaches them.

    A service that does not answer is waited for, `patience_s` and no longer; UnavailableError follows, and also
    where the engine stops.
    """

    def __init__(self, client: Client, *, patience_s: float, stop: Callable[[], bool]) -> None:
        self.client = client
        self.patience_s = patience_s
        self.stop = stop

    def patiently(self, call: Callable[[], AnswerT]) -> AnswerT:
        """Return what a call gives; one that may be made again."""
        deadline = time.monotonic() + self.patience_s
        while True:
            try:
                return call()
            except UnavailableError:
                if self.stop() or time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE_S)

    def look(self, asked: Sequence[Asked], mode: CheckMode) -> dict[UUID, CheckItem]:
        """Return what the storage says of replicas, by their uid."""
        places: defaultdict[tuple[UUID, UUID], list[Asked]] = defaultdict(list)
        for one in asked:
            places[one.experiment_uid, one.storage_area_uid].append(one)
        found: dict[UUID, CheckItem] = {}
        for (experiment_uid, area_uid), wanted in places.items():
            for start in range(0, len(wanted), CHECK_LIMIT):
                part = wanted[start : start + CHECK_LIMIT]
                check = NewCheck(
                    uid=new_uid(),
                    experiment_uid=experiment_uid,
                    storage_area_uid=area_uid,
                    mode=mode,
                    items=tuple(one.item for one in part),
                )
                answer = self._check(check)
                found.update({one.replica_uid: item for one, item in zip(part, answer, strict=True)})
        return found

    def read(self, asked: Sequence[Asked], *, on_behalf_of: str) -> tuple[dict[UUID, CheckItem], dict[UUID, CheckItem]]:
        """Read replicas and tell the ledger; those that are not as they should be twice, since a single read can lie.

        Returns what the first reading showed of each, and what the second showed of the bad ones.
        """
        first = self.look(asked, CheckMode.READ)
        self.tell(first, on_behalf_of=on_behalf_of)
        bad = [one for one in asked if first[one.replica_uid].outcome is not CheckOutcome.MATCH]
        second = self.look(bad, CheckMode.READ)
        self.tell(second, on_behalf_of=on_behalf_of)
        return first, second

    def _check(self, check: NewCheck) -> Sequence[CheckItem]:
        return self.patiently(lambda: self.client.checks.run(check, patience_s=self.patience_s, stop=self.stop)).items

    def list_names(self, new: NewListing) -> Listing:
        """Return a page of plain names."""
        return self.patiently(lambda: self.client.listings.run(new, patience_s=self.patience_s, stop=self.stop))

    def tell(self, found: Mapping[UUID, CheckItem], *, on_behalf_of: str) -> None:
        """Tell the ledger what reading replicas showed; to be given once for each reading."""
        items = [_verification(replica_uid, item) for replica_uid, item in found.items()]
        if items:
            self.patiently(lambda: self.client.files.verified(items, on_behalf_of=on_behalf_of))


def _verification(replica_uid: UUID, item: CheckItem) -> NewVerification:
    return NewVerification(
        uid=new_uid(),
        replica_uid=replica_uid,
        verified_at=item.checked_at or datetime.now(UTC),
        is_match=item.outcome is CheckOutcome.MATCH,
        read_from=item.read_from or ReadFrom.CACHE,
        checksum=item.checksum,
        message=item.message,
    )
