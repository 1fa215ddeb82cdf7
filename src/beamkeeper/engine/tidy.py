"""Removes the staging directories that are left over: of workers that died or lost their lease in the middle."""

from __future__ import annotations

from collections.abc import Callable

from beamkeeper.client import Client
from beamkeeper.config.failpoints import TroublePoint, hit
from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.db.base import new_uid
from beamkeeper.db.stagings import Staging
from beamkeeper.domain.errors import DmError, NotFoundError
from beamkeeper.domain.storage import Discard, NewDiscard, TaskState
from beamkeeper.engine.scene import Scene
from beamkeeper.engine.worker import Loop, Report
from beamkeeper.plugins.api import Discarding, Transfer

IDLE_S = 5.0
AGAIN_S = 60.0
"""A place that cannot be reached is asked again after this long."""


class TidyLoop(Loop):
    """Discards what nobody will publish. In a thread of its own: a place that hangs must hold up nobody's beat."""

    def __init__(
        self,
        database: Database[AcquisitionTransaction],
        client: Client,
        transfer: Callable[[str], Transfer],
        *,
        report: Report,
    ) -> None:
        super().__init__("tidy", report=report, idle_s=IDLE_S)
        self._database = database
        self._client = client
        self._transfer = transfer

    def step(self) -> bool:
        """Discard some; a staging directory is forgotten when it is gone."""
        with self._database.read() as tx:
            found = [(staging, self._scene(tx, staging)) for staging in tx.stagings.left_over()]
        self._idle_s = IDLE_S
        for staging, scene in found:
            if self.is_stopping:
                break
            if scene is None or self._is_discarded(staging, scene):
                hit(TroublePoint.STAGING_DISCARDED)
                with self._database.write() as tx:
                    tx.stagings.forget(staging.batch_uid)
        return False

    def _scene(self, tx: AcquisitionTransaction, staging: Staging) -> Scene | None:
        try:
            return Scene.of(tx, staging.acquisition_uid)
        except NotFoundError:
            return None  # its experiment or area is known no more, and so is the place

    def _is_discarded(self, staging: Staging, scene: Scene) -> bool:
        try:
            transfer = self._transfer(scene.area.transfer)
            if isinstance(transfer, Discarding):
                transfer.discard(scene.staging(staging.batch_uid))
                return True
            return self._is_removed(staging, scene)
        except DmError as error:
            self.failed(error)  # a leftover takes space, and no more
            self._idle_s = AGAIN_S
            return False

    def _is_removed(self, staging: Staging, scene: Scene) -> bool:
        """Have the storage remove one; what takes it long is asked for again."""
        new = NewDiscard(uid=new_uid(), experiment_uid=scene.experiment.uid, batch_uid=staging.batch_uid)
        found: Discard = self._client.discards.run(new)
        return found.state is TaskState.DONE
