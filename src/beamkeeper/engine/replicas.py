"""Replicas beyond the first, driven by the station: what its catalogue wants is asked of the storage, and settled.

The catalogue hands out one batch for each storage area, and the same one until it is settled: whatever dies, the next
process goes on with it. The storage does the copying, so an area that is slow, full or away holds up only its own.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice
from uuid import UUID, uuid5

from beamkeeper.client import Client
from beamkeeper.config.failpoints import ReplicaPoint, hit
from beamkeeper.domain.errors import DmError, NotAuthenticatedError, NotFoundError, UnavailableError
from beamkeeper.domain.files import REGISTER_LIMIT, ReadFrom, ReplicaState
from beamkeeper.domain.replicas import (
    Copy,
    CopyItem,
    DueReplica,
    DueReplicas,
    DueSource,
    NewCopy,
    NewCopyItem,
    ReplicaAction,
    SettledReplica,
    SettledReplicas,
    Settling,
)
from beamkeeper.domain.storage import CheckItem, CheckMode, CheckOutcome, Outcome, TaskState
from beamkeeper.engine.asking import Asked, Services, asked_item, batches
from beamkeeper.engine.worker import Loop, Report

IDLE_S = 1.0
WAIT_S = 0.5
"""A copy that goes well is waited for so long; then the others have their turn."""

READ_BYTES = 1_000_000_000
"""About so much is read in one go; then the other areas have their turn."""

KNOWN_WITHIN_S = 60.0
"""By then a catalogue that has just started knows the station's key."""

NOWHERE = UUID(int=0)


