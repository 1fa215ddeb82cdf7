"""The sync loop: brings identities from the storage service to this service's own small copy."""

from __future__ import annotations

import time

from beamkeeper.client import Client
from beamkeeper.core import users as core
from beamkeeper.db import Database, Transaction
from beamkeeper.domain.errors import UnavailableError
from beamkeeper.engine.worker import Loop, Report

WAIT_S = 5.0
"""How long one question stays open while nothing changes: its answer shows that the site can be reached."""

SWARM_S, REST_S = 0.5, 0.2
"""Changes that come closer together than this are taken over together, after a rest: jobs begin and end sessions, and
each question and its answer cost every service of a station more than the change itself."""


class MirrorLoop(Loop):
    """Asks the storage service what changed, waits for it there, and applies it here in one transaction."""

    def __init__(self, database: Database[Transaction], client: Client, *, report: Report) -> None:
        super().__init__("mirror", report=report, idle_s=0.0)
        self._database = database
        self._client = client
        self._heard_at = time.monotonic()
        self._changed_at = self._heard_at - SWARM_S
        self._is_known_down = False

    @property
    def behind_s(self) -> float:
        """How long ago the storage service was last heard of, in seconds."""
        return time.monotonic() - self._heard_at

    def step(self) -> bool:
        """Take one answer over."""
        with self._database.read() as tx:
            state = core.mirror_state(tx)
        mirror = self._client.mirror.after(state, wait_s=WAIT_S)
        self._heard_at = time.monotonic()
        with self._database.write() as tx:
            core.apply_mirror(tx, mirror)  # without news too: it keeps when the site was last heard of
        if state is None or mirror.number != state.number or mirror.epoch != state.epoch:
            self._database.tell()
            is_swarm = self._heard_at - self._changed_at < SWARM_S
            self._changed_at = self._heard_at
            if is_swarm:
                self._stopping.wait(REST_S)
        return True

    def failed(self, error: Exception) -> None:
        """Report; a storage service that is down says so once, not with each try."""
        if isinstance(error, UnavailableError) and self.behind_s < 4 * WAIT_S:
            return
        super().failed(error)
