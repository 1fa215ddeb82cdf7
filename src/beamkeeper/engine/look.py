"""Looks at what is stored, run where the storage is: checks, listings of plain names; and clears stagings away."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from beamkeeper.db import Database, StorageTransaction
from beamkeeper.db.news import Topic
from beamkeeper.db.storage_tasks import Task, TaskKind
from beamkeeper.domain.errors import DestinationError
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.files import ReadFrom
from beamkeeper.domain.names import Algorithm, Checksum, Metadata, from_b64, to_b64
from beamkeeper.domain.storage import (
    STAGING,
    CheckItem,
    CheckMode,
    CheckOutcome,
    EntryKind,
    ListedEntry,
    NewCheck,
    NewCheckItem,
    NewListing,
    StorageArea,
    kept_path,
)
from beamkeeper.engine.beneath import Beneath
from beamkeeper.engine.objects import ObjectStore
from beamkeeper.engine.readback import ReadBack, Reader
from beamkeeper.engine.worker import Loop, Report
from beamkeeper.plugins.rclone import Rclone, RcloneOptions

WHOLE_PLACE = frozenset({errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT})
"""Faults of the place, not of the file: the question waits. A bad sector (EIO) is a file's own: scrubs look for it."""

NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
SWEEP_S = 3600.0
WALK_S = 600.0
"""A walk is begun anew after so long: what it has read of directories grows old."""


class LookLoop(Loop):
    """Takes the question that has waited longest, and answers it."""

    rest_s = 0.02
    quiet_s = 4.0

    def __init__(
        self,
        database: Database[StorageTransaction],
        kinds: Collection[TaskKind],
        *,
        report: Report,
        rclone: Rclone | None = None,
    ) -> None:
        super().__init__("look " + "+".join(sorted(kinds)), report=report, idle_s=1.0)
        self._database = database
        self._kinds = kinds
        self._rclone = rclone or Rclone(RcloneOptions())
        self._reader = Reader()
        self._names = PlainNames()
        self._swept_at = datetime.now(UTC) - timedelta(seconds=SWEEP_S)
        self._unlisten = database.listen(self.wake, Topic.TASKS)

    def step(self) -> bool:
        """Answer one question."""
        with self._database.read() as tx:
            task = tx.tasks.pending(self._kinds)
            place = self._place(tx, task) if task else None
        if task is None or place is None:
            self._sweep()
            return False
        area, directory = place
        root = Path(area.path) / directory
        try:
            if area.is_objects:
                answer = self._answer_of_objects(task, ObjectStore(self._rclone, area, directory))
            else:
                answer = self._answer(task, root)
        except (OSError, DestinationError) as error:
            why = error.message if isinstance(error, DestinationError) else f"{root}: {error.strerror or error}"
            with self._database.write() as tx:
                tx.tasks.pause(task, why, until=tx.now + timedelta(seconds=min(30, 2**task.attempts)))
            raise DestinationError(f"{task.kind} {task.uid} waits, the storage area fails as a whole: {why}") from error
        with self._database.write() as tx:
            tx.tasks.end(task, answer)
        self._database.tell(Topic.TASKS)
        return True

    def _place(self, tx: StorageTransaction, task: Task) -> tuple[StorageArea, str]:
        experiment = tx.experiments.get(task.experiment_uid)
        area_uid = task.request.get("storage_area_uid")
        area = tx.storage.get(UUID(str(area_uid)) if area_uid else experiment.storage_area_uid)
        return area, experiment.directory

    def _answer_of_objects(self, task: Task, store: ObjectStore) -> Metadata:
        if task.kind is TaskKind.LISTING:
            return store.names(NewListing.model_validate(task.request))
        if task.kind is TaskKind.DISCARD:
            store.discard(str(UUID(str(task.request["batch_uid"]))))
            return {}
        items = store.look(NewCheck.model_validate(task.request))
        return {"items": [item.model_dump(mode="json", exclude_defaults=True) for item in items]}

    def _answer(self, task: Task, root: Path) -> Metadata:
        try:
            if task.kind is TaskKind.LISTING:
                return self._names.page(task.experiment_uid, root, NewListing.model_validate(task.request))
            if task.kind is TaskKind.DISCARD:
                with Beneath(root) as beneath:
                    beneath.remove_tree(f"{STAGING}/{UUID(str(task.request['batch_uid']))}".encode())
                return {}
            with Beneath(root) as beneath:
                items = Looker(beneath, self._reader).look(NewCheck.model_validate(task.request))
            return {"items": [item.model_dump(mode="json", exclude_defaults=True) for item in items]}
        except FileNotFoundError as error:
            raise DestinationError(
                f"the experiment's directory {root} is not there: is the storage mounted?"
            ) from error

    def _sweep(self) -> None:
        now = datetime.now(UTC)
        if now - self._swept_at > timedelta(seconds=SWEEP_S):
            self._swept_at = now
            with self._database.write() as tx:
                tx.tasks.sweep()

    def ended(self) -> None:
        """Listen no more."""
        self._unlisten()
        self._reader.close()
        self._names.close()


