"""The loop that carries a station's catalogue to the site's: reads what changed, sends it, goes on where it was."""

from __future__ import annotations

import time

from beamkeeper.client import Client
from beamkeeper.config.failpoints import CopyPoint, hit
from beamkeeper.core import replication as core
from beamkeeper.core import users as core_users
from beamkeeper.db import CatalogTransaction, Database
from beamkeeper.domain.errors import ConflictError, DmError, TooLargeError
from beamkeeper.domain.replication import Kind, NewChanges, Position
from beamkeeper.engine.worker import Loop, Report

HEARTBEAT_S = 5.0
"""The site hears of a station that often while nothing changes, and so knows that it is not behind."""

FORGET_S = 60.0
"""A catalogue that is followed by none throws its list of changes away that often."""


class ReplicateLoop(Loop):
    """Sends what changed in batches, each from the position that the site keeps; all connections are its own."""

    def __init__(self, database: Database[CatalogTransaction], client: Client, *, report: Report) -> None:
        super().__init__("replicate", report=report)
        self._database = database
        self._client = client
        self._positions: dict[Kind, Position] | None = None
        self._told_at: dict[Kind, float] = {}
        self._is_cut_off = False
        self._message = ""
        self._limit = core.BATCH
        self._deaf = database.listen(self.wake)

    def step(self) -> bool:
        """Send one batch of the first kind that has any."""
        try:
            if self._positions is None:
                self._positions = dict(self._client.replication.positions().positions)
            return any(self._send(kind) for kind in core.KINDS)
        except ConflictError:
            self._positions = None  # an answer was lost, or a process before this one went on: ask where it stands
            raise
        except TooLargeError:
            self._limit = max(1, self._limit // 4)
            raise

    def _send(self, kind: Kind) -> bool:
        positions = self._positions or {}
        with self._database.read() as tx:
            changes = core.next_changes(tx, kind, positions.get(kind), limit=self._limit)
            self._client.credentials.mirror = str(core_users.mirror_cursor(tx))  # what the site must know first
            if changes is not None and changes.documents and core.is_preceded(tx, kind, positions):
                return True  # what these refer to came meanwhile: once more from the beginning
        if changes is None or (changes.is_idle and not self._is_heartbeat_due(kind)):
            return False
        hit(CopyPoint.COPY_SENDING)
        taken = self._client.replication.send(changes)
        hit(CopyPoint.COPY_TAKEN)
        for refusal in taken.refused:
            self._message = f"the site refused a document: {refusal.message}"
            self.warn(self._message)
        self._note(kind, taken.position, changes)
        return not changes.is_idle

    def _is_heartbeat_due(self, kind: Kind) -> bool:
        return self._is_cut_off or time.monotonic() - self._told_at.get(kind, float("-inf")) >= HEARTBEAT_S

    def _note(self, kind: Kind, position: Position, changes: NewChanges) -> None:
        self._positions = {**(self._positions or {}), kind: position}
        self._told_at[kind] = time.monotonic()
        self._is_cut_off = False
        self._limit = min(core.BATCH, self._limit + 1)
        with self._database.write() as tx:
            core.note_taken(tx, self._positions, self._message)

    def failed(self, error: Exception) -> None:
        """Keep since when the site takes nothing; an outage says so once, not with each try."""
        is_news, self._is_cut_off = not self._is_cut_off, True
        if isinstance(error, ConflictError) and is_news:
            return
        self._positions = None
        message = error.message if isinstance(error, DmError) else f"{type(error).__name__}: {error}"
        with self._database.write() as tx:
            core.note_cut_off(tx, message)
        if is_news:
            super().failed(error)

    def ended(self) -> None:
        """Hear of no more news."""
        self._deaf()


class ForgetLoop(Loop):
    """At a catalogue that nobody follows: throws its list of changes away."""

    def __init__(self, database: Database[CatalogTransaction], *, report: Report) -> None:
        super().__init__("forget", report=report, idle_s=FORGET_S)
        self._database = database

    def step(self) -> bool:
        """Throw it away."""
        with self._database.write() as tx:
            core.forget(tx)
        return False
