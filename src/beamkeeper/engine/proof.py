"""Proving that entries may be wiped: what is not proven by everything here is not proven.

listed -> [held?] -> [journal] -> [catalogue] -> [old enough?] -> [as it was when it was copied? open?]
       -> [a copy read from its device] -> [the storage has it now] -> proven
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.domain.files import File, FileKind, ReadFrom, Replica, ReplicaState
from beamkeeper.domain.ledger import FileProof
from beamkeeper.domain.names import to_b64
from beamkeeper.domain.storage import CheckItem, CheckMode, CheckOutcome
from beamkeeper.domain.wipes import Reason, Wipe, age_of, best_replica, is_at_or_below
from beamkeeper.engine.asking import Asked, Services, asked_item, batches
from beamkeeper.engine.beneath import Beneath
from beamkeeper.engine.delivered import Place, delivered
from beamkeeper.engine.entries import Entry
from beamkeeper.engine.finish import Writer
from beamkeeper.engine.opened import OpenFiles, held_open, open_files
from beamkeeper.engine.readback import digest, strongest
from beamkeeper.engine.scan import identity_of

LOOK_AGAIN_S = 10.0
"""What processes have open is looked up anew after so long."""

READ_BYTES = 1_000_000_000
"""About so much is read back at the storage in one go."""


class Prover:
    """Judges the entries of one directory, some at a time."""

    def __init__(
        self,
        wipe: Wipe,
        beneath: Beneath,
        database: Database[AcquisitionTransaction],
        services: Services,
        *,
        look_up: Callable[[], OpenFiles] = open_files,
    ) -> None:
        self._wipe = wipe
        self._beneath = beneath
        self._database = database
        self._services = services
        self._look_up = look_up
        self._opened = OpenFiles(frozenset(), is_complete=False)
        self._look_up_at = 0.0

    def prove(self, entries: Sequence[Entry]) -> None:
        """Judge entries of one directory.

        Each has a reason afterwards why it is not proven, or a version and a replica that prove it.
        """
        self._check_holds(entries)
        proofs = self._catalogued([entry for entry in entries if entry.is_open])
        now = datetime.now(UTC)
        for entry in entries:
            if entry.is_open:
                self._check_source(entry, proofs[entry.path].file, now)
        self._check_replicas([entry for entry in entries if entry.is_open], proofs, now)

    def _check_holds(self, entries: Sequence[Entry]) -> None:
        holds = held_paths(self._database, self._wipe.agent)
        for entry in entries:
            if any(is_at_or_below(entry.path, hold) for hold in holds):
                entry.refuse(Reason.HELD, "it is held: `dm hold list` shows by whom")
        for path in needed_by_jobs(self._database, [entry.path for entry in entries]):
            for entry in entries:
                if entry.path == path and entry.is_open:
                    entry.refuse(Reason.HELD, "a job that has not ended works on it: `dm job list` shows it")

    # What the journal and the catalogue say.

    def _catalogued(self, entries: Sequence[Entry]) -> Mapping[bytes, FileProof]:
        """Return what proves each entry that is still open afterwards."""
        with self._database.read() as tx:
            said = delivered(tx, self._wipe.agent, [entry.path for entry in entries])
        wanted: defaultdict[UUID, set[bytes]] = defaultdict(set)
        for entry in entries:
            if said[entry.path].reason:
                entry.refuse(said[entry.path].reason, said[entry.path].why)
            for experiment_uid, path in said[entry.path].places:
                wanted[experiment_uid].add(path)
        found = {place: proof for uid, paths in wanted.items() for place, proof in self._proofs(uid, paths)}
        proofs: dict[bytes, FileProof] = {}
        for entry in entries:
            if entry.is_open:
                places = [found[place] for place in said[entry.path].places if place in found]
                if (proof := self._of_source(entry, places)) is not None:
                    proofs[entry.path] = proof
        return proofs

    def _proofs(self, experiment_uid: UUID, paths: Collection[bytes]) -> Iterator[tuple[Place, FileProof]]:
        for proof in self._services.patiently(lambda: self._services.client.files.proofs(experiment_uid, paths)):
            yield (experiment_uid, bytes(proof.file.relpath)), proof

    def _of_source(self, entry: Entry, proofs: Sequence[FileProof]) -> FileProof | None:
        """Return the proof that is of this very source; say of the entry why there is none."""
        own = [proof for proof in proofs if self._is_source(proof.file, entry)]
        there = [proof for proof in own if proof.file.deleted_at is None]
        if not proofs:
            entry.refuse(Reason.NOT_CATALOGUED, "it was delivered, and the catalogue does not have it")
        elif not own:
            entry.refuse(Reason.OTHER_SOURCE, "its path in the catalogue belongs to another source")
        elif not there:
            entry.refuse(Reason.DELETED, "the catalogued file is deleted: it may be purged")
        return max(there, key=lambda proof: proof.file.catalogued_at) if there else None

    def _is_source(self, file: File, entry: Entry) -> bool:
        return file.source.agent == self._wipe.agent and bytes(file.source.relpath) == entry.path

    # What the file itself says.

    def _check_source(self, entry: Entry, file: File, now: datetime) -> None:
        least = timedelta(hours=self._wipe.min_age_hours)
        if entry.identity is None or age_of(entry.identity, file.finished_at, now) < least:
            entry.refuse(Reason.TOO_YOUNG, f"it is younger than {self._wipe.min_age_hours:g} h")
        elif entry.kind is not file.kind:
            entry.refuse(Reason.CHANGED, f"it is a {entry.kind} now, and a {file.kind} is stored")
        elif entry.kind is FileKind.LINK:
            if to_b64(entry.target or b"") != file.link_target_b64:
                entry.refuse(Reason.CHANGED, "it points elsewhere than the stored link")
        else:
            self._check_bytes(entry, file)

    def _check_bytes(self, entry: Entry, file: File) -> None:
        try:
            descriptor = self._beneath.open(entry.below)
        except OSError as error:
            entry.refuse(Reason.UNREADABLE, f"it cannot be opened: {os.strerror(error.errno or 0).lower()}")
            return
        try:
            found = os.fstat(descriptor)
            if identity_of(found) != entry.identity:
                entry.refuse(Reason.CHANGED, "it changed while it was looked at")
            elif self._is_held_open(entry, descriptor, found):
                entry.refuse(Reason.OPEN, "a process has it open")
            elif file.is_snapshot or file.identity != entry.identity:
                # A snapshot was taken while a writer was there: that nothing seems to have changed is not enough.
                self._compare(entry, file, descriptor)
        except OSError as error:
            entry.refuse(Reason.UNREADABLE, f"it cannot be read: {os.strerror(error.errno or 0).lower()}")
        finally:
            os.close(descriptor)

    def _is_held_open(self, entry: Entry, descriptor: int, found: os.stat_result) -> bool:
        if time.monotonic() >= self._look_up_at:
            self._opened = self._look_up()
            self._look_up_at = time.monotonic() + LOOK_AGAIN_S
        writer = held_open(descriptor)
        entry.is_unseen = writer is Writer.UNKNOWN and not self._opened.is_complete
        return writer is Writer.OPEN or self._opened.has(found)

    def _compare(self, entry: Entry, file: File, descriptor: int) -> None:
        """Hash the source again, and compare it with what is stored; a glance reads nothing."""
        if self._wipe.is_glance:
            entry.refuse(Reason.CHANGED, "it would have to be read again")
            return
        if not file.checksums:
            entry.refuse(Reason.NOT_VERIFIED, "no checksum of it is known")
            return
        stored = strongest(file.checksums)
        value, size = digest(descriptor, stored.algorithm)
        if value != stored.value or size != file.size:
            entry.refuse(Reason.CHANGED, "it has other bytes than the version that is stored")
        elif identity_of(os.fstat(descriptor)) != entry.identity:
            entry.refuse(Reason.CHANGED, "it changed while it was read")

    # What the storage says.

    def _check_replicas(self, entries: Sequence[Entry], proofs: Mapping[bytes, FileProof], now: datetime) -> None:
        since = now - timedelta(days=self._wipe.within_days)
        by_mode: dict[CheckMode, dict[UUID, Entry]] = {mode: {} for mode in CheckMode}
        asked: dict[CheckMode, list[Asked]] = {mode: [] for mode in CheckMode}
        for entry in entries:
            proof = proofs[entry.path]
            best = best_replica(proof, since)
            if best is None:
                is_suspect = any(found.replica.state is ReplicaState.SUSPECT for found in proof.replicas)
                why = "its copy had other bytes, or none, when it was last read" if is_suspect else "it has no copy"
                entry.refuse(Reason.SUSPECT if is_suspect else Reason.NOT_VERIFIED, why)
                continue
            replica, is_fresh = best[0].replica, best[1]
            mode = CheckMode.STAT if is_fresh or entry.kind is FileKind.LINK else CheckMode.READ
            if mode is CheckMode.READ and self._wipe.is_glance:
                entry.refuse(Reason.NOT_VERIFIED, "its copy was not read back lately")
                continue
            if mode is CheckMode.READ and not proof.file.checksums:
                entry.refuse(Reason.NOT_VERIFIED, "no checksum of it is known")
                continue
            entry.version_uid, entry.replica_uid = proof.file.version_uid, replica.uid
            by_mode[mode][replica.uid] = entry
            asked[mode].append(_asked(proof.file, replica))
        for uid, item in self._services.look(asked[CheckMode.STAT], CheckMode.STAT).items():
            _confirm(by_mode[CheckMode.STAT][uid], item)
        for part in batches(asked[CheckMode.READ], size=READ_BYTES):
            found = self._services.look(part, CheckMode.READ)
            self._services.tell(found, on_behalf_of=self._wipe.run_by or self._wipe.planned_by)
            for uid, item in found.items():
                _confirm(by_mode[CheckMode.READ][uid], item, is_read=True)


def held_paths(database: Database[AcquisitionTransaction], agent: str) -> list[bytes]:
    """Return the paths at or below which nothing is wiped, with links followed as they lead now."""
    with database.read() as tx:
        return [os.path.realpath(b"/" + hold.relpath)[1:] for hold in tx.holds.list(agent)]


def needed_by_jobs(database: Database[AcquisitionTransaction], paths: Collection[bytes]) -> frozenset[bytes]:
    """Return which of these files are inputs of jobs that have not ended."""
    with database.read() as tx:
        return tx.job_requests.holding(paths)


def _asked(file: File, replica: Replica) -> Asked:
    item = asked_item(
        file.path_b64,
        file.version_uid,
        number=file.version,
        kind=file.kind,
        size=file.size,
        checksums=file.checksums,
        link_target_b64=file.link_target_b64,
    )
    return Asked(replica.uid, file.experiment_uid, replica.storage_area_uid, item)


def _confirm(entry: Entry, item: CheckItem, *, is_read: bool = False) -> None:
    """Take in what the storage says now."""
    if item.outcome is not CheckOutcome.MATCH:
        entry.refuse(Reason.NOT_IN_STORAGE, f"the storage says of its copy: {item.message}")
    elif is_read and item.read_from not in (ReadFrom.DEVICE, ReadFrom.OTHER_HOST):
        why = "its copy can only be read from a cache, which says nothing of the device"
        entry.refuse(Reason.NOT_FROM_DEVICE, why)
