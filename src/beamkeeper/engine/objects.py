"""Publishing and looking where the storage is an object store: names are copied in the store, and read back from it.

An object store knows no rename, no link and no rights of ours. An object appears whole or not at all, so that a plain
name is a complete version here too: what is staged is read back, copied by the store itself to its plain name, and the
copy is compared with what was read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

from beamkeeper.db.publishes import Settled, Work
from beamkeeper.domain.errors import DestinationError
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.files import ReadFrom, Verify
from beamkeeper.domain.names import Checksum, RelPath, from_b64, show_path, to_b64
from beamkeeper.domain.replicas import NewCopyItem
from beamkeeper.domain.storage import (
    STAGING,
    VERSIONS,
    CheckItem,
    CheckMode,
    CheckOutcome,
    EntryKind,
    ListedEntry,
    NewCheck,
    NewCheckItem,
    NewListing,
    NewPublishItem,
    Outcome,
    StorageArea,
)
from beamkeeper.engine.readback import strongest
from beamkeeper.plugins.rclone import Rclone, Refused, key_of, path_of, place_of

T = TypeVar("T")
S = TypeVar("S")
AT_ONCE = 4
_PLAIN = {"noModTime": True, "noMimeType": True}
"""What we need no answer on: for S3 it would cost a request for each object."""


@dataclass(frozen=True, slots=True)
class _Object:
    """What the store says of an object; `tag` is its own digest of the bytes, empty where it has none."""

    size: int
    tag: str


class ObjectStore:
    """One experiment's objects: what is done with them, by the names of their paths."""

    def __init__(self, rclone: Rclone, area: StorageArea, directory: str) -> None:
        self._rclone = rclone
        self._place = f"{place_of(area.path)}{directory}/"

    @property
    def place(self) -> str:
        """What holds the experiment's objects, as rclone names it."""
        return self._place

    def publish(self, work: Work) -> list[Settled]:
        """Verify and name the files of a batch; a fault of the store as a whole is raised, and nothing is settled."""
        settled = self.name(work)
        self.discard(str(work.uid))
        return settled

    def name(self, work: Work) -> list[Settled]:
        """The same, and leave what is staged to be discarded later."""
        with self._faults():
            return _at_once(lambda item: self._publish_one(work, item), work.items)

    def keep(self, work: Work) -> list[Settled]:
        """Verify the files of a batch and put them where older versions are kept."""
        with self._faults():
            return _at_once(lambda item: self._keep_one(work, item), work.items)

    def _keep_one(self, work: Work, item: NewPublishItem) -> Settled:
        staged, checksum = f"{STAGING}/{work.uid}/{key_of(item.staged)}", strongest(item.checksums)
        found = self._stat(staged)
        if found is None or found.size != item.size or self._digest(staged, checksum) != checksum.value:
            return Outcome.DAMAGED, f'"{show_path(item.relpath)}" has other bytes in storage than were sent', None
        self._copy(staged, _kept(item.relpath, item.number), found, checksum)
        return Outcome.STORED, "", ReadFrom.OTHER_HOST

    def remove(self, items: Sequence[NewCopyItem]) -> list[Settled]:
        """Remove versions; what is not known to be one of them is left as it is."""
        with self._faults():
            return _at_once(self._remove_one, items)

    def _remove_one(self, item: NewCopyItem) -> Settled:
        kept, plain = _kept(item.relpath, item.number), key_of(item.relpath)
        if self._stat(kept) is not None:
            self._delete(kept)
        elif item.is_plain and self._stat(plain) is not None:
            if not item.is_ours:
                checksum = strongest(item.checksums)
                if self._digest(plain, checksum) != checksum.value:
                    why = f'"{show_path(item.relpath)}" holds bytes that the catalogue does not know: they stay'
                    return Outcome.CONFLICT, why, None
            self._delete(plain)
        return Outcome.REMOVED, "", None

    def key(self, item: NewCopyItem) -> str:
        """Return the name of a version's object."""
        with self._faults():
            kept = _kept(item.relpath, item.number)
            return kept if self._stat(kept) is not None else key_of(item.relpath)

    def is_right(self, item: NewCopyItem) -> bool:
        """Whether a version has the bytes that it should, read once."""
        with self._faults():
            checksum = strongest(item.checksums)
            return self._digest(self.key(item), checksum) == checksum.value

    def _publish_one(self, work: Work, item: NewPublishItem) -> Settled:
        if item.link_target_b64 is not None:
            return Outcome.FAILED, f'"{show_path(item.relpath)}" is a link: an object store has none', None
        staged, plain = f"{STAGING}/{work.uid}/{key_of(item.staged)}", key_of(item.relpath)
        checksum = strongest(item.checksums)
        found = self._stat(staged)
        if found is None:
            return self._adopt(item, plain, checksum)
        is_read = work.verify is Verify.READ_BACK or item.replaces is not None
        digest = self._digest(staged, checksum) if is_read else checksum.value
        if digest != checksum.value or found.size != item.size:
            self._delete(staged)
            why = f'"{show_path(item.relpath)}" has other bytes in storage than were sent'
            return Outcome.DAMAGED, why, ReadFrom.OTHER_HOST if is_read else None
        if (refused := self._make_room(item, plain, checksum)) is not None:
            return refused
        self._copy(staged, plain, found, checksum)
        return Outcome.STORED, "", ReadFrom.OTHER_HOST if is_read else None

    def _make_room(self, item: NewPublishItem, plain: str, checksum: Checksum) -> Settled | None:
        """Keep the version that stands at a plain name, where it is the one that is to be replaced."""
        present = self._stat(plain)
        if present is None or self._digest(plain, checksum) == checksum.value:
            return None
        replaces = item.replaces
        if replaces is None or self._digest(plain, replaces.checksum) != replaces.checksum.value:
            why = f'"{show_path(item.relpath)}" holds bytes that the catalogue does not know: they are left as they are'
            return Outcome.CONFLICT, why, None
        self._copy(plain, _kept(item.relpath, replaces.number), present, replaces.checksum)
        return None

    def _adopt(self, item: NewPublishItem, plain: str, checksum: Checksum) -> Settled:
        """Settle a file that is not staged: an earlier try may have published it."""
        present = self._stat(plain)
        if present is not None and present.size == item.size and self._digest(plain, checksum) == checksum.value:
            return Outcome.STORED, "", ReadFrom.OTHER_HOST
        return Outcome.MISSING, f'"{show_path(item.relpath)}" is not in its staging directory', None

    def _copy(self, here: str, there: str, found: _Object, checksum: Checksum) -> None:
        """Have the store copy an object, and see that the copy is the same: by its own digest, or by reading it."""
        given = {"srcFs": self._place, "srcRemote": here, "dstFs": self._place, "dstRemote": there}
        self._rclone.call("operations/copyfile", **given)
        copied = self._stat(there)
        is_same = copied is not None and copied.size == found.size
        if is_same and copied is not None and not (copied.tag and copied.tag == found.tag):
            is_same = self._digest(there, checksum) == checksum.value
        if not is_same:
            raise DestinationError(f"the store's copy of {here} to {there} is not the same", code="failed")

    def discard(self, batch: str) -> None:
        """Remove a staging directory; nothing there is no error."""
        with self._faults():
            try:
                self._rclone.call("operations/purge", fs=self._place, remote=f"{STAGING}/{batch}")
            except Refused as refused:
                if not refused.is_absent:
                    raise

    def look(self, asked: NewCheck) -> list[CheckItem]:
        """Return what was found of each file, in the order asked."""
        with self._faults():
            return _at_once(lambda item: self._look_at(item, asked.mode), asked.items)

    def _look_at(self, item: NewCheckItem, mode: CheckMode) -> CheckItem:
        for key in (_kept(item.relpath, item.number), key_of(item.relpath)):
            if (found := self._stat(key)) is None:
                continue
            if found.size != item.size:
                why = f"it has {found.size} bytes in place of {item.size}"
                return _seen(item, CheckOutcome.DIFFERENT, message=why, size=found.size)
            if mode is CheckMode.STAT or item.checksum is None:
                return _seen(item, CheckOutcome.MATCH, size=found.size)
            read = item.checksum.model_copy(update={"value": self._digest(key, item.checksum)})
            is_same = read.value == item.checksum.value
            outcome, why = (CheckOutcome.MATCH, "") if is_same else (CheckOutcome.DIFFERENT, "it has other bytes")
            more = {"size": found.size, "checksum": read, "read_from": ReadFrom.OTHER_HOST}
            return _seen(item, outcome, message=why, **more)
        return _seen(item, CheckOutcome.MISSING, message="it is not there")

    def names(self, asked: NewListing) -> dict[str, Any]:
        """Return a page of plain names, in the order of their bytes; no more directories are listed than it needs."""
        after = from_b64(asked.after_b64) if asked.after_b64 else b""
        upto = from_b64(asked.upto_b64) if asked.upto_b64 else None
        with self._faults():
            found = list(islice(self._names(str(Tree.DATA), after, upto), asked.limit + 1))
        items = [ListedEntry(path_b64=to_b64(path), kind=EntryKind.FILE, size=size) for path, size in found]
        page = [item.model_dump(mode="json", exclude_none=True) for item in items[: asked.limit]]
        return {"items": page, "is_end": len(items) <= asked.limit}

    def _names(self, directory: str, after: bytes, upto: bytes | None) -> Iterator[tuple[RelPath, int]]:
        """Yield names below a directory: as bytes, a directory stands where its name with a slash does."""
        for path, key, size in sorted(self._listed(directory)):
            if upto is not None and path > upto:
                return
            if size >= 0 and path > after:
                yield RelPath(path), size
            elif size < 0 and (path > after or after.startswith(path)):
                yield from self._names(key, after, upto)

    def _listed(self, directory: str) -> Iterable[tuple[bytes, str, int]]:
        """Return what stands in a directory: path, key and size; directories with a slash, and no size."""
        try:
            listed = self._rclone.call("operations/list", fs=self._place, remote=directory, opt=_PLAIN)
        except Refused as refused:
            if not refused.is_absent:
                raise
            return []
        return [
            (path_of(entry["Path"]) + b"/", entry["Path"], -1)
            if entry["IsDir"]
            else (bytes(path_of(entry["Path"])), entry["Path"], int(entry["Size"]))
            for entry in listed["list"] or ()
        ]

    def _stat(self, key: str) -> _Object | None:
        given = {"fs": self._place, "remote": key, "opt": {"showHash": True, "hashTypes": ["md5"], **_PLAIN}}
        entry = self._rclone.call("operations/stat", **given)["item"]
        if entry is None or entry["IsDir"]:
            return None
        return _Object(int(entry["Size"]), str((entry.get("Hashes") or {}).get("md5", "")))

    def _digest(self, key: str, checksum: Checksum) -> str:
        """Read an object and return its digest; empty where it is gone."""
        given = {"fs": self._place, "remote": key, "hashType": str(checksum.algorithm), "download": True}
        try:
            return str(self._rclone.call("operations/hashsumfile", **given)["hash"])
        except Refused as refused:
            if refused.is_absent:
                return ""
            raise

    def _delete(self, key: str) -> None:
        try:
            self._rclone.call("operations/deletefile", fs=self._place, remote=key)
        except Refused as refused:
            if not refused.is_absent:
                raise

    def _faults(self) -> _Faults:
        return _Faults(self._place)


class _Faults:
    """Turns what rclone was refused into the fault of a place."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Refused):
            raise error.fault(self._place) from error


def _at_once(do: Callable[[S], T], items: Sequence[S]) -> list[T]:
    with ThreadPoolExecutor(AT_ONCE, "objects") as pool:
        return list(pool.map(do, items))


def _kept(path: RelPath, number: int) -> str:
    return f"{VERSIONS}/{key_of(path)}/{number}"


def _seen(item: NewCheckItem, outcome: CheckOutcome, **found: Any) -> CheckItem:
    return CheckItem(
        path_b64=item.path_b64,
        version_uid=item.version_uid,
        number=item.number,
        outcome=outcome,
        checked_at=datetime.now(UTC),
        **found,
    )
