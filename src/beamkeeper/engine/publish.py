"""Publishing, run where the storage is: verify what is stored, set rights, make it durable, rename.

A batch shares its durability barriers: all bytes, then all new names, then one transaction (DESIGN 4). Every
step may be taken again after a crash: what a first try has renamed already is found by its digest and adopted.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from beamkeeper.config.failpoints import FailPoint, hit
from beamkeeper.db import Database, StorageTransaction
from beamkeeper.db.publishes import Work
from beamkeeper.domain.errors import DestinationError
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.files import ReadFrom
from beamkeeper.domain.names import Checksum, from_b64, show_path
from beamkeeper.domain.storage import STAGING, VERSIONS, NewPublishItem, Outcome
from beamkeeper.engine.beneath import Beneath, is_regular
from beamkeeper.engine.readback import ReadBack, Reader, strongest
from beamkeeper.engine.worker import Loop, Report

MANY_FILES = 16
"""From this many files on, one syncfs is cheaper than an fsync for each."""

DIRECTORY_MODE = {Tree.DATA: 0o2750, Tree.ANALYSIS: 0o2770}
FILE_MODE = {Tree.DATA: 0o440, Tree.ANALYSIS: 0o660}
"""`data/` is ours: nobody writes into a published version. `analysis/` is people's."""

WHOLE_DESTINATION = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV})
"""Faults of the place, not of the file: the batch waits, and nothing is settled."""

NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})

Settled = tuple[Outcome, str, ReadFrom | None]


class PublishLoop(Loop):
    """Takes the batch that has waited longest, and publishes it."""

    def __init__(self, database: Database[StorageTransaction], *, report: Report) -> None:
        super().__init__("publish", report=report, idle_s=1.0)
        self._database = database
        self._reader = Reader()
        self._unsynced: set[UUID] = set()
        self._unlisten = database.listen(self.wake)

    def step(self) -> bool:
        """Publish one batch."""
        with self._database.read() as tx:
            work = tx.publishes.pending()
            root = self._root(tx, work) if work else None
        if work is None or root is None:
            return False
        hit(FailPoint.PUBLISH_TAKEN)
        try:
            settled = self._publish(work, root)
        except (OSError, DestinationError) as error:
            why = error.message if isinstance(error, DestinationError) else f"{root}: {error.strerror or error}"
            with self._database.write() as tx:
                pause = timedelta(seconds=min(30, 2**work.attempts))
                tx.publishes.pause(work, until=datetime.now(UTC) + pause)
            raise DestinationError(f"batch {work.uid} waits, the storage area fails as a whole: {why}") from error
        hit(FailPoint.PUBLISH_SETTLING)
        with self._database.write() as tx:
            tx.publishes.settle(settled)
            hit(FailPoint.PUBLISH_SETTLED)
            tx.publishes.end(work)
        self._database.tell()
        return True

    def _root(self, tx: StorageTransaction, work: Work) -> Path:
        experiment = tx.experiments.get(work.experiment_uid)
        area = tx.storage.get(experiment.storage_area_uid)
        return Path(area.path) / experiment.directory

    def _publish(self, work: Work, root: Path) -> dict[int, Settled]:
        open_items = [(id_, item) for id_, item, outcome in work.items if outcome is Outcome.PENDING]
        try:
            beneath = Beneath(root)
        except FileNotFoundError as error:
            raise DestinationError(
                f"the experiment's directory {root} is not there: is the storage mounted?"
            ) from error
        with beneath:
            batch = _Batch(beneath, f"{STAGING}/{work.uid}".encode(), self._reader)
            self._make_durable(work, batch, [item for _, item in open_items])
            hit(FailPoint.PUBLISH_SYNCED)
            batch.read_back([item for _, item in open_items])
            hit(FailPoint.PUBLISH_READ)
            settled = {id_: batch.publish_one(item) for id_, item in open_items}
            hit(FailPoint.PUBLISH_RENAMED)
            batch.sync_names()
            hit(FailPoint.PUBLISH_DURABLE)
            beneath.remove_tree(batch.staging)
        return settled

    def _make_durable(self, work: Work, batch: _Batch, items: list[NewPublishItem]) -> None:
        """Bring the bytes to the disk; where that fails they are thrown away, and sent again as missing.

        The kernel drops what it could not write and forgets that it failed: a second sync would say that all is
        well (the third did, measured).
        """
        if work.uid in self._unsynced:
            batch.beneath.remove_tree(batch.staging)
            self._unsynced.discard(work.uid)
        try:
            batch.make_durable(items)
        except OSError:
            self._unsynced.add(work.uid)
            raise

    def ended(self) -> None:
        """Listen no more."""
        self._unlisten()
        self._reader.close()


