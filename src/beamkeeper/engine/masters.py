"""Master files, such as Eiger's: a dataset is complete when every file that its master links to is catalogued.

What a master links to is read by the processor `metadata` as the file passes; from then on this loop looks in the
catalogue for what is missing, and writes into the master's own metadata what it found. Its state is in the database.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from pydantic import JsonValue

from beamkeeper.client import Client
from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.db.masters import Links, Master
from beamkeeper.domain.errors import DmError, UnavailableError
from beamkeeper.domain.files import File
from beamkeeper.domain.masters import EXTERNAL_FILES, EXTERNAL_FILES_UNREAD, MISSING_TOLD
from beamkeeper.domain.names import show_path
from beamkeeper.engine.scene import Scene
from beamkeeper.engine.worker import Loop, Report
from beamkeeper.plugins.api import StoredFile

DATASET = "dataset"
"""The key of a master file's metadata that says whether its dataset is complete."""

AT_ONCE = 100
SHORTEST_PAUSE, LONGEST_PAUSE = timedelta(seconds=5), timedelta(hours=6)


class MastersLoop(Loop):
    """Looks after master files whose linked files are not all there yet."""

    quiet_s = 4.0

    def __init__(self, database: Database[AcquisitionTransaction], client: Client, *, report: Report) -> None:
        super().__init__("masters", report=report, idle_s=1.0)
        self._database = database
        self._client = client
        self._lock = threading.Lock()
        self._stirred: set[UUID] = set()

    def note(self, scene: Scene, files: Sequence[StoredFile | None]) -> None:
        """Write down which of these files link to others; to be called before they are told to be available."""
        found = [links for file in files if file is not None and (links := links_of(file, scene)) is not None]
        if found:
            with self._database.write() as tx:
                tx.masters.add(scene.acquisition.uid, scene.experiment.uid, found)
            self.wake()

    def stir(self, experiment_uid: UUID) -> None:
        """Say that files of an experiment have arrived: some may have been missing. Costs nothing."""
        with self._lock:
            self._stirred.add(experiment_uid)

    def step(self) -> bool:
        """Look after those that are due."""
        with self._lock:
            stirred, self._stirred = self._stirred, set()
        with self._database.read() as tx:
            wanting = tx.masters.are_wanting(stirred) if stirred else []
        if wanting:
            with self._database.write() as tx:
                for uid in wanting:
                    tx.masters.stir(uid)
        with self._database.read() as tx:
            due = tx.masters.due(AT_ONCE)
        for master in due:
            if self.is_stopping:
                return False
            self._look_after(master)
        return len(due) == AT_ONCE

    def _look_after(self, master: Master) -> None:
        try:
            missing, is_told = self._find(master)
        except UnavailableError:
            raise
        except DmError as error:  # of this one alone, such as of an experiment that is gone
            self.failed(error)
            missing, is_told = list(master.missing), master.is_told
        with self._database.write() as tx:
            is_over = is_told and not missing
            next_at = None if is_over else tx.now + pause_after(master, tx.now)
            tx.masters.settle(master, missing=missing, is_told=is_told, next_at=next_at)

    def _find(self, master: Master) -> tuple[list[bytes], bool]:
        """Return what is missing now, and whether the master's metadata say so."""
        wanted = [master.path, *master.missing]
        there = {
            bytes(file.relpath): file
            for file in self._client.files.lookup(master.experiment_uid, filter(_is_within, wanted))
            if file.deleted_at is None
        }
        missing = [path for path in master.missing if path not in there]
        own = there.get(master.path)
        if own is None or own.version_uid != master.version_uid:
            return missing, False  # not catalogued yet, or a newer version is about to take its place
        if not master.is_told or len(missing) != len(master.missing):
            self._tell_catalogue(own, master, missing)
        return missing, True

    def _tell_catalogue(self, own: File, master: Master, missing: Sequence[bytes]) -> None:
        before = own.metadata.get(DATASET)
        if before is not None and not (isinstance(before, dict) and "complete" in before):
            return  # somebody's own word of the same name, which is not ours to replace
        named: list[JsonValue] = [show_path(path) for path in missing[:MISSING_TOLD]]
        count = len(missing) + master.unread
        said: dict[str, JsonValue] = {"complete": count == 0, "linked": master.linked, "missing": named}
        said["missing_count"] = count
        if before != said:
            self._client.files.set_metadata(own.uid, {DATASET: said})


def pause_after(master: Master, now: datetime) -> timedelta:
    """Return when to look again: soon while a series arrives, seldom for what may never come."""
    return min(LONGEST_PAUSE, max(SHORTEST_PAUSE, (now - master.created_at) / 10))


def links_of(file: StoredFile, scene: Scene) -> Links | None:
    """Return what a file links to, as paths below the experiment; None where it links to nothing.

    HDF5 looks for a linked file beside the master; an absolute name that lies in the watched directory is the file
    that was taken from there. One that lies elsewhere, or above the experiment, can only be missing.
    """
    names = file.new.metadata.get(EXTERNAL_FILES)
    if not isinstance(names, list) or not names:
        return None
    own = bytes(file.new.relpath)
    linked = dict.fromkeys(_resolved(str(name), own, scene) for name in names)
    linked.pop(own, None)
    unread = file.new.metadata.get(EXTERNAL_FILES_UNREAD, 0)
    count = unread if isinstance(unread, int) else 0
    return Links(own, file.new.version_uid, list(linked), count) if linked or count else None


def _resolved(name: str, own: bytes, scene: Scene) -> bytes:
    raw = name.encode("utf-8", "surrogateescape")
    source = b"/" + scene.acquisition.relpath + b"/"
    if raw.startswith(source):
        top = [str(scene.acquisition.tree).encode(), scene.acquisition.destination.encode()]
        raw = b"/".join([*(part for part in top if part), raw[len(source) :]])
    elif not raw.startswith(b"/"):
        raw = own.rpartition(b"/")[0] + b"/" + raw
    return os.path.normpath(raw)


def _is_within(path: bytes) -> bool:
    return not path.startswith((b"/", b"../")) and path != b".."
