"""Brings large files to storage while they are still written, so that little is left to do when they are finished.

What is brought lies in a staging directory that becomes the file's own batch. Nothing of it is believed then: each
chunk of the finished file is compared by its digest, what differs is brought again, and the storage reads all back.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.db.ahead import GrowingFile, StagedPart
from beamkeeper.db.journal_rows import signed
from beamkeeper.domain.errors import DmError
from beamkeeper.domain.files import CHUNK_BYTES
from beamkeeper.domain.names import show_path
from beamkeeper.engine.scan import identity_of
from beamkeeper.engine.scene import Scene
from beamkeeper.engine.sending import SOURCE, Sender
from beamkeeper.engine.worker import Loop, Report
from beamkeeper.plugins.api import Ahead, Growing, Stop, Transfer, TransferItem, TransferResult

AGAIN_S = 30.0
"""A file whose storage area or source failed is left alone for so long."""

CHUNKS = 8
"""About so many are brought before it is written down how far a file has come."""

LOOK_S = 0.5
"""How often it is looked, while more is brought, whether the file is finished: then a worker brings the rest."""


@dataclass(frozen=True, slots=True)
class Staging:
    """A transfer, as one that brings more of a file that is still written: one that hangs is left behind alike."""

    transfer: Transfer

    def send(self, items: Sequence[TransferItem], staging: str, stop: Stop) -> Iterator[TransferResult]:
        """Bring more of each."""
        if isinstance(self.transfer, Growing):
            for item in items:
                made = self.transfer.stage_ahead(item, staging, stop)
                yield TransferResult(item.version_uid, made.size, chunks=tuple(made.chunks))


class AheadLoop(Loop):
    """Brings some of each file that grows, one after the other."""

    def __init__(
        self,
        database: Database[AcquisitionTransaction],
        agent: str,
        owner: UUID,
        *,
        transfer: Callable[[str], Transfer],
        sender: Sender,
        least_bytes: int,
        report: Report,
    ) -> None:
        super().__init__("ahead", report=report, idle_s=2.0)
        self._database = database
        self._agent = agent
        self._owner = owner
        self._transfer = transfer
        self._sender = sender
        self._least = least_bytes
        self._not_before: dict[tuple[UUID, bytes], float] = {}

    def step(self) -> bool:
        """Bring some more of every file that grows, and forget what was brought of those that will not be sent."""
        with self._database.read() as tx:
            growing = [(file, self._scene(tx, file)) for file in tx.ahead.growing(self._agent)]
            stale = tx.ahead.stale()
            is_held = self._owner in tx.ahead.owners()
        silent = self._sender.silent()
        if stale or is_held:
            with self._database.write() as tx:
                # Between steps we hold nothing: what is held, an error kept us from letting go, and it may be written.
                tx.ahead.release(self._owner, is_dead=False)
                for uid in tx.ahead.stale():
                    tx.ahead.drop(uid)
        is_busy = False
        for file, scene in growing:
            if self.is_stopping:
                break
            if scene is None or scene.area.uid in silent:
                continue
            if self._not_before.get((file.acquisition_uid, file.path), 0.0) < time.monotonic():
                is_busy |= self._bring(file, scene)
        now = time.monotonic()
        self._not_before = {key: when for key, when in self._not_before.items() if when > now}
        return is_busy

    def _scene(self, tx: AcquisitionTransaction, file: GrowingFile) -> Scene | None:
        """Return what a file belongs to; None where nothing can be brought there, at least not now."""
        scene = Scene.of(tx, file.acquisition_uid)
        if not scene.experiment.directory:
            return None
        try:
            is_able = isinstance(self._transfer(scene.area.transfer), Growing)
        except DmError:
            return None  # it is told when the file is sent
        return scene if is_able and tx.pauses.find(scene.area.uid) is None else None

    def _bring(self, file: GrowingFile, scene: Scene) -> bool:
        """Bring more of a file; tell whether there may be still more."""
        source = scene.source_of(file.path)
        found = _look(source)
        staged = file.staged
        if staged is not None and (found is None or signed(found.st_ino) != staged.ino or found.st_size < staged.size):
            with self._database.write() as tx:
                tx.ahead.drop(staged.uid)  # another file is there, or less of it
            return True
        if found is None or found.st_size < self._least or _is_sparse(found):
            return False
        if found.st_size - (staged.size if staged else 0) < CHUNK_BYTES:
            return False
        with self._database.write() as tx:
            if staged is None:
                staged = tx.ahead.begin(file.acquisition_uid, file.path, found.st_ino, self._owner)
                tx.stagings.add(staged.uid, file.acquisition_uid)
            elif not tx.ahead.hold(staged.uid, self._owner):
                return False
        return self._send(file, staged, scene, found)

    def _send(self, file: GrowingFile, staged: StagedPart, scene: Scene, found: os.stat_result) -> bool:
        upto = min(found.st_size, staged.size + CHUNKS * CHUNK_BYTES)
        item = TransferItem(
            staged.uid,
            scene.source_of(file.path),
            scene.path_of(file.path),
            identity_of(found).model_copy(update={"size": upto}),
            scene.staged_as(staged.uid),
            Ahead(staged.size, staged.chunks),
        )
        try:
            results = self._sender.send(scene.area, [item], scene.staging(staged.uid), self._is_over(file))
        except Exception as error:
            self._leave(file, staged, error)
            return False
        made = results.get(staged.uid)
        size, chunks = (made.size, made.chunks) if made else (staged.size, staged.chunks)
        with self._database.write() as tx:
            tx.ahead.keep(staged.uid, self._owner, size=size, chunks=chunks)
        return True

    def _is_over(self, file: GrowingFile) -> Callable[[], bool]:
        """Return what tells whether to bring no more of a file: it is finished, or gone, or we end."""
        look_at, is_growing = time.monotonic() + LOOK_S, True

        def is_over() -> bool:
            nonlocal look_at, is_growing
            if time.monotonic() > look_at and is_growing:
                look_at = time.monotonic() + LOOK_S
                with self._database.read() as tx:
                    is_growing = tx.ahead.is_growing(file)
            return self.is_stopping or not is_growing

        return is_over

    def _leave(self, file: GrowingFile, staged: StagedPart, error: Exception) -> None:
        """Leave a file alone for a while.

        What was brought is kept, unless whoever hangs may go on writing there, or the storage needs the room.
        """
        why = error.message if isinstance(error, DmError) else f"{type(error).__name__}: {error}"
        self.warn(f'"{show_path(file.path)}" is still written, and left alone for {AGAIN_S:g} s: {why}')
        self._not_before[file.acquisition_uid, file.path] = time.monotonic() + AGAIN_S
        is_sound = isinstance(error, DmError) and error.details.get("code") not in ("hanging", "full", SOURCE)
        with self._database.write() as tx:
            if is_sound:
                tx.ahead.keep(staged.uid, self._owner, size=staged.size, chunks=staged.chunks)
            else:
                tx.ahead.drop(staged.uid)


def _look(source: bytes) -> os.stat_result | None:
    try:
        found = os.stat(source, follow_symlinks=False)
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _is_sparse(found: os.stat_result) -> bool:
    """Whether a file has holes: they would be filled, for what is written into them comes later."""
    return found.st_blocks * 512 < found.st_size
