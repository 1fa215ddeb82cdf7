"""Publishing, run where the storage is: verify what is stored, set rights, make it durable, rename.

A batch shares its durability barriers: all bytes, then all new names, then one transaction (DESIGN 4). Each storage
area has a thread of its own: one that hangs or is full holds up no other.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from threading import Lock

from beamkeeper.config.failpoints import FailPoint, TroublePoint, hit
from beamkeeper.db import Database, StorageTransaction
from beamkeeper.db.news import Topic
from beamkeeper.db.publishes import Settled, Work
from beamkeeper.domain.errors import DestinationError
from beamkeeper.domain.names import Uid
from beamkeeper.domain.storage import STAGING, NewPublishItem, Outcome, StorageArea
from beamkeeper.engine.batch import StagedBatch
from beamkeeper.engine.beneath import Beneath
from beamkeeper.engine.faults import trouble_of
from beamkeeper.engine.objects import ObjectStore
from beamkeeper.engine.readback import Reader
from beamkeeper.engine.worker import Loop, Report
from beamkeeper.plugins.rclone import Rclone, RcloneOptions

LONGEST_PAUSE_S = 30
SWEEP_S = 3600.0
COPIES_S = 5.0
"""A copy that hangs is left to itself when the service stops: it is done again."""


class PublishLanes(Loop):
    """Keeps a publishing thread for each storage area."""

    rest_s = 0.2
    quiet_s = 4.0

    def __init__(self, database: Database[StorageTransaction], *, report: Report, rclone: Rclone | None = None) -> None:
        super().__init__("publish", report=report, idle_s=1.0)
        self._database = database
        self._rclone = rclone or Rclone(RcloneOptions())
        self._lanes: dict[Uid, PublishLoop] = {}
        self._copies: dict[Uid, Loop] = {}
        self._sweep_at = 0.0
        self._unlisten = database.listen(self.wake, Topic.COPIES)

    def step(self) -> bool:
        """Start the threads of areas that are new, and for copies; forget what was done long ago."""
        with self._database.read() as tx:
            areas = tx.storage.list()
            copied_to = tx.copies.areas()
        for area in areas:
            if area.uid not in self._lanes and not self.is_stopping:
                self._lanes[area.uid] = PublishLoop(self._database, area, report=self._report, rclone=self._rclone)
                self._lanes[area.uid].start()
            if area.uid in copied_to and not self.is_stopping:
                self._start_copies(area)
        return self._sweep()

    def _start_copies(self, area: StorageArea) -> None:
        """Start the thread that copies to a storage area; it lives while there is something to copy."""
        from beamkeeper.engine.copies import CopyLane  # most services never copy: they are spared what it needs

        before = self._copies.get(area.uid)
        if before is None or not before.is_alive():
            publishing = self._lanes[area.uid].publishing
            lane = CopyLane(self._database, area, publishing=publishing, report=self._report, rclone=self._rclone)
            self._copies[area.uid] = lane
            lane.start()

    def _sweep(self) -> bool:
        if time.monotonic() < self._sweep_at:
            return False
        with self._database.write() as tx:
            is_more = tx.publishes.sweep() | tx.copies.sweep()
        self._sweep_at = 0.0 if is_more else time.monotonic() + SWEEP_S
        return is_more

    def stop(self) -> None:
        """Let no thread begin another batch."""
        super().stop()
        for lane in [*self._lanes.values(), *self._copies.values()]:
            lane.stop()

    def ended(self) -> None:
        """Wait for the batches that were begun."""
        self._unlisten()
        for lane in [*self._lanes.values(), *self._copies.values()]:
            lane.stop()
        for lane in self._lanes.values():
            lane.join()
        for copies in self._copies.values():
            copies.join(COPIES_S)


class LostError(Exception):
    """The bytes of a batch could not be made durable, and are thrown away."""

    def __init__(self, root: Path, error: OSError) -> None:
        self.trouble = trouble_of(error.errno)
        self.message = f"{root}: what was written could not be made durable: {error.strerror or error}"
        super().__init__(self.message)


class PublishLoop(Loop):
    """Takes the batch of one storage area that has waited longest, and publishes it."""

    quiet_s = 4.0

    def __init__(
        self,
        database: Database[StorageTransaction],
        area: StorageArea,
        *,
        report: Report,
        rclone: Rclone | None = None,
    ) -> None:
        super().__init__(f"publish to {area.name}", report=report, idle_s=1.0)
        self._database = database
        self._area = area
        self._rclone = rclone or Rclone(RcloneOptions())
        self._reader = Reader()
        self.publishing = Lock()
        self._unlisten = database.listen(self.wake, Topic.PUBLISHES)

    def step(self) -> bool:
        """Publish one batch."""
        with self._database.read() as tx:
            work = tx.publishes.pending(self._area.uid)
            directory = tx.experiments.get(work.experiment_uid).directory if work else None
        if work is None or directory is None:
            return False
        root = Path(self._area.path) / directory
        hit(FailPoint.PUBLISH_TAKEN)
        trouble, message = "", ""
        try:
            with self.publishing:
                if self._area.is_objects:
                    settled = ObjectStore(self._rclone, self._area, directory).publish(work)
                else:
                    settled = self._publish(work, root)
        except LostError as lost:
            trouble, message = lost.trouble, lost.message
            settled = [(Outcome.LOST, message, None)] * len(work.items)
            self.warn(f"batch {work.uid} has to be sent again: {message}")
            hit(TroublePoint.PUBLISH_LOST)
        except Exception as error:
            self._pause(work, root, error)
            raise
        hit(FailPoint.PUBLISH_SETTLING)
        with self._database.write() as tx:
            tx.publishes.settle(work, settled, trouble, message)
            is_more = tx.publishes.is_due(self._area.uid)
            hit(FailPoint.PUBLISH_SETTLED)
        self._database.tell(Topic.PUBLISHED)
        return is_more

    def _pause(self, work: Work, root: Path, error: Exception) -> None:
        """Let a batch wait for its storage area; or, where we ourselves are at fault, let others go before it."""
        trouble, why = "failed", f"{type(error).__name__}: {error}"
        if isinstance(error, DestinationError):
            trouble, why = str(error.details.get("code", "failed")), error.message
        elif isinstance(error, OSError):
            trouble, why = trouble_of(error.errno), f"{root}: {error.strerror or error}"
        with self._database.write() as tx:
            pause = timedelta(seconds=min(LONGEST_PAUSE_S, 2**work.attempts))
            tx.publishes.pause(work, trouble, why, until=tx.now + pause)
        self._database.tell(Topic.PUBLISHED)
        if isinstance(error, (OSError, DestinationError)):
            raise DestinationError(f"batch {work.uid} waits, the storage area fails as a whole: {why}") from error

    def _publish(self, work: Work, root: Path) -> list[Settled]:
        items = work.items
        try:
            beneath = Beneath(root)
        except FileNotFoundError as error:
            raise DestinationError(
                f"the experiment's directory {root} is not there: is the storage mounted?", code="unreachable"
            ) from error
        with beneath:
            batch = StagedBatch(beneath, f"{STAGING}/{work.uid}".encode(), self._reader, work.verify)
            self._make_durable(batch, root, items)
            hit(FailPoint.PUBLISH_SYNCED)
            batch.look(items)
            hit(FailPoint.PUBLISH_READ)
            settled = [batch.publish_one(item) for item in items]
            hit(FailPoint.PUBLISH_RENAMED)
            batch.sync_names()
            hit(FailPoint.PUBLISH_DURABLE)
            beneath.remove_tree(batch.staging)
        return settled

    def _make_durable(self, batch: StagedBatch, root: Path, items: Sequence[NewPublishItem]) -> None:
        try:
            batch.make_durable(items)
        except OSError as error:
            # Away with it at once: nothing may ever be tried again on these files.
            with suppress(OSError):
                batch.beneath.remove_tree(batch.staging)
            raise LostError(root, error) from error

    def ended(self) -> None:
        """Listen no more."""
        self._unlisten()
        self._reader.close()