class ReplicasLoop(Loop):
    """Sees to the replicas that the catalogue wants made, read or dropped, in each storage area on its own."""

    quiet_s = 4.0

    def __init__(self, client: Client, *, patience_s: float, report: Report) -> None:
        super().__init__("replicas", report=report, idle_s=IDLE_S)
        self._client = client
        self._services = Services(client, patience_s=patience_s, stop=lambda: self.is_stopping)
        self._in_hand: dict[UUID, DueReplicas] = {}
        self._known_by = time.monotonic() + KNOWN_WITHIN_S

    def step(self) -> bool:
        """Look after every storage area once; what is wrong with one is told after the others had their turn."""
        try:
            areas = self._client.replicas.areas_due()
        except NotAuthenticatedError:
            if time.monotonic() > self._known_by:
                raise
            return False
        is_busy, faults = False, []
        for uid in areas:
            if self.is_stopping:
                return False
            try:
                is_busy |= self._see_to(uid)
            except DmError as error:
                self._in_hand.pop(uid, None)
                faults.append(error)
        if faults:
            raise faults[0]
        return is_busy

    def _see_to(self, area_uid: UUID) -> bool:
        """Go on with the batch of a storage area; tell whether something came of it."""
        batch = self._in_hand.get(area_uid) or self._client.replicas.due(area_uid)
        if batch is None:
            return False
        hit(ReplicaPoint.REPLICA_HANDED_OUT)
        self._in_hand[area_uid] = batch
        if batch.action is ReplicaAction.ADD:
            return self._copy(batch)
        if batch.action is ReplicaAction.VERIFY:
            return self._verify(batch)
        unproven = [item for item in batch.items if item.state is not ReplicaState.DROPPING]
        return self._prove(batch, unproven) if unproven else self._remove(batch)

    # Making copies.

    def _copy(self, batch: DueReplicas) -> bool:
        """Have copies made, each from the best other copy; settle them when all are done."""
        by_source: defaultdict[UUID, list[DueReplica]] = defaultdict(list)
        for item in filter(_is_provable, batch.items):
            by_source[item.sources[0].storage_area_uid if item.sources else NOWHERE].append(item)
        answers: dict[UUID, CopyItem] = {}
        for source_uid, items in by_source.items():
            found = None if source_uid == NOWHERE else self._asked(batch, source_uid, items)
            if found is None and source_uid != NOWHERE:
                return False
            answers |= {answer.version_uid: answer for answer in (found.items if found else ())}
        self._check_sources(batch, answers)
        settled = [_made(item, answers.get(item.version_uid)) for item in batch.items]
        hit(ReplicaPoint.REPLICA_SETTLING)
        self._settle(batch, settled)
        return True

    def _asked(self, batch: DueReplicas, source_uid: UUID | None, items: Sequence[DueReplica]) -> Copy | None:
        """Return what became of a copy that was asked for before, or is now; None while it is under way."""
        uid = uuid5(batch.uid, str(source_uid))
        try:
            found: Copy = self._client.copies.get(uid)
        except NotFoundError:
            found = self._client.copies.request(
                NewCopy(
                    uid=uid,
                    experiment_uid=batch.experiment_uid,
                    storage_area_uid=batch.storage_area_uid,
                    source_area_uid=source_uid,
                    items=tuple(_copy_item(item) for item in items),
                )
            )
        if found.state is not TaskState.DONE and not found.trouble:
            found = self._client.copies.get(uid, WAIT_S)
        if found.trouble:
            self._in_hand.pop(batch.storage_area_uid, None)  # it may last, and something else be wanted meanwhile
        return found if found.state is TaskState.DONE else None

    def _check_sources(self, batch: DueReplicas, answers: dict[UUID, CopyItem]) -> None:
        """Read the copies again that gave other bytes than they should, or none, and tell the ledger."""
        bad = [item for item in batch.items if item.version_uid in answers and answers[item.version_uid].is_source]
        if bad:
            self._services.read([_of_source(batch, item, item.sources[0]) for item in bad], on_behalf_of="")

    # Reading them again.

    def _verify(self, batch: DueReplicas) -> bool:
        by_uid = {item.replica_uid: item for item in batch.items}
        asked = [_of_replica(batch, item) for item in batch.items if _is_provable(item)]
        if unknown := [item for item in batch.items if not _is_provable(item)]:
            self._settle(batch, [_unprovable(item) for item in unknown])
            return True
        for part in islice(batches(asked, size=READ_BYTES), 1):
            first, second = self._services.read(part, on_behalf_of=batch.asked_by)
            settled = [
                _read(by_uid[one.replica_uid], second.get(one.replica_uid) or first[one.replica_uid]) for one in part
            ]
            self._settle(batch, settled)
        return True

    # Dropping them.

    def _prove(self, batch: DueReplicas, items: Sequence[DueReplica]) -> bool:
        """Have another copy of each looked at, as before a file is wiped; only what is proven may be dropped."""
        proven: dict[UUID, str] = {}
        by_mode: defaultdict[CheckMode, list[tuple[DueReplica, Asked]]] = defaultdict(list)
        for item in items:
            if not item.sources or not _is_provable(item):
                proven[item.replica_uid] = "there is no other copy that is not suspect"
                continue
            source = item.sources[0]
            is_seen = source.is_fresh or item.link_target_b64 is not None
            mode = CheckMode.STAT if is_seen else CheckMode.READ
            by_mode[mode].append((item, _of_source(batch, item, source)))
        for mode, pairs in by_mode.items():
            of = {asked.replica_uid: item.replica_uid for item, asked in pairs}
            for part in batches([asked for _, asked in pairs], size=READ_BYTES):
                found = self._services.look(part, mode)
                if mode is CheckMode.READ:
                    self._services.tell(found, on_behalf_of=batch.asked_by)
                proven |= {of[uid]: _why_not(item, mode) for uid, item in found.items()}
        settled = [_weighed(item.replica_uid, proven.get(item.replica_uid, "it was not looked at")) for item in items]
        self._settle(batch, settled)
        hit(ReplicaPoint.REPLICA_DROPPING)
        return True

    def _remove(self, batch: DueReplicas) -> bool:
        if never := [item for item in batch.items if not _is_provable(item)]:
            # No copy was ever made of them, and the storage removes nothing that cannot be told from other bytes.
            self._settle(batch, [_never_made(item) for item in never])
            return True
        found = self._asked(batch, None, batch.items)
        if found is None:
            return False
        answers = {answer.version_uid: answer for answer in found.items}
        hit(ReplicaPoint.REPLICA_SETTLING)
        self._settle(batch, [_removed(item, answers.get(item.version_uid)) for item in batch.items])
        return True

    def _settle(self, batch: DueReplicas, settled: Iterable[SettledReplica]) -> None:
        """Tell the catalogue what became of replicas; what is left of the batch it hands out again."""
        items = tuple(settled)
        for start in range(0, len(items), REGISTER_LIMIT):
            part = items[start : start + REGISTER_LIMIT]
            self._client.replicas.settle(SettledReplicas(batch_uid=batch.uid, action=batch.action, items=part))
        self._in_hand.pop(batch.storage_area_uid, None)

    def failed(self, error: Exception) -> None:
        """Report; that a service is away is told by others as well."""
        if not isinstance(error, UnavailableError):
            super().failed(error)


