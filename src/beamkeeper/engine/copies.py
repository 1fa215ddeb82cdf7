"""Copying between storage areas, run where the storage is: staged, read back and named as every delivery is.

The bytes come from a copy that is stored already: it is verified and does not change any more, and neither the
detector's disk nor the link of its station is loaded a second time. Each storage area has a thread of its own, while
there is something to copy to it: one that is slow, full or hangs holds up no other, and no delivery.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock

from beamkeeper.config.failpoints import ReplicaPoint, hit
from beamkeeper.core.directories import ensure
from beamkeeper.db import Database, StorageTransaction
from beamkeeper.db.copies import CopyWork
from beamkeeper.db.news import Topic
from beamkeeper.domain.errors import DestinationError, DmError
from beamkeeper.domain.replicas import CopyItem
from beamkeeper.domain.storage import Outcome, StorageArea
from beamkeeper.engine.copying import CopyBatch, Found, StoppedError
from beamkeeper.engine.faults import trouble_of
from beamkeeper.engine.manners import set_io_class
from beamkeeper.engine.readback import Reader
from beamkeeper.engine.worker import Loop, Report
from beamkeeper.plugins.rclone import Rclone

LONGEST_PAUSE_S = 60


class CopyLane(Loop):
    """Takes the batches of one storage area, and ends when there is none; it is started anew for the next.

    `publishing` is held while a batch is published to the same area: what is removed there is no version that is just
    being replaced.
    """

    def __init__(
        self,
        database: Database[StorageTransaction],
        area: StorageArea,
        *,
        publishing: Lock,
        report: Report,
        rclone: Rclone,
    ) -> None:
        super().__init__(f"copies to {area.name}", report=report)
        self._database = database
        self._area = area
        self._publishing = publishing
        self._rclone = rclone
        self._reader = Reader()

    def run(self) -> None:
        """Copy out of the way of those who deliver."""
        set_io_class("idle")
        super().run()

    def step(self) -> bool:
        """See to one batch."""
        with self._database.read() as tx:
            work = tx.copies.pending(self._area.uid)
        if work is None:
            self.stop()
            return False
        try:
            found = self._see_to(work)
        except StoppedError:
            return False
        except Exception as error:
            self._pause(work, error)
            if not isinstance(error, OSError | DmError):
                raise
            return True
        hit(ReplicaPoint.REPLICA_NAMED)
        now = datetime.now(UTC)
        items = [
            CopyItem(
                version_uid=uid,
                outcome=outcome,
                message=message[:2000],
                is_source=is_source,
                read_from=read_from,
                at=now,
            )
            for uid, ((outcome, message, read_from), is_source) in found.items()
        ]
        with self._database.write() as tx:
            tx.copies.settle(work, items)
        self._database.tell(Topic.COPIES)
        return True

    def _see_to(self, work: CopyWork) -> Found:
        with self._database.read() as tx:
            experiment = tx.experiments.get(work.experiment_uid)
            source = None if work.source_area_uid is None else tx.storage.get(work.source_area_uid)
        batch = CopyBatch(
            work.uid,
            work.experiment_uid,
            str(experiment.directory),
            self._area,
            work.items,
            self._rclone,
            self._reader,
            lambda: self.is_stopping,
        )
        if source is not None:
            if experiment.storage_area_uid != self._area.uid:
                like = None if source.is_objects else f"{source.path}/{batch.directory}"
                self._make_place(work, batch.directory, like=like)
            return batch.copy_from(source)
        with self._database.write() as tx:
            tx.copies.end_older(work)  # such a copy would come to stand there after what is removed now
        if experiment.storage_area_uid == self._area.uid:
            return self._remove_own(work, batch)
        return _all(work, Outcome.REMOVED) if self._was_never_there(work, batch.directory) else batch.remove()

    def _remove_own(self, work: CopyWork, batch: CopyBatch) -> Found:
        """Remove from the area that is published to, unless files are on their way there.

        What is published meanwhile may take the place of what is to be removed: the station asks anew.
        """
        with self._publishing:
            with self._database.read() as tx:
                is_publishing = tx.publishes.is_any(work.experiment_uid)
            if is_publishing:
                return _all(work, Outcome.FAILED, "files of this experiment are being published: it waits for them")
            return batch.remove()

    def _was_never_there(self, work: CopyWork, directory: str) -> bool:
        """Whether nothing of an experiment ever came to this area, so that there is nothing to remove."""
        if self._area.is_objects or (Path(self._area.path) / directory).exists():
            return False
        with self._database.read() as tx:
            return not tx.copies.is_made(work)

    def _make_place(self, work: CopyWork, directory: str, *, like: str | None) -> None:
        """Make the experiment's directory the first time; where it is gone later, what is there is another place."""
        if self._area.is_objects:
            return
        if not Path(self._area.path).is_dir():
            raise DestinationError(f"{self._area.path} is not there: is it mounted?", code="unreachable")
        with self._database.read() as tx:
            is_made = tx.copies.is_made(work)
        if is_made:
            return  # opening it says so where it is not there
        ensure(self._area.path, directory, like=like)
        with self._database.write() as tx:
            tx.copies.mark_made(work)

    def _pause(self, work: CopyWork, error: Exception) -> None:
        """Let a batch wait for its storage area, and say why; the others of that area wait behind it."""
        trouble, why = "failed", f"{type(error).__name__}: {error}"
        if isinstance(error, DmError):
            trouble, why = str(error.details.get("code", "failed")), error.message
        elif isinstance(error, OSError):
            trouble, why = trouble_of(error.errno), f"{self._area.path}: {error.strerror or error}"
        with self._database.write() as tx:
            pause = timedelta(seconds=min(LONGEST_PAUSE_S, 2**work.attempts))
            tx.copies.pause(work, trouble, why, until=tx.now + pause)
        if work.attempts == 0:
            self.warn(f"{len(work.items)} copies wait: {why}")
        self._database.tell(Topic.COPIES)

    def ended(self) -> None:
        """Give back the threads that read."""
        self._reader.close()


def _all(work: CopyWork, outcome: Outcome, message: str = "") -> Found:
    return {item.version_uid: ((outcome, message, None), False) for item in work.items}
