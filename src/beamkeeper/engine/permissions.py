"""Walks through the rights of files: those that people ask for, and those that give files to a group that is new."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from beamkeeper.core import audit_log
from beamkeeper.db import Database, StorageTransaction
from beamkeeper.db.base import new_uid
from beamkeeper.db.news import Topic
from beamkeeper.db.permissions import WalkInHand
from beamkeeper.domain.audit_log import NewAuditEntry
from beamkeeper.domain.errors import DestinationError, DmError
from beamkeeper.domain.file_rights import Way
from beamkeeper.domain.names import Metadata, Uid, from_b64, to_b64
from beamkeeper.domain.permissions import MOST_FAULTS, NewPermissionWalk, PermissionFault, WalkMode, WalkState
from beamkeeper.domain.storage import StorageArea
from beamkeeper.engine.beneath import Beneath
from beamkeeper.engine.groups import OURSELVES
from beamkeeper.engine.permission_walk import Examiner, own_directories, paths_after, rights_of
from beamkeeper.engine.worker import Loop, Report

IDLE_S = 5.0
SLICE_S = 0.2
"""So long a walk goes on before another one's turn comes."""

SAVE_S = 1.0
AT_ONCE = 8
"""So many walks are under way in one storage area, in turns."""

PATIENCE = timedelta(minutes=1)
"""So long a walk waits for batches that were begun before the trees had their rights."""


class PermissionLoop(Loop):
    """Goes on with the walks of one storage area, each in its turn."""

    rest_s = 0.05

    def __init__(self, database: Database[StorageTransaction], area: StorageArea, *, report: Report) -> None:
        super().__init__(f"permissions in {area.name}", report=report, idle_s=IDLE_S)
        self._database = database
        self._area = area
        self._walkers: dict[Uid, Walker] = {}
        self._unlisten = database.listen(self.wake, Topic.WALKS)

    def step(self) -> bool:
        """Let every walk go on for a moment."""
        with self._database.read() as tx:
            new = tx.permissions.with_new_groups(self._area.uid, by=OURSELVES, limit=AT_ONCE)
        if new:
            with self._database.write() as tx:
                for uid in new:
                    repair = NewPermissionWalk(uid=new_uid(), mode=WalkMode.REPAIR)
                    tx.permissions.add(uid, repair, by=OURSELVES)
        with self._database.read() as tx:
            walks = tx.permissions.active(self._area.uid, limit=AT_ONCE)
        is_going = False
        for walk in walks:
            if self.is_stopping:
                break
            is_going |= self._go_on(walk)
        return is_going

    def _go_on(self, walk: WalkInHand) -> bool:
        """Let one walk go on; tell whether it comes on."""
        if walk.is_stop_requested:
            self._end(walk, WalkState.STOPPED, "it was stopped")
            return True
        try:
            walker = self._walkers.get(walk.uid)
            if walker is None:
                walker = self._walkers[walk.uid] = Walker(walk, Path(self._area.path) / walk.directory)
            if walker.is_among_trees and self._is_waiting(walk, walker):
                return False
            began = time.monotonic()
            most = int(walk.rate * SLICE_S) or 1
            is_end = walker.go(most)
            if is_end or walker.is_to_be_saved:
                self._save(walk, walker)
            if is_end:
                self._finish(walk, walker)
            else:
                self._stopping.wait(max(0.0, most / walk.rate - (time.monotonic() - began)))
        except (OSError, DmError) as error:
            why = error.message if isinstance(error, DmError) else f"{walk.directory}: {error.strerror or error}"
            self._end(walk, WalkState.FAILED, why)
            self.warn(f"walk {walk.uid} has failed: {why}")
        return True

    def _is_waiting(self, walk: WalkInHand, walker: Walker) -> bool:
        """Whether batches are being published whose files may have the rights of before."""
        if walk.mode is WalkMode.CHECK or not walker.is_first_here:
            return False
        with self._database.read() as tx:
            is_waiting = tx.now < walker.began + PATIENCE and tx.permissions.is_publishing(
                walk.experiment_uid, before=walker.began
            )
        walker.is_first_here = is_waiting
        return is_waiting

    def _save(self, walk: WalkInHand, walker: Walker) -> None:
        with self._database.write() as tx:
            tx.permissions.progress(walk.uid, walker.place, walker.counts, walker.faults)
        walker.saved_at = time.monotonic()
        self._database.tell(Topic.WALKS)

    def _finish(self, walk: WalkInHand, walker: Walker) -> None:
        with self._database.write() as tx:
            if walk.mode is WalkMode.REPAIR and walker.rights.gid is not None:
                tx.permissions.given(walk.experiment_uid, walker.rights.gid)
            if walk.mode is WalkMode.REPAIR:
                _note(tx, walk, walker)
        message = ""
        if walker.rights.way is Way.UNKNOWN and walker.rights.gid is not None:
            message = "the group gets no rights here: `dm storage check` says why"
        self._end(walk, WalkState.DONE, message)

    def _end(self, walk: WalkInHand, state: WalkState, message: str) -> None:
        with self._database.write() as tx:
            tx.permissions.end(walk.uid, state, message)
        self._database.tell(Topic.WALKS)
        if (walker := self._walkers.pop(walk.uid, None)) is not None:
            walker.close()

    def ended(self) -> None:
        """Give back what the walks hold; where they are is in the database."""
        self._unlisten()
        for walker in self._walkers.values():
            walker.close()


