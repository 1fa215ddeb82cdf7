"""Publishing and looking where the storage is an object store: names are copied in the store, and read back from it.

An object store knows no rename, no link and no rights of ours. An object appears whole or not at all, so that a plain
name is a complete version here too: what is staged is read back, copied by the store itself to its plain name, and the
copy is compared with what was read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from beamkeeper.db.publishes import Settled, Work
from beamkeeper.domain.errors import DestinationError
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.files import ReadFrom, Verify
from beamkeeper.domain.names import Checksum, RelPath, from_b64, show_path, to_b64
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

    def publish(self, work: Work) -> list[Settled]:
        """Verify and name the files of a batch; a fault of the store as a whole is raised, and nothing is settled."""
        with self._faults():
            settled = _at_once(lambda item: self._publish_one(work, item), work.items)
            self.discard(str(work.uid))
        return settled

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
        """Return a page of plain names, in the order of their bytes."""
        after = from_b64(asked.after_b64) if asked.after_b64 else b""
        upto = from_b64(asked.upto_b64) if asked.upto_b64 else None
        found = sorted((path, size) for path, size in self._all() if path > after and (upto is None or path <= upto))
        items = [ListedEntry(path_b64=to_b64(path), kind=EntryKind.FILE, size=size) for path, size in found]
        page = [item.model_dump(mode="json", exclude_none=True) for item in items[: asked.limit]]
        return {"items": page, "is_end": len(items) <= asked.limit}

    def _all(self) -> Iterable[tuple[RelPath, int]]:
        with self._faults():
            given = {"fs": self._place, "remote": str(Tree.DATA), "opt": {"recurse": True, "filesOnly": True}}
            try:
                listed = self._rclone.call("operations/list", **given)
            except Refused as refused:
                if not refused.is_absent:
                    raise
                return []
        return [(path_of(entry["Path"]), int(entry["Size"])) for entry in listed["list"] or ()]

    def _stat(self, key: str) -> _Object | None:
        given = {"fs": self._place, "remote": key, "opt": {"showHash": True, "hashTypes": ["md5"], "noModTime": True}}
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
