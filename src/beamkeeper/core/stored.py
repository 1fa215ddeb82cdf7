"""Reading files that are stored as objects: rclone says what is there, and gives any part of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from beamkeeper.core.arrays import OPEN_TREES
from beamkeeper.domain.arrays import FileChoice
from beamkeeper.domain.errors import ConflictError, DestinationError, NotFoundError, UnavailableError
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.names import show_path
from beamkeeper.domain.storage import VERSIONS
from beamkeeper.plugins.rclone import Rclone, Refused, key_of, place_of


@dataclass(frozen=True, slots=True)
class Store:
    """Where an experiment's objects are: a storage area, and the experiment's place in it."""

    area_path: str
    directory: str

    @property
    def place(self) -> str:
        """What holds the experiment's objects, as rclone names it."""
        return f"{place_of(self.area_path)}{self.directory}/"


@dataclass(frozen=True, slots=True)
class Stored:
    """One object, and what tells its content from another."""

    size: int
    state: str
    modified_s: int
    name: str
    _rclone: Rclone
    _place: str
    _key: str

    def pieces(self, begin: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of a part; raises DmError where there are none, or fewer by now."""
        try:
            with closing(self._rclone.read(self._place, self._key, begin, end)) as blocks:
                yield from blocks
        except Refused as refused:
            raise UnavailableError(f'"{self.name}" cannot be read: {refused.message[:400]}') from refused


class Objects:
    """Finds objects; may be used from several threads."""

    def __init__(self, rclone: Rclone) -> None:
        self._rclone = rclone

    def find(self, store: Store, choice: FileChoice, size: int | None) -> Stored:
        """Return the object that is meant, which has `size` bytes where that is known."""
        path, name = choice.relpath, show_path(choice.relpath)[:1000]
        if path.split(b"/", 1)[0].decode("ascii", "replace") not in OPEN_TREES:
            raise NotFoundError(f'path "{name}" is in neither tree: it begins with {Tree.DATA}/ or {Tree.ANALYSIS}/')
        kept = [] if choice.version is None else [f"{VERSIONS}/{key_of(path)}/{choice.version}"]
        for key in (*kept, key_of(path)):
            if (entry := self._stat(store.place, key)) is not None:
                found = self._stored(store.place, key, name, entry)
                break
        else:
            raise NotFoundError(f'there is no file "{name}" in the storage')
        if choice.state is not None and choice.state != found.state:
            raise ConflictError(f'"{name}" has changed since it was opened: open it again')
        if size is not None and found.size != size:
            raise ConflictError(f'"{name}" has {found.size} bytes in the storage and {size} in the catalogue')
        return found

    def _stat(self, place: str, key: str) -> dict[str, Any] | None:
        told = {"showHash": True, "hashTypes": ["md5"], "noMimeType": True}
        try:
            entry = self._rclone.call("operations/stat", fs=place, remote=key, opt=told)["item"]
        except (Refused, DestinationError) as error:
            raise UnavailableError(f"the storage of this experiment cannot be read: {error.message[:400]}") from error
        return None if entry is None or entry["IsDir"] else entry

    def _stored(self, place: str, key: str, name: str, entry: dict[str, Any]) -> Stored:
        modified = datetime.fromisoformat(entry["ModTime"])
        digest, size = (entry.get("Hashes") or {}).get("md5") or "0", int(entry["Size"])
        state = f"{digest[:16]}-{size:x}-{max(0, int(modified.timestamp() * 1e6)):x}"
        return Stored(size, state, int(modified.timestamp()), name, self._rclone, place, key)