class Walker:
    """One walk as it goes: what an experiment begins with first, then its trees."""

    def __init__(self, walk: WalkInHand, root: Path) -> None:
        try:
            self._beneath = Beneath(root)
        except FileNotFoundError as error:
            raise DestinationError(f"the experiment's directory {root} is not there: is it mounted?") from error
        self.rights = rights_of(self._beneath, walk.gid)
        self._examiner = Examiner(self._beneath, self.rights, is_repair=walk.mode is WalkMode.REPAIR)
        # What was looked at for another group is looked at again: half of the files would stay with that one.
        is_resumed = bool(walk.place) and walk.counts.get("gid") == walk.gid
        at = json.loads(walk.place) if is_resumed else {}
        self._after = from_b64(at["after"]) if at else b""
        self.began = datetime.fromisoformat(at["began"]) if at else walk.created_at
        self.faults: list[PermissionFault] = list(walk.faults) if is_resumed else []
        counts = walk.counts if is_resumed else {}
        self._numbers = {name: int(str(counts.get(name, 0))) for name in ("entries", "differing", "repaired")}
        self._paths = paths_after(self._beneath, self._after)
        self.is_among_trees, self.is_first_here = bool(at), True
        self._own = [] if at else list(own_directories())
        self.saved_at = time.monotonic()

    @property
    def place(self) -> str:
        """Where to go on after a restart; empty before the trees."""
        at = {"after": to_b64(self._after), "began": self.began.isoformat()}
        return json.dumps(at) if self.is_among_trees else ""

    @property
    def counts(self) -> Metadata:
        """How far it is, and how."""
        return {**self._numbers, "way": str(self.rights.way), "gid": self.rights.gid}

    @property
    def is_to_be_saved(self) -> bool:
        """Whether how far it is was not written for a while."""
        return time.monotonic() - self.saved_at > SAVE_S

    def go(self, most: int) -> bool:
        """Look at so many at most; tell whether it has come to its end."""
        if not self.is_among_trees:
            for path in self._own:
                self._look(path)
            self.is_among_trees, self.began = True, datetime.now(UTC)
            return False
        for _ in range(most):
            found = next(self._paths, None)
            if found is None:
                return True
            self._look(found)
            self._after = found
        return False

    def close(self) -> None:
        """Give back what it holds open."""
        self._beneath.close()

    def _look(self, path: bytes) -> None:
        fault = self._examiner.look(path)
        self._numbers["entries"] += 1
        if fault is not None:
            self._numbers["differing"] += 1
            self._numbers["repaired"] += fault.is_repaired
            if len(self.faults) < MOST_FAULTS:
                self.faults.append(fault)


def _note(tx: StorageTransaction, walk: WalkInHand, walker: Walker) -> None:
    """Record what was repaired: whoever asked is named."""
    counts = walker.counts
    audit_log.note(
        tx,
        NewAuditEntry(
            username=walk.asked_by,
            action="REPAIR PERMISSIONS",
            target={"uid": str(walk.experiment_uid), "gid": str(walker.rights.gid), "way": str(walker.rights.way)},
            message=f"{counts['entries']} looked at, {counts['differing']} differed, {counts['repaired']} repaired",
        ),
    )