def _copy_item(item: DueReplica) -> NewCopyItem:
    return NewCopyItem.model_construct(  # of sound parts; the storage checks what it is sent
        path_b64=item.path_b64,
        version_uid=item.version_uid,
        number=item.number,
        size=item.size,
        checksums=item.checksums,
        link_target_b64=item.link_target_b64,
        is_plain=item.is_plain,
        is_ours=item.is_ours,
        replaces=item.replaces,
    )


def _of_source(batch: DueReplicas, item: DueReplica, source: DueSource) -> Asked:
    one = _of_replica(batch, item)
    return Asked(source.replica_uid, one.experiment_uid, source.storage_area_uid, one.item)


def _of_replica(batch: DueReplicas, item: DueReplica) -> Asked:
    asked = asked_item(
        item.path_b64,
        item.version_uid,
        number=item.number,
        kind=item.kind,
        size=item.size,
        checksums=item.checksums,
        link_target_b64=item.link_target_b64,
    )
    return Asked(item.replica_uid, batch.experiment_uid, batch.storage_area_uid, asked)


def _is_provable(item: DueReplica) -> bool:
    return bool(item.checksums) or item.link_target_b64 is not None


def _unprovable(item: DueReplica) -> SettledReplica:
    why = "no checksum of it is known: no copy of it can be proven"
    return SettledReplica(replica_uid=item.replica_uid, outcome=Settling.FAILED, message=why)


def _never_made(item: DueReplica) -> SettledReplica:
    return SettledReplica(replica_uid=item.replica_uid, outcome=Settling.DONE, verified_at=datetime.now(UTC))


def _made(item: DueReplica, answer: CopyItem | None) -> SettledReplica:
    if not _is_provable(item):
        return _unprovable(item)
    if answer is None:
        why = "no other copy of it is known to be good" if not item.sources else "the storage said nothing of it"
        return SettledReplica(replica_uid=item.replica_uid, outcome=Settling.AGAIN, message=why)
    if answer.outcome is Outcome.STORED:
        return SettledReplica(
            replica_uid=item.replica_uid, outcome=Settling.DONE, verified_at=answer.at, read_from=answer.read_from
        )
    outcome = Settling.FAILED if answer.outcome is Outcome.FAILED else Settling.AGAIN
    return SettledReplica(replica_uid=item.replica_uid, outcome=outcome, message=answer.message)


def _read(item: DueReplica, found: CheckItem) -> SettledReplica:
    outcome = Settling.DONE if found.outcome is CheckOutcome.MATCH else Settling.FAILED
    return SettledReplica(replica_uid=item.replica_uid, outcome=outcome, message=found.message)


def _why_not(item: CheckItem, mode: CheckMode) -> str:
    """Return why a copy proves nothing; empty where it does."""
    if item.outcome is not CheckOutcome.MATCH:
        return f"the storage says of the other copy: {item.message}"
    if mode is CheckMode.READ and item.read_from not in (ReadFrom.DEVICE, ReadFrom.OTHER_HOST):
        return "the other copy can only be read from a cache, which says nothing of the device"
    return ""


def _weighed(replica_uid: UUID, why_not: str) -> SettledReplica:
    outcome = Settling.FAILED if why_not else Settling.DROPPING
    return SettledReplica(replica_uid=replica_uid, outcome=outcome, message=why_not)


def _removed(item: DueReplica, answer: CopyItem | None) -> SettledReplica:
    # Bytes that were never this version's, and stand in its place, are no copy of it either.
    is_gone = answer is not None and answer.outcome in (Outcome.REMOVED, Outcome.CONFLICT)
    return SettledReplica(
        replica_uid=item.replica_uid,
        outcome=Settling.DONE if is_gone else Settling.AGAIN,
        message="" if answer is None else answer.message,
        verified_at=None if answer is None else answer.at,
    )