@dataclass
class _Batch:
    """The steps of one batch below an experiment's directory."""

    beneath: Beneath
    staging: bytes
    reader: Reader
    touched: set[bytes] = field(default_factory=set)
    found: dict[bytes, ReadBack] = field(default_factory=dict)

    def make_durable(self, items: list[NewPublishItem]) -> None:
        """Bring the staged bytes to the disk. A failure here is never answered by a second try on the same file."""
        staged = [item for item in items if item.link_target_b64 is None]
        if len(staged) >= MANY_FILES:
            self.beneath.sync_all()
            return
        for item in staged:
            with suppress(FileNotFoundError, NotADirectoryError):
                descriptor = self.beneath.open(self.staging + b"/" + item.relpath)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def read_back(self, items: list[NewPublishItem]) -> None:
        """Read every staged file back, all together."""
        wanted = [
            (self.staging + b"/" + item.relpath, strongest(item.checksums).algorithm)
            for item in items
            if item.link_target_b64 is None
        ]
        for path, found in self.reader.read(wanted, self.beneath.open):
            if isinstance(found, ReadBack):
                self.found[path] = found
            elif found.errno not in NOT_THERE:
                raise found

    def publish_one(self, item: NewPublishItem) -> Settled:
        """Verify one file and give it its plain name; a fault of its own settles it, one of the place is raised."""
        try:
            return self._publish_link(item) if item.link_target_b64 is not None else self._publish_file(item)
        except OSError as error:
            if error.errno in WHOLE_DESTINATION:
                raise
            where = show_path(item.relpath)
            return Outcome.FAILED, f'"{where}" cannot be stored: {error.strerror or error}', None

    def _publish_file(self, item: NewPublishItem) -> Settled:
        staged = self.staging + b"/" + item.relpath
        checksum = strongest(item.checksums)
        found = self.found.get(staged)
        if found is None:
            return self._adopt(item, checksum)
        if found.value != checksum.value or found.size != item.size:
            if self._is_half_exchanged(item, found.value, checksum):
                self._keep_old(staged, item)
                return Outcome.STORED, "", found.read_from
            self.beneath.unlink(staged)
            why = f'"{show_path(item.relpath)}" has other bytes in storage than were sent'
            return Outcome.DAMAGED, why, found.read_from
        tree = Tree(item.relpath.split(b"/", 1)[0].decode())
        self._set_mode(staged, FILE_MODE[tree])
        self._make_parents(item.relpath, DIRECTORY_MODE[tree])
        return self._name(staged, item, checksum, found.read_from)

    def _name(self, staged: bytes, item: NewPublishItem, checksum: Checksum, read_from: ReadFrom) -> Settled:
        plain = bytes(item.relpath)
        hit(FailPoint.PUBLISH_RENAMING)
        try:
            self.beneath.rename(staged, plain)
        except FileExistsError:
            present = self._digest_at(plain, checksum)
            if present == checksum.value:
                self.beneath.unlink(staged)
                return Outcome.STORED, "", read_from
            if item.replaces is None or self._digest_at(plain, item.replaces.checksum) != item.replaces.checksum.value:
                self.beneath.unlink(staged)
                why = f'"{show_path(plain)}" holds bytes that the catalogue does not know: they are left as they are'
                return Outcome.CONFLICT, why, None
            self._exchange(staged, plain)
            hit(FailPoint.PUBLISH_EXCHANGED)
            self._keep_old(staged, item)
        self._touch(plain)
        return Outcome.STORED, "", read_from

    def _exchange(self, staged: bytes, plain: bytes) -> None:
        try:
            self.beneath.rename(staged, plain, is_exchange=True)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            # No exchange on this file system: give the old bytes a second name first, then rename over.
            aside = staged + b".old"
            self.beneath.unlink(aside)
            self.beneath.link(plain, aside)
            self.beneath.replace(staged, plain)
            self.beneath.rename(aside, staged)
        self._touch(plain)

    def _keep_old(self, staged: bytes, item: NewPublishItem) -> None:
        """Move the version that was exchanged out to where older versions are."""
        if item.replaces is None:
            return
        kept = f"{VERSIONS}/".encode() + item.relpath + f"/{item.replaces.number}".encode()
        self.beneath.directory(kept.rpartition(b"/")[0], mode=0o700)
        try:
            self.beneath.rename(staged, kept)
        except FileExistsError:
            self.beneath.unlink(staged)
        self._touch(kept)

    def _is_half_exchanged(self, item: NewPublishItem, staged_value: str, checksum: Checksum) -> bool:
        """Whether a crash came between exchanging a new version in and moving the old one away."""
        replaces = item.replaces
        if replaces is None or replaces.checksum.algorithm is not checksum.algorithm:
            return False
        return (
            staged_value == replaces.checksum.value and self._digest_at(bytes(item.relpath), checksum) == checksum.value
        )

    def _adopt(self, item: NewPublishItem, checksum: Checksum) -> Settled:
        """Settle a file that is not staged: an earlier try may have published it."""
        plain = bytes(item.relpath)
        for _, found in self.reader.read([(plain, checksum.algorithm)], self.beneath.open):
            if isinstance(found, ReadBack) and found.value == checksum.value and found.size == item.size:
                self._touch(plain)
                return Outcome.STORED, "", found.read_from
        return Outcome.MISSING, f'"{show_path(plain)}" is not in its staging directory', None

    def _publish_link(self, item: NewPublishItem) -> Settled:
        plain, target = bytes(item.relpath), from_b64(item.link_target_b64 or "")
        self._make_parents(item.relpath, DIRECTORY_MODE[Tree(plain.split(b"/", 1)[0].decode())])
        present = self.beneath.lstat(plain)
        if present is not None:
            try:
                is_same = self.beneath.readlink(plain) == target
            except OSError:
                is_same = False
            if not is_same and (item.replaces is None or is_regular(present)):
                return Outcome.CONFLICT, f'"{show_path(plain)}" is there and is not this link', None
            if not is_same:
                self.beneath.unlink(plain)
        if present is None or not is_same:
            self.beneath.symlink(target, plain)
        self._touch(plain)
        return Outcome.STORED, "", ReadFrom.CACHE

    def _digest_at(self, path: bytes, checksum: Checksum) -> str:
        """Return the digest of what stands at a path; empty where that is no plain file."""
        for _, found in self.reader.read([(path, checksum.algorithm)], self.beneath.open):
            if isinstance(found, ReadBack):
                return found.value
            if found.errno not in NOT_THERE:
                raise found
        return ""

    def _set_mode(self, path: bytes, mode: int) -> None:
        descriptor = self.beneath.open(path)
        try:
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)

    def _make_parents(self, path: bytes, mode: int) -> None:
        self.beneath.directory(path.rpartition(b"/")[0], mode=mode)

    def _touch(self, path: bytes) -> None:
        self.touched.add(path.rpartition(b"/")[0])

    def sync_names(self) -> None:
        """Make every new name durable: of files, and of the directories that were made, from the top down."""
        made = {path.rpartition(b"/")[0] for path in self.beneath.made}
        for directory in sorted(self.touched | made):
            self.beneath.sync(directory)
