"""The steps of one staged batch, below an experiment's directory: durable, verified, named.

Every step may be taken again after a crash: what a first try has renamed already is found by its digest and adopted.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from beamkeeper.config.failpoints import FailPoint, hit
from beamkeeper.db.publishes import Settled
from beamkeeper.domain.file_rights import DIRECTORY_MODES, FILE_MODES, Place, place_of
from beamkeeper.domain.files import ReadFrom, Verify
from beamkeeper.domain.names import Algorithm, Checksum, from_b64, show_path
from beamkeeper.domain.storage import NewPublishItem, Outcome, kept_path
from beamkeeper.engine.beneath import Beneath, is_regular
from beamkeeper.engine.readback import ReadBack, Reader, strongest
from beamkeeper.engine.reading import Name
from beamkeeper.engine.rights import Given, give, given_in

MANY_FILES = 16
"""From this many files on, one syncfs is cheaper than an fsync for each."""

WHOLE_DESTINATION = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV})
"""Faults of the place, not of the file: the batch waits, and nothing is settled."""

TELLS_OF_LOST_WRITES = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2]) >= (5, 8)
"""Since Linux 5.8 syncfs tells of writes that were lost; before, only reading back or an fsync of each file does."""

NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


@dataclass
class StagedBatch:
    """The steps of one batch below an experiment's directory."""

    beneath: Beneath
    staging: bytes
    reader: Reader
    verify: Verify
    touched: set[bytes] = field(default_factory=set)
    found: dict[bytes, ReadBack] = field(default_factory=dict)
    given: dict[Place, Given] = field(default_factory=dict)

    def make_durable(self, items: Sequence[NewPublishItem]) -> None:
        """Bring the staged bytes to the disk.

        A failure must never be answered by a second try on the same files: the kernel drops what it could not
        write and forgets that it failed, and the third fsync says that all is well (measured).
        """
        staged = [item for item in items if item.link_target_b64 is None]
        if len(staged) >= MANY_FILES and (TELLS_OF_LOST_WRITES or self.verify is Verify.READ_BACK):
            self.beneath.sync_all()
            return
        for item in staged:
            with suppress(FileNotFoundError, NotADirectoryError):
                descriptor = self.beneath.open(self._staged(item))
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def look(self, items: Sequence[NewPublishItem]) -> None:
        """Read every staged file back, all together; where they are not to be read now, see that each has its size.

        A file that replaces a version is read in every mode: after a crash only its bytes tell whether it is the
        new version or the old one, exchanged out. A plain name that is free is given at once where many are read.
        """
        wanted: list[tuple[bytes, Algorithm]] = []
        names: dict[bytes, Name] = {}
        for item in items:
            if item.link_target_b64 is not None:
                continue
            staged, checksum = self._staged(item), strongest(item.checksums)
            if self.verify is Verify.READ_BACK or item.replaces is not None:
                wanted.append((staged, checksum.algorithm))
                if item.replaces is None:
                    plain = os.fsdecode(bytes(item.relpath))
                    names[staged] = checksum.value, item.size, plain, self._given(item)
            elif (size := self._size_of(staged)) is not None:
                self.found[staged] = ReadBack(checksum.value, size, None)
        self._make_all_parents(items)
        for path, found in self.reader.read(wanted, self.beneath, names):
            if isinstance(found, ReadBack):
                self.found[path] = found
            elif found.errno == errno.EIO:
                self.found[path] = ReadBack("", -1, None)  # a bad sector is this file's alone: it is sent anew
            elif found.errno not in NOT_THERE:
                raise found

    def _staged(self, item: NewPublishItem) -> bytes:
        return self.staging + b"/" + item.staged

    def _make_all_parents(self, items: Sequence[NewPublishItem]) -> None:
        for directory, place in {item.relpath.rpartition(b"/")[0]: place_of(item.relpath) for item in items}.items():
            with suppress(OSError):  # it is met again, and told, as the files get their names
                self.beneath.directory(directory, mode=DIRECTORY_MODES[place])

    def _size_of(self, path: bytes) -> int | None:
        try:
            found = self.beneath.lstat(path)
        except NotADirectoryError:
            return None
        return found.st_size if found is not None and is_regular(found) else None

    def publish_one(self, item: NewPublishItem) -> Settled:
        """Verify one file and give it its plain name; a fault of its own settles it, one of the place is raised."""
        try:
            return self._publish_link(item) if item.link_target_b64 is not None else self._publish_file(item)
        except FileNotFoundError as error:
            if item.link_target_b64 is not None:
                return Outcome.FAILED, f'"{show_path(item.relpath)}" cannot be stored: {error.strerror}', None
            return self._adopt(item)  # somebody else has published or discarded it this very moment
        except OSError as error:
            if error.errno in WHOLE_DESTINATION:
                raise
            where = show_path(item.relpath)
            return Outcome.FAILED, f'"{where}" cannot be stored: {error.strerror or error}', None

    def keep_one(self, item: NewPublishItem) -> Settled:
        """Verify one file and put it where older versions are kept: a later one has its plain name already."""
        kept, checksum = kept_path(item.relpath, item.number), strongest(item.checksums)
        found = self.found.get(self._staged(item))
        if found is None or found.value != checksum.value or found.size != item.size:
            self.beneath.unlink(self._staged(item))
            return Outcome.DAMAGED, f'"{show_path(item.relpath)}" has other bytes in storage than were sent', None
        self._give(self._staged(item), item)
        self.beneath.directory(kept.rpartition(b"/")[0], mode=0o700)
        try:
            self.beneath.rename(self._staged(item), kept)
        except FileExistsError:
            self.beneath.replace(self._staged(item), kept)  # what stands there is meant to be these very bytes
        self._touch(kept)
        return Outcome.STORED, "", found.read_from

    def _publish_file(self, item: NewPublishItem) -> Settled:
        staged = self._staged(item)
        checksum = strongest(item.checksums)
        found = self.found.get(staged)
        if found is None:
            return self._adopt(item)
        if found.value != checksum.value or found.size != item.size:
            if self._is_half_exchanged(item, found.value, checksum):
                self._keep_old(staged, item)
                return Outcome.STORED, "", found.read_from
            self.beneath.unlink(staged)
            why = f'"{show_path(item.relpath)}" has other bytes in storage than were sent'
            return Outcome.DAMAGED, why, found.read_from
        if found.is_named:
            self._touch(bytes(item.relpath))
            return Outcome.STORED, "", found.read_from
        self._give(staged, item)
        self._make_parents(item.relpath)
        return self._name(staged, item, checksum, found.read_from)

    def _name(self, staged: bytes, item: NewPublishItem, checksum: Checksum, read_from: ReadFrom | None) -> Settled:
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
        kept = kept_path(item.relpath, item.replaces.number)
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

    def _adopt(self, item: NewPublishItem) -> Settled:
        """Settle a file that is not staged: an earlier try may have published it."""
        plain, checksum = bytes(item.relpath), strongest(item.checksums)
        for _, found in self.reader.read([(plain, checksum.algorithm)], self.beneath):
            if isinstance(found, ReadBack) and found.value == checksum.value and found.size == item.size:
                self._touch(plain)
                return Outcome.STORED, "", found.read_from
        return Outcome.MISSING, f'"{show_path(plain)}" is not in its staging directory', None

    def _publish_link(self, item: NewPublishItem) -> Settled:
        plain, target = bytes(item.relpath), from_b64(item.link_target_b64 or "")
        self._make_parents(item.relpath)
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
        for _, found in self.reader.read([(path, checksum.algorithm)], self.beneath):
            if isinstance(found, ReadBack):
                return found.value
            if found.errno not in NOT_THERE:
                raise found
        return ""

    def _give(self, staged: bytes, item: NewPublishItem) -> None:
        descriptor = self.beneath.open(staged)
        try:
            give(descriptor, self._given(item))
        finally:
            os.close(descriptor)

    def _given(self, item: NewPublishItem) -> Given:
        """Return the rights of a file: they are those of its tree, whoever brought it."""
        place = place_of(item.relpath)
        if place not in self.given:
            self.given[place] = given_in(self.beneath.directory(str(place).encode()), FILE_MODES[place])
        return self.given[place]

    def _make_parents(self, path: bytes) -> None:
        self.beneath.directory(path.rpartition(b"/")[0], mode=DIRECTORY_MODES[place_of(path)])

    def _touch(self, path: bytes) -> None:
        self.touched.add(path.rpartition(b"/")[0])

    def sync_names(self) -> None:
        """Make every new name durable: of files, and of the directories that were made, from the top down."""
        made = {path.rpartition(b"/")[0] for path in self.beneath.made}
        for directory in sorted(self.touched | made):
            self.beneath.sync(directory)
