"""One batch of copies: its bytes brought to the staging directory of another storage area, verified and named."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from beamkeeper.config.failpoints import ReplicaPoint, hit
from beamkeeper.db.publishes import Settled, Work
from beamkeeper.domain.errors import DestinationError
from beamkeeper.domain.files import Verify
from beamkeeper.domain.names import from_b64, path_fields, show_path, to_b64
from beamkeeper.domain.replicas import NewCopyItem
from beamkeeper.domain.storage import STAGING, NewPublishItem, Outcome, Replaced, StorageArea, kept_path
from beamkeeper.engine.batch import NOT_THERE, StagedBatch
from beamkeeper.engine.beneath import Beneath
from beamkeeper.engine.objects import AT_ONCE, ObjectStore
from beamkeeper.engine.readback import Reader, strongest
from beamkeeper.plugins.rclone import Rclone, Refused

BLOCK = 4 * 1024 * 1024
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
MOST_HELD = 256
"""So many sources are open at once."""


class StoppedError(Exception):
    """The service stops: the batch is done again when it is up."""


class SourceError(Exception):
    """The source of one version has other bytes than it should, or none."""


Found = dict[UUID, tuple[Settled, bool]]
"""What became of versions, and whether it is their source that is at fault."""


@dataclass(frozen=True, slots=True)
class CopyBatch:
    """One batch on its way to a storage area; a fault of a place as a whole is raised, and nothing is settled."""

    uid: UUID
    experiment_uid: UUID
    directory: str
    target: StorageArea
    items: Sequence[NewCopyItem]
    rclone: Rclone
    reader: Reader
    stop: Callable[[], bool]

    def copy_from(self, source: StorageArea) -> Found:
        """Copy the versions, and return what became of each."""
        found: Found = {}
        files = [item for item in self.items if item.link_target_b64 is None]
        self._discard()  # what a try left that was cut off
        try:
            for start in range(0, len(files), MOST_HELD):
                part = files[start : start + MOST_HELD]
                stage = self._stage_objects if source.is_objects or self.target.is_objects else self._stage
                stage(source, part, found)
            hit(ReplicaPoint.REPLICA_STAGED)
            going = [item for item in self.items if item.version_uid not in found]
            found |= self._named([item for item in going if item.is_plain], is_plain=True)
            found |= self._named([item for item in going if not item.is_plain], is_plain=False)
        finally:
            self._discard()
        for item in going:
            settled, _ = found[item.version_uid]
            if settled[0] is Outcome.DAMAGED:
                found[item.version_uid] = settled, not self._is_right(source, item)
        return found

    def remove(self) -> Found:
        """Remove the versions; what is not known to be one of them is left as it is."""
        if self.target.is_objects:
            settled = self._store(self.target).remove(self.items)
        else:
            with beneath(self.target, self.directory) as here:
                batch = self._staged(here)
                settled = [_removed(batch, item) for item in self.items]
                batch.sync_names()
        return {item.version_uid: (one, False) for item, one in zip(self.items, settled, strict=True)}

    # Bringing the bytes there.

    def _stage(self, source: StorageArea, files: Sequence[NewCopyItem], found: Found) -> None:
        with beneath(source, self.directory) as here, beneath(self.target, self.directory) as there:
            staging = there.directory(self._staging, mode=0o700)
            needed, space = sum(item.size for item in files), os.fstatvfs(staging)
            free = space.f_bavail * space.f_frsize
            if needed > free:
                raise DestinationError(f"{self.target.path} has {free} bytes free of {needed} needed", code="full")
            for item in files:
                try:
                    with _opened(here, item) as opened:
                        self._stream(opened, os.open(_name(item), NEW, 0o600, dir_fd=staging), item)
                except SourceError as error:
                    found[item.version_uid] = (Outcome.MISSING, str(error), None), True

    def _stream(self, source: int, target: int, item: NewCopyItem) -> None:
        try:
            while block := self._read(source, item):
                view = memoryview(block)
                while view:
                    view = view[os.write(target, view) :]
        finally:
            os.close(target)

    def _read(self, source: int, item: NewCopyItem) -> bytes:
        if self.stop():
            raise StoppedError
        try:
            return os.read(source, BLOCK)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise SourceError(f'"{show_path(item.relpath)}" cannot be read at its source') from error

    def _stage_objects(self, source: StorageArea, files: Sequence[NewCopyItem], found: Found) -> None:
        """Have rclone bring the bytes, from or to an object store; it answers for each of them."""
        with ExitStack() as held:
            names: dict[UUID, tuple[str, str]] = {}
            for item in files:
                try:
                    names[item.version_uid] = self._source(source, item, held)
                except SourceError as error:
                    found[item.version_uid] = (Outcome.MISSING, str(error), None), True
            going = [item for item in files if item.version_uid in names]
            with ThreadPoolExecutor(AT_ONCE, "copies") as pool:
                answers = list(pool.map(lambda item: self._copy_object(item, *names[item.version_uid]), going))
        for item, refused in zip(going, answers, strict=True):
            if refused is not None:
                fault = refused.fault(f'"{show_path(item.relpath)}" to {self.target.path}')
                if not refused.is_absent:
                    raise fault from refused
                found[item.version_uid] = (Outcome.MISSING, fault.message, None), True

    def _source(self, source: StorageArea, item: NewCopyItem, held: ExitStack) -> tuple[str, str]:
        """Return where rclone finds the bytes; of a directory by a link to what is held open, whatever its name."""
        if source.is_objects:
            store = self._store(source)
            return store.place, store.key(item)
        here = held.enter_context(beneath(source, self.directory))
        opened = held.enter_context(_opened(here, item))
        farm = held.enter_context(tempfile.TemporaryDirectory(prefix="beamkeeper-copy-"))
        os.symlink(f"/proc/{os.getpid()}/fd/{opened}", f"{farm}/{_name(item)}")
        return f":local,copy_links:{farm}", _name(item)

    def _copy_object(self, item: NewCopyItem, place: str, name: str) -> Refused | None:
        if self.stop():
            raise StoppedError
        if self.target.is_objects:
            target, staged = self._store(self.target).place, f"{STAGING}/{self.uid}/{_name(item)}"
        else:
            target, staged = f"{self.target.path}/{self.directory}/{STAGING}/{self.uid}", _name(item)
        try:
            self.rclone.call("operations/copyfile", srcFs=place, srcRemote=name, dstFs=target, dstRemote=staged)
        except Refused as refused:
            return refused
        return None

    # Verifying, and giving names.

    def _named(self, items: Sequence[NewCopyItem], *, is_plain: bool) -> Found:
        asked = [_asked(item) for item in items]
        if not asked:
            return {}
        if self.target.is_objects:
            work = Work(0, self.uid, self.experiment_uid, Verify.READ_BACK, 0, asked)
            store = self._store(self.target)
            settled = store.name(work) if is_plain else store.keep(work)
        else:
            with beneath(self.target, self.directory) as there:
                batch = self._staged(there)
                batch.make_durable(asked)
                batch.look(asked)
                settled = [batch.publish_one(one) if is_plain else batch.keep_one(one) for one in asked]
                batch.sync_names()
        return {item.version_uid: (one, False) for item, one in zip(items, settled, strict=True)}

    def _is_right(self, source: StorageArea, item: NewCopyItem) -> bool:
        """Whether the source has the bytes that it should: what differs at the far side may have come from there."""
        if source.is_objects:
            return self._store(source).is_right(item)
        checksum = strongest(item.checksums)
        with beneath(source, self.directory) as here:
            for _, read in self.reader.read([(_place(here, item), checksum.algorithm)], here):
                if not isinstance(read, OSError):
                    return (read.value, read.size) == (checksum.value, item.size)
        return False

    def _discard(self) -> None:
        if self.target.is_objects:
            self._store(self.target).discard(str(self.uid))
            return
        with beneath(self.target, self.directory) as there:
            there.remove_tree(self._staging)

    @property
    def _staging(self) -> bytes:
        return f"{STAGING}/{self.uid}".encode()

    def _staged(self, there: Beneath) -> StagedBatch:
        return StagedBatch(there, self._staging, self.reader, Verify.READ_BACK)

    def _store(self, area: StorageArea) -> ObjectStore:
        return ObjectStore(self.rclone, area, self.directory)


@contextmanager
def beneath(area: StorageArea, directory: str) -> Iterator[Beneath]:
    """Open an experiment's directory in a storage area."""
    try:
        opened = Beneath(Path(area.path) / directory)
    except FileNotFoundError as error:
        why = f'{area.path}/{directory} is not there: is storage area "{area.name}" mounted?'
        raise DestinationError(why, code="unreachable") from error
    with opened:
        yield opened


