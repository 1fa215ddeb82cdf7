"""The workers: a batch goes from ready to available, every step written down before the next.

    ready -> [lookup] -> [transfer to staging] -> staged -> [publish] -> stored -> [processors] -> available

A worker holds its files by a lease; a restart finds what a dead one held and goes on at the step that was not
finished. What fails as a whole (storage or catalogue not there) waits and is never held against a file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from beamkeeper.client import Client
from beamkeeper.config.failpoints import FailPoint, hit
from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.db.journal import Batch, Claimed, backoff
from beamkeeper.domain.acquisition import JournalState
from beamkeeper.domain.errors import DestinationError, DmError, NotFoundError, SourceError, UnavailableError
from beamkeeper.domain.files import File, FileKind
from beamkeeper.domain.names import Checksum, RelPath, to_b64
from beamkeeper.domain.problems import ProblemKind
from beamkeeper.domain.storage import (
    NewPublish,
    NewPublishItem,
    Outcome,
    Publish,
    PublishItem,
    PublishState,
    Replaced,
)
from beamkeeper.engine.masters import MastersLoop
from beamkeeper.engine.problems import Tell, about
from beamkeeper.engine.process import Chain, ChainResult
from beamkeeper.engine.readback import strongest
from beamkeeper.engine.scene import Scene
from beamkeeper.engine.worker import Loop, Report
from beamkeeper.plugins.api import Transfer, TransferItem, TransferResult

logger = logging.getLogger(__name__)

J = JournalState
PUBLISH_WAIT_S = 20.0
PAUSE_S = 2.0
"""How long a batch waits when the storage or the catalogue is not there."""

Changes = dict[int, dict[str, Any]]


class LeaseLostError(Exception):
    """Another worker has taken files of this batch meanwhile: what was made of it here counts for nothing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one batch may hold, and how often a file may fail by itself before it is quarantined."""

    files: int
    size: int
    attempts: int


class Worker(Loop):
    """Takes batches through all their steps."""

    def __init__(
        self,
        number: int,
        database: Database[AcquisitionTransaction],
        client: Client,
        *,
        owner: UUID,
        limits: Limits,
        transfer: Callable[[str], Transfer],
        chain: Chain,
        give_back: Callable[[UUID, Sequence[bytes]], None],
        report: Report,
        tell: Tell,
        masters: MastersLoop,
    ) -> None:
        super().__init__(f"worker {number}", report=report, idle_s=1.0)
        self._database = database
        self._client = client
        self._owner = owner
        self._limits = limits
        self._transfer = transfer
        self._chain = chain
        self._give_back = give_back
        self._tell = tell
        self._masters = masters

    def step(self) -> bool:
        """Take one batch as far as it gets."""
        with self._database.write() as tx:
            batch = tx.journal.claim(self._owner, files=self._limits.files, size=self._limits.size)
            scene = Scene.of(tx, batch.acquisition_uid) if batch else None
        if batch is None or scene is None:
            return False
        hit(FailPoint.CLAIMED)
        try:
            self._advance(batch, scene)
        except LeaseLostError:
            self.warn(f"batch {batch.uid} was taken by another worker meanwhile: what was done here is dropped")
            self._pause(batch, None)
        except (UnavailableError, DestinationError) as error:
            self._pause(batch, error)
        except Exception:
            self._pause(batch, None)
            raise
        return True

    def _advance(self, batch: Batch, scene: Scene) -> None:
        if batch.state is J.READY:
            items = self._staged_or_nothing(batch, scene)
            hit(FailPoint.STAGED_WRITTEN)
            if items:
                self._publish(batch, scene, items)
        elif batch.state is J.STAGED:
            self._resume(batch, scene)
        self._process(batch, scene)

    def _pause(self, batch: Batch, error: DmError | None) -> None:
        """Give back what is still ours, to be gone on with later; nothing of it counts as a fault of a file."""
        if error is not None:
            self.failed(error)
        if isinstance(error, DestinationError):
            self._tell(about(ProblemKind.DESTINATION_PAUSED, None, error.message))
        with self._database.write() as tx:
            tx.journal.pause(batch, until=tx.now + timedelta(seconds=PAUSE_S))

    # ready -> staged

    def _staged_or_nothing(self, batch: Batch, scene: Scene) -> list[NewPublishItem]:
        """Stage a batch; where that fails nothing of it stays: its staging directory is of this try only."""
        try:
            items = self._stage(batch, scene)
        except BaseException:
            with suppress(DmError):  # it is discarded later
                self._discard(batch, scene)
            raise
        if not items:
            self._discard(batch, scene)
        return items

    def _discard(self, batch: Batch, scene: Scene) -> None:
        self._transfer(scene.area.transfer).discard(scene.staging(batch.uid))
        with self._database.write() as tx:
            tx.stagings.forget(batch.uid)

    def _stage(self, batch: Batch, scene: Scene) -> list[NewPublishItem]:
        present = self._present(batch, scene)
        todo: list[Claimed] = []
        unchanged: Changes = {}
        for file in batch.files:
            there = present.get(scene.path(file))
            is_same = there is not None and there.is_verified and there.identity == file.identity
            if is_same and there is not None and self._is_own(there, scene, file) and not scene.acquisition.resend:
                unchanged[file.id] = {"reason_code": "unchanged", "reason": "it is stored already, and has not changed"}
            else:
                todo.append(file)
        self._step(batch, J.SKIPPED, unchanged, free=True)
        results = self._send(batch, scene, [f for f in todo if f.kind is FileKind.FILE])
        return self._staged(batch, scene, todo, present, results)

    def _present(self, batch: Batch, scene: Scene) -> dict[RelPath, File]:
        paths = [scene.path(file) for file in batch.files]
        return {file.relpath: file for file in self._client.files.lookup(scene.experiment.uid, paths)}

    def _is_own(self, there: File, scene: Scene, file: Claimed) -> bool:
        return there.source == scene.origin(file)

    def _send(self, batch: Batch, scene: Scene, files: Sequence[Claimed]) -> dict[UUID, TransferResult]:
        if not files:
            return {}
        transfer = self._transfer(scene.area.transfer)
        items = [TransferItem(f.version_uid, scene.source(f), scene.path(f), f.identity) for f in files]
        return {r.version_uid: r for r in transfer.send(items, scene.staging(batch.uid), lambda: self.is_stopping)}

    def _staged(
        self,
        batch: Batch,
        scene: Scene,
        files: Iterable[Claimed],
        present: Mapping[RelPath, File],
        results: Mapping[UUID, TransferResult],
    ) -> list[NewPublishItem]:
        """Write down what is staged, and return what is to be published."""
        staged, same, items = {}, {}, []
        faults: list[tuple[Claimed, Exception]] = []
        for file in files:
            result = results.get(file.version_uid)
            there = present.get(scene.path(file))
            if result is None and self.is_stopping and file.kind is FileKind.FILE:
                continue  # not begun: it is given back with the batch
            if file.kind is FileKind.FILE and (result is None or result.error is not None):
                faults.append((file, (result.error if result else None) or _unsent()))
                continue
            checksums = list(result.checksums) if result else []
            if there is not None and self._is_same_content(there, file, checksums):
                same[file.id] = {"version_uid": there.version_uid, "available_at": self._now(), "attempts": 0}
                continue
            if there is not None and not self._is_own(there, scene, file):
                faults.append((file, _conflict(there)))
                continue
            number = there.version + 1 if there else 1
            staged[file.id] = {
                "number": number,
                "checksums": [c.model_dump(mode="json") for c in checksums],
                "chunks": list(result.chunks) if result else [],
                "staged_at": self._now(),
            }
            items.append(_item(scene, file, checksums, number, there))
        self._step(batch, J.AVAILABLE, same, free=True)
        hit(FailPoint.STAGED_WRITING)
        self._step(batch, J.STAGED, staged, free=False)
        self._settle_faults(batch, faults)
        return items

    def _is_same_content(self, there: File, file: Claimed, checksums: Sequence[Checksum]) -> bool:
        """Only other bytes make a version: a new time or inode alone does not."""
        if file.kind is FileKind.LINK:
            return there.kind is FileKind.LINK and there.link_target_b64 == to_b64(file.link_target or b"")
        known = {c.algorithm: c.value for c in there.checksums}
        shared = [c for c in checksums if c.algorithm in known]
        return there.is_verified and bool(shared) and all(known[c.algorithm] == c.value for c in shared)

    # staged -> stored

    def _publish(self, batch: Batch, scene: Scene, items: Sequence[NewPublishItem]) -> None:
        hit(FailPoint.PUBLISH_ASKING)
        self._client.publishes.request(NewPublish(uid=batch.uid, experiment_uid=scene.experiment.uid, items=items))
        hit(FailPoint.PUBLISH_ASKED)
        asked = {item.version_uid for item in items}
        self._await_publish(batch, [file for file in batch.files if file.version_uid in asked])

    def _resume(self, batch: Batch, scene: Scene) -> None:
        """Go on with a batch that was staged: its publish was asked for, or is now.

        It is never taken back, for who held it before may be about to ask: the same uid gives the same publish,
        and what is not in staging any more comes back as missing.
        """
        try:
            self._await_publish(batch, batch.files)
        except NotFoundError:
            present = self._present(batch, scene)
            items = [
                _item(scene, f, [Checksum.model_validate(c) for c in f.checksums], f.number, present.get(scene.path(f)))
                for f in batch.files
            ]
            self._publish(batch, scene, items)

    def _await_publish(self, batch: Batch, files: Sequence[Claimed]) -> None:
        while True:
            publish: Publish = self._client.publishes.get(batch.uid, wait_s=PUBLISH_WAIT_S)
            if publish.state is PublishState.DONE:
                break
            if self.is_stopping:
                raise UnavailableError("the service stops; the batch goes on when it is up again")
        by_version = {item.version_uid: item for item in publish.items}
        stored: Changes = {}
        faults: list[tuple[Claimed, Exception]] = []
        for file in files:
            item = by_version.get(file.version_uid)
            if item is None:
                faults.append((file, _unsent()))
            elif item.outcome is Outcome.STORED:
                stored[file.id] = {"stored_at": item.stored_at, "read_from": item.read_from}
            else:
                faults.append((file, _fault(item)))
        hit(FailPoint.STORED_WRITING)
        self._step(batch, J.STORED, stored, free=False)
        with self._database.write() as tx:
            tx.stagings.forget(batch.uid)  # the storage removed it
        hit(FailPoint.STORED_WRITTEN)
        self._settle_faults(batch, faults)

    # stored -> available

    def _process(self, batch: Batch, scene: Scene) -> None:
        with self._database.read() as tx:
            held = tx.journal.held(batch, J.STORED)
        if not held:
            return
        results: dict[UUID, ChainResult] = self._chain.run(held, scene, stop=lambda: self.is_stopping)
        done: Changes = {}
        again: Changes = {}
        faults: list[tuple[Claimed, Exception]] = []
        for file in held:
            result = results[file.version_uid]
            if not result.error:
                done[file.id] = {"available_at": self._now(), "attempts": 0, "reason": "", "reason_code": ""}
            elif file.attempts + 1 >= self._limits.attempts or result.is_final:
                faults.append((file, result.as_error()))
            else:
                pause = self._now() + backoff(file.attempts + 1)
                again[file.id] = {"attempts": file.attempts + 1, "next_at": pause, "reason": result.error[:2000]}
        self._masters.note(scene, [results[file.version_uid].passed for file in held if file.id in done])
        hit(FailPoint.AVAILABLE_WRITING)
        self._step(batch, J.AVAILABLE, done, free=True)
        hit(FailPoint.AVAILABLE_WRITTEN)
        self._step(batch, J.STORED, again, free=True)
        self._settle_faults(batch, faults)
        if done:
            self._masters.stir(scene.experiment.uid)
            self._database.tell()

    # What goes wrong with single files.

    def _settle_faults(self, batch: Batch, faults: Sequence[tuple[Claimed, Exception]]) -> None:
        changed: list[bytes] = []
        for state in (J.CANDIDATE, J.READY, J.QUARANTINED):
            changes: Changes = {}
            for file, error in faults:
                wanted, values = _after_fault(file, error, self._now(), self._limits.attempts)
                if wanted is state:
                    changes[file.id] = values
                    if state is J.CANDIDATE:
                        changed.append(file.path)
            self._step(batch, state, changes, free=True)
        if changed:
            self._give_back(batch.acquisition_uid, changed)
        self._tell_of_quarantine(batch, [file.path for file in batch.files if file.id in changes], faults)

    def _tell_of_quarantine(
        self, batch: Batch, paths: Sequence[bytes], faults: Sequence[tuple[Claimed, Exception]]
    ) -> None:
        if paths:
            with self._database.read() as tx:
                acquisition = tx.acquisitions.get(batch.acquisition_uid)
            why = next(str(error) for file, error in faults if file.path == paths[-1])
            self._tell(about(ProblemKind.FILES_QUARANTINED, acquisition, f"files are quarantined: {why}", paths))

    def _step(self, batch: Batch, state: JournalState, changes: Changes, *, free: bool) -> None:
        """Write a step down for all of these files, or for none where not all of them are ours any more."""
        if changes:
            with self._database.write() as tx:
                if tx.journal.step(batch, state, changes, free=free) < len(changes):
                    raise LeaseLostError

    def _now(self) -> datetime:
        return datetime.now(UTC)


def _after_fault(
    file: Claimed, error: Exception, now: datetime, most_attempts: int
) -> tuple[JournalState, dict[str, Any]]:
    """Decide where a file goes after a fault of its own."""
    code = str(error.details.get("code", "")) if isinstance(error, DmError) else ""
    why = error.message if isinstance(error, DmError) else str(error)
    values: dict[str, Any] = {"reason_code": code or "failed", "reason": why[:2000], "attempts": file.attempts + 1}
    values["next_at"] = now + backoff(file.attempts + 1)
    if isinstance(error, SourceError) and code in ("changed", "vanished"):
        # Whether it is gone for good is the intake's to say: its whole directory may be away for a while.
        return J.CANDIDATE, values
    if code in ("conflict", "unreadable", "special", "failed") or file.attempts + 1 >= most_attempts:
        return J.QUARANTINED, values
    return J.READY, values


def _unsent() -> DmError:
    return DestinationError("nothing was said of it: it is sent again", code="unsent")


def _conflict(there: File) -> DmError:
    return SourceError(
        f"the path holds other bytes, which came from another source (agent {there.source.agent}): rename one of them",
        code="conflict",
    )


def _fault(item: PublishItem) -> DmError:
    return DestinationError(item.message or f"publishing answered {item.outcome}", code=str(item.outcome))


def _item(
    scene: Scene, file: Claimed, checksums: Sequence[Checksum], number: int, there: File | None
) -> NewPublishItem:
    replaces = None
    if there is not None and there.checksums:
        replaces = Replaced(number=there.version, checksum=strongest(there.checksums))
    return NewPublishItem(
        path_b64=to_b64(scene.path(file)),
        version_uid=file.version_uid,
        number=number,
        size=file.identity.size,
        checksums=checksums,
        link_target_b64=to_b64(file.link_target) if file.link_target is not None else None,
        replaces=replaces,
    )