class Looker:
    """Looks at the files of one check, below an experiment's directory."""

    def __init__(self, beneath: Beneath, reader: Reader) -> None:
        self._beneath = beneath
        self._reader = reader

    def look(self, asked: NewCheck) -> list[CheckItem]:
        """Return what was found of each file, in the order asked."""
        found: list[CheckItem] = []
        to_read: list[tuple[bytes, int]] = []
        for index, item in enumerate(asked.items):
            place, seen = self._look_at(item)
            found.append(seen)
            if asked.mode is CheckMode.READ and seen.outcome is CheckOutcome.MATCH and item.link_target_b64 is None:
                to_read.append((place, index))
        self._read(asked, to_read, found)
        # A version that was replaced between the two looks is where older versions are kept now.
        moved = [
            (_kept(asked.items[index]), index)
            for place, index in to_read
            if found[index].outcome is not CheckOutcome.MATCH and place != _kept(asked.items[index])
        ]
        self._read(asked, [(place, index) for place, index in moved if self._lstat(place) is not None], found)
        return found

    def _look_at(self, item: NewCheckItem) -> tuple[bytes, CheckItem]:
        """Return where a version is, and what its inode says."""
        kept, plain = _kept(item), bytes(item.relpath)
        seen = self._judge_at(item, kept)
        if seen.outcome is not CheckOutcome.MISSING:
            return kept, seen
        at_plain = self._judge_at(item, plain)
        if at_plain.outcome is CheckOutcome.MATCH:
            return plain, at_plain
        seen = self._judge_at(item, kept)  # it may have been replaced between the two looks
        return (plain, at_plain) if seen.outcome is CheckOutcome.MISSING else (kept, seen)

    def _judge_at(self, item: NewCheckItem, place: bytes) -> CheckItem:
        try:
            found = self._lstat(place)
            if found is None:
                return _seen(item, CheckOutcome.MISSING, "it is not there")
            return self._judge(item, place, found)
        except OSError as error:
            if error.errno in WHOLE_PLACE:
                raise
            why = f"it cannot be looked at: {os.strerror(error.errno or 0)}"
            return _seen(item, CheckOutcome.UNREADABLE, why)

    def _lstat(self, place: bytes) -> os.stat_result | None:
        try:
            return self._beneath.lstat(place)
        except OSError as error:
            if error.errno in NOT_THERE:
                return None
            raise

    def _judge(self, item: NewCheckItem, place: bytes, found: os.stat_result) -> CheckItem:
        if item.link_target_b64 is not None:
            is_same = stat.S_ISLNK(found.st_mode) and self._beneath.readlink(place) == from_b64(item.link_target_b64)
            if is_same:
                return _seen(item, CheckOutcome.MATCH, size=item.size, read_from=ReadFrom.CACHE)
            return _seen(item, CheckOutcome.DIFFERENT, "it is not this link")
        if not stat.S_ISREG(found.st_mode):
            return _seen(item, CheckOutcome.DIFFERENT, "it is no plain file")
        if found.st_size != item.size:
            why = f"it has {found.st_size} bytes in place of {item.size}"
            return _seen(item, CheckOutcome.DIFFERENT, why, size=found.st_size)
        return _seen(item, CheckOutcome.MATCH, size=found.st_size)

    def _read(self, asked: NewCheck, places: Sequence[tuple[bytes, int]], found: list[CheckItem]) -> None:
        """Read files back, and say of each what its bytes are; several versions may be looked for in one place."""
        wanted: defaultdict[Algorithm, defaultdict[bytes, list[int]]] = defaultdict(lambda: defaultdict(list))
        for place, index in places:
            if (checksum := asked.items[index].checksum) is not None:
                wanted[checksum.algorithm][place].append(index)
        for algorithm, indexes in wanted.items():
            for place, read in self._reader.read([(place, algorithm) for place in indexes], self._beneath):
                if isinstance(read, OSError) and read.errno in WHOLE_PLACE:
                    raise read
                for index in indexes[place]:
                    found[index] = _read_back(asked.items[index], read)


def _kept(item: NewCheckItem) -> bytes:
    return kept_path(item.relpath, item.number)