def _name(item: NewCopyItem) -> str:
    return str(item.version_uid)


def _place(here: Beneath, item: NewCopyItem) -> bytes:
    """Return where a version is: once it was replaced it is kept elsewhere."""
    kept = kept_path(item.relpath, item.number)
    return kept if _lstat(here, kept) is not None else bytes(item.relpath)


def _lstat(here: Beneath, path: bytes) -> os.stat_result | None:
    try:
        return here.lstat(path)
    except OSError as error:
        if error.errno in NOT_THERE:
            return None
        raise


@contextmanager
def _opened(here: Beneath, item: NewCopyItem) -> Iterator[int]:
    try:
        opened = here.open(_place(here, item))
    except OSError as error:
        if error.errno not in (*NOT_THERE, errno.EACCES, errno.EIO):
            raise
        raise SourceError(f'"{show_path(item.relpath)}" is not at its source: {os.strerror(error.errno)}') from error
    try:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode) or found.st_size != item.size:
            raise SourceError(f'"{show_path(item.relpath)}" has {found.st_size} bytes at its source, not {item.size}')
        yield opened
    finally:
        os.close(opened)


def _asked(item: NewCopyItem) -> NewPublishItem:
    """Return what is asked for a staged copy. One that only is kept replaces itself: it must not get a plain name."""
    itself = None if not item.checksums else Replaced(number=item.number, checksum=strongest(item.checksums))
    return NewPublishItem.model_construct(
        **path_fields(item.relpath),
        version_uid=item.version_uid,
        number=item.number,
        size=item.size,
        checksums=item.checksums,
        link_target_b64=item.link_target_b64,
        replaces=item.replaces if item.is_plain else itself,
        staged_b64=to_b64(_name(item).encode()),
    )


def _removed(batch: StagedBatch, item: NewCopyItem) -> Settled:
    here, plain, kept = batch.beneath, bytes(item.relpath), kept_path(item.relpath, item.number)
    if _lstat(here, kept) is not None:
        here.unlink(kept)
        batch.touched.add(kept.rpartition(b"/")[0])
    elif item.is_plain and _lstat(here, plain) is not None:
        if not item.is_ours and not _is_it(batch, item):
            why = f'"{show_path(plain)}" holds bytes that the catalogue does not know: they are left as they are'
            return Outcome.CONFLICT, why, None
        here.unlink(plain)
        batch.touched.add(plain.rpartition(b"/")[0])
    return Outcome.REMOVED, "", None


def _is_it(batch: StagedBatch, item: NewCopyItem) -> bool:
    plain = bytes(item.relpath)
    if item.link_target_b64 is not None:
        try:
            return batch.beneath.readlink(plain) == from_b64(item.link_target_b64)
        except OSError:
            return False
    checksum = strongest(item.checksums)
    for _, read in batch.reader.read([(plain, checksum.algorithm)], batch.beneath):
        if isinstance(read, OSError):
            raise read
        return (read.value, read.size) == (checksum.value, item.size)
    return False
