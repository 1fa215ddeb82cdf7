"""Storage areas that take nothing at present: files wait for the area, not each for itself, and go on by themselves.

An area that is full, read-only, away or silent is paused for all workers (the journal's database says so, and with it
`dm status` and every DAQ). It is looked at again and again, less often the longer it lasts; when it has room for more
than what it could not take (so that it does not come and go), one small batch is let through, and if that is stored,
all the others follow. Other storage areas are not touched.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Lock
from uuid import UUID

from beamkeeper.client import Client
from beamkeeper.config.failpoints import TroublePoint, hit
from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.db.journal import Batch
from beamkeeper.db.pauses import Pause
from beamkeeper.domain.errors import DmError
from beamkeeper.domain.problems import ProblemKind
from beamkeeper.domain.storage import AreaCheck, StorageArea
from beamkeeper.engine.problems import Tell, about
from beamkeeper.engine.scene import Scene
from beamkeeper.engine.sending import Sender
from beamkeeper.engine.worker import Loop, Report

TRIAL_FILES = 8
LONGEST_PAUSE_S = 30.0
HIGH_WATER = 0.01
"""A full area goes on when this part of it is free, and what it could not take would fit."""

MOST_HIGH_WATER = 10 * 10**9
"""And no more than so many bytes need to be free, however large the area and the batch are."""


class Destinations(Loop):
    """Pauses storage areas, and lets them go on; its other methods are the workers'."""

    quiet_s = 4.0

    def __init__(
        self,
        database: Database[AcquisitionTransaction],
        client: Client,
        sender: Sender,
        *,
        wake_workers: Callable[[], None],
        report: Report,
        tell: Tell,
    ) -> None:
        super().__init__("destinations", report=report, idle_s=0.5)
        self._database = database
        self._client = client
        self._sender = sender
        self._wake_workers = wake_workers
        self._tell = tell
        self._is_first = True
        self.claiming = Lock()
        """Held by the worker that claims a batch: all are woken at once, and what one takes the others need not try."""
        self._paused: frozenset[UUID] = frozenset()
        """What was paused when a batch was last claimed: what is paused later fails after that batch was begun."""

    # What workers ask and say.

    def claim(self, tx: AcquisitionTransaction, owner: UUID, *, files: int, size: int) -> Batch | None:
        """Take a batch for an area that works, or a small one to see whether another works again."""
        pauses = tx.pauses.all()
        self._paused = frozenset(pause.storage_area_uid for pause in pauses)
        silent = self._sender.silent()
        for pause in pauses:
            area_uid = pause.storage_area_uid
            if pause.is_trial and area_uid not in silent:
                batch = tx.journal.claim_for(area_uid, owner, files=min(files, TRIAL_FILES), size=size)
                if batch is not None:
                    tx.pauses.take(area_uid)
                    return batch
        return tx.journal.claim(owner, files=files, size=size, without=self._paused | silent)

    def fail(self, scene: Scene, batch: Batch, trouble: str, message: str) -> None:
        """Let files wait for a storage area, for it failed as a whole."""
        wanted = sum(file.identity.size for file in batch.files)
        with self._database.write() as tx:
            before = tx.pauses.find(scene.area.uid)
            pause = _pause(before.failures if before else 0)
            tx.pauses.begin(scene.area.uid, trouble, message, wanted_bytes=wanted, pause=pause)
        if before is None:
            self.warn(f'storage area "{scene.area.name}" is paused: {message}')
            self._tell(about(ProblemKind.DESTINATION_PAUSED, None, f'storage area "{scene.area.name}": {message}'))

    def works(self, scene: Scene, begun_at: datetime) -> None:
        """Let files wait for a storage area no more, for it has stored some that were begun after it last failed."""
        pause = self._pause_of(scene.area.uid)
        if pause is not None and pause.failed_at < begun_at:
            hit(TroublePoint.AREA_WORKS)
            with self._database.write() as tx:
                tx.pauses.end(scene.area.uid)
            self.warn(f'storage area "{scene.area.name}" takes files again')
            self._wake_workers()

    def undecided(self, scene: Scene, begun_at: datetime) -> None:
        """Let another batch through where one that was has shown nothing, neither that the area works nor that not."""
        pause = self._pause_of(scene.area.uid)
        if pause is not None and pause.failed_at < begun_at:
            with self._database.write() as tx:
                tx.pauses.grant(scene.area.uid)

    def _pause_of(self, area_uid: UUID) -> Pause | None:
        if area_uid not in self._paused:
            return None
        with self._database.read() as tx:
            return tx.pauses.find(area_uid)

    # What looks after them.

    def step(self) -> bool:
        """Look at the areas whose time has come; first of all at every one, for who tried them last may be dead."""
        if self._is_first:
            with self._database.write() as tx:
                tx.pauses.look_now()
            self._is_first = False
        with self._database.read() as tx:
            due = [(pause, tx.storage.get(pause.storage_area_uid)) for pause in tx.pauses.due()]
        for pause, area in due:
            self._look_at(pause, area)
        return False

    def _look_at(self, pause: Pause, area: StorageArea) -> None:
        why_not = self._why_not(pause, area)
        with self._database.write() as tx:
            if why_not:
                tx.pauses.wait(area.uid, why_not, until=tx.now + _pause(pause.failures))
            else:
                tx.pauses.grant(area.uid)
        if not why_not:
            self._wake_workers()

    def _why_not(self, pause: Pause, area: StorageArea) -> str:
        """Return why an area need not be tried yet; empty where it may well work again."""
        if area.uid in self._sender.silent():
            return pause.message
        try:
            check: AreaCheck = self._client.storage_areas.check(area.name)
        except DmError as error:
            return error.message
        if not check.is_ok:
            return check.message
        free, total = check.free_bytes, check.total_bytes
        if pause.trouble == "full" and free is not None and total is not None:
            needed = min(MOST_HIGH_WATER, max(pause.wanted_bytes, int(HIGH_WATER * total)))
            if free < needed:
                return f"{area.path} has {free} bytes free, and goes on with {needed}"
        return ""


def _pause(failures: int) -> timedelta:
    """Return how long to leave an area alone: twice as long each time, and not all stations at once."""
    return timedelta(seconds=min(LONGEST_PAUSE_S, 2.0 ** min(failures, 10)) * random.uniform(0.5, 1.0))