def _read_back(item: NewCheckItem, read: ReadBack | OSError) -> CheckItem:
    if isinstance(read, OSError):
        outcome = CheckOutcome.MISSING if read.errno in NOT_THERE else CheckOutcome.UNREADABLE
        return _seen(item, outcome, f"it cannot be read: {os.strerror(read.errno or 0)}")
    if not read.value or item.checksum is None:
        return _seen(item, CheckOutcome.DIFFERENT, "it is no plain file")
    checksum = Checksum(algorithm=item.checksum.algorithm, value=read.value)
    is_same = read.value == item.checksum.value and read.size == item.size
    outcome, why = (CheckOutcome.MATCH, "") if is_same else (CheckOutcome.DIFFERENT, "it has other bytes")
    return _seen(item, outcome, why, size=read.size, checksum=checksum, read_from=read.read_from)


def _seen(
    item: NewCheckItem,
    outcome: CheckOutcome,
    message: str = "",
    *,
    size: int | None = None,
    checksum: Checksum | None = None,
    read_from: ReadFrom | None = None,
) -> CheckItem:
    return CheckItem(
        path_b64=item.path_b64,
        version_uid=item.version_uid,
        number=item.number,
        outcome=outcome,
        message=message,
        size=size,
        checksum=checksum,
        read_from=read_from,
        checked_at=datetime.now(UTC),
    )


Name = tuple[bytes, os.stat_result]


class PlainNames:
    """Pages of plain names in the order of their bytes; the walk of one page goes on with the next."""

    def __init__(self) -> None:
        self._beneath: Beneath | None = None
        self._walk: Iterator[Name] = iter(())
        self._at: tuple[UUID, bytes] | None = None
        self._ahead: Name | None = None
        self._good_until = 0.0

    def page(self, experiment_uid: UUID, root: Path, asked: NewListing) -> Metadata:
        """Return the names of one page."""
        after = from_b64(asked.after_b64) if asked.after_b64 else b""
        upto = from_b64(asked.upto_b64) if asked.upto_b64 else None
        if not after or self._at != (experiment_uid, after) or time.monotonic() > self._good_until:
            self._begin(root, after)
        items: list[ListedEntry] = []
        last, is_end = after, False
        try:
            while len(items) < asked.limit:
                name, self._ahead = self._ahead or next(self._walk, None), None
                if name is None or (upto is not None and name[0] > upto):
                    self._ahead, is_end = name, True
                    break
                items.append(_listed(*name))
                last = name[0]
        except BaseException:
            self.close()
            raise
        self._at = (experiment_uid, upto if is_end and upto is not None else last)
        if is_end and upto is None:
            self.close()
        return {"items": [item.model_dump(mode="json", exclude_none=True) for item in items], "is_end": is_end}

    def _begin(self, root: Path, after: bytes) -> None:
        self.close()
        self._beneath = Beneath(root)
        self._walk = names_in_order(self._beneath, str(Tree.DATA).encode(), after)
        self._good_until = time.monotonic() + WALK_S

    def close(self) -> None:
        """Give back what a walk holds."""
        if self._beneath is not None:
            self._beneath.close()
        self._beneath, self._walk, self._at, self._ahead = None, iter(()), None, None


def names_in_order(beneath: Beneath, top: bytes, after: bytes) -> Iterator[Name]:
    """Yield everything below `top` that is no directory, in the order of paths as bytes, from beyond `after`.

    A directory that cannot be read is an error: what is in it would look lost. One that went meanwhile is passed over.
    """
    waiting = [top + b"/"]
    while waiting:
        path = waiting.pop()
        is_directory = path.endswith(b"/")
        if path <= after and not (is_directory and after.startswith(path)):
            continue
        if is_directory:
            waiting.extend(_entries(beneath, path[:-1]))
        elif (found := beneath.lstat(path)) is not None:
            yield path, found


def _entries(beneath: Beneath, directory: bytes) -> list[bytes]:
    """Return what is in a directory, last first; with a slash at its end a directory sorts as what is in it does."""
    try:
        with os.scandir(beneath.directory(directory)) as entries:
            found = [
                directory + b"/" + os.fsencode(entry.name) + (b"/" if entry.is_dir(follow_symlinks=False) else b"")
                for entry in entries
            ]
    except FileNotFoundError:
        return []
    return sorted(found, reverse=True)


def _listed(path: bytes, found: os.stat_result) -> ListedEntry:
    kind = EntryKind.OTHER
    if stat.S_ISREG(found.st_mode):
        kind = EntryKind.FILE
    elif stat.S_ISLNK(found.st_mode):
        kind = EntryKind.LINK
    return ListedEntry(path_b64=to_b64(path), kind=kind, size=found.st_size)
