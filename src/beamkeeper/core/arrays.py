"""Reading arrays in stored files: the file is opened here, without a way out of its experiment, and read elsewhere.

The bytes are parsed by a process that has nothing but the open file and limits of memory and time.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from queue import LifoQueue
from typing import cast
from uuid import UUID

from beamkeeper.db import StorageTransaction
from beamkeeper.domain.arrays import FileChoice, FileNode, FileTree, NodeQuery, TreeQuery, ValuesQuery
from beamkeeper.domain.errors import (
    ConflictError,
    DmError,
    InternalError,
    InvalidError,
    NotFoundError,
    UnavailableError,
    error_classes,
)
from beamkeeper.domain.experiments import Experiment, Tree
from beamkeeper.domain.names import RelPath, show_path
from beamkeeper.domain.slices import ARRAY_BYTES
from beamkeeper.domain.storage import VERSIONS
from beamkeeper.plugins.below import DIRECTORY, open_below
from beamkeeper.plugins.reading import ReadingError, ReadingProcess

READERS = 2
TIMEOUT_S = 20.0
IDLE_S = 60.0
ANSWER_BYTES = ARRAY_BYTES + 1024 * 1024
OPEN_TREES = frozenset({Tree.DATA, Tree.ANALYSIS})

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})


def directory(tx: StorageTransaction, experiment: Experiment, *, area_uid: UUID | None = None) -> str:
    """Return the directory of an experiment, in its own storage area or in another one."""
    area = tx.storage.get(area_uid or experiment.storage_area_uid)
    if not os.path.isabs(area.path):
        why = f'storage area "{area.name}" is an object store, where no file can be opened: get it with `dm download`'
        raise ConflictError(why)
    return os.path.join(area.path, experiment.directory)


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that is open, and what tells its content from another."""

    descriptor: int
    size: int
    state: str


@contextmanager
def opened(directory: str, choice: FileChoice) -> Iterator[Opened]:
    """Open the file that is meant below an experiment's directory; no link on the way is followed.

    A version stands where older ones are kept, or else, being the newest, at its plain path.
    """
    path = choice.relpath
    if path.split(b"/", 1)[0].decode("ascii", "replace") not in OPEN_TREES:
        raise NotFoundError(f'path "{show_path(path)[:1000]}" is in neither tree: it begins with data/ or analysis/')
    places = [path]
    if choice.version is not None:
        places.insert(0, RelPath(f"{VERSIONS}/".encode() + path + f"/{choice.version}".encode()))
    descriptor = _first(directory, places, path)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise InvalidError(f'"{show_path(path)[:1000]}" is no plain file')
        state = f"{found.st_ino:x}-{found.st_size:x}-{max(0, found.st_mtime_ns):x}"
        if choice.state is not None and choice.state != state:
            raise ConflictError(f'"{show_path(path)[:1000]}" has changed since it was opened: open it again')
        yield Opened(descriptor, found.st_size, state)
    finally:
        os.close(descriptor)


def _first(directory: str, places: list[RelPath], path: RelPath) -> int:
    try:
        root_descriptor = os.open(directory, DIRECTORY)
    except OSError as error:
        raise UnavailableError(
            f"the storage of this experiment cannot be opened: {os.strerror(error.errno or 0)}"
        ) from error
    try:
        return _open_first(root_descriptor, places, path)
    finally:
        os.close(root_descriptor)


def _open_first(root_descriptor: int, places: list[RelPath], path: RelPath) -> int:
    shown = f'"{show_path(path)[:1000]}"'
    for place in places:
        try:
            return open_below(root_descriptor, place, _FILE)
        except OSError as error:
            if error.errno in _NOT_THERE:
                continue
            if error.errno in (errno.ELOOP, errno.EMLINK):
                raise InvalidError(f"{shown} is a link, or lies behind one: ask for what it leads to") from error
            if error.errno in (errno.EACCES, errno.EPERM, errno.ENXIO):
                raise ConflictError(f"the storage service may not read {shown}: see its rights") from error
            raise UnavailableError(f"{shown} cannot be opened: {os.strerror(error.errno or 0)}") from error
    raise NotFoundError(f"there is no file {shown} in the storage")


class ArrayReaders:
    """A few processes that read files; each answers one question at a time, and is replaced when a file kills it."""

    def __init__(self, count: int = READERS, *, timeout_s: float = TIMEOUT_S, idle_s: float = IDLE_S) -> None:
        self.count = count
        self._free: LifoQueue[ReadingProcess] = LifoQueue()
        self._all = [
            ReadingProcess(
                "beamkeeper.core.array_reader", timeout_s=timeout_s, idle_s=idle_s, max_answer_bytes=ANSWER_BYTES
            )
            for _ in range(count)
        ]
        for process in self._all:
            self._free.put(process)

    def node(self, file: Opened, query: NodeQuery) -> FileNode:
        """Return what stands at a name."""
        header, _ = self._ask("node", file, {"name": query.name})
        return FileNode.model_validate({**header, "state": file.state, "size": file.size})

    def tree(self, file: Opened, query: TreeQuery) -> FileTree:
        """Return what stands at a name and below it."""
        header, _ = self._ask("tree", file, {"name": query.name, "limit": query.limit})
        return FileTree.model_validate({**header, "state": file.state, "size": file.size})

    def members(self, file: Opened, query: TreeQuery) -> FileTree:
        """Return what stands at a name and directly in it, with attributes."""
        header, _ = self._ask("members", file, {"name": query.name, "limit": query.limit})
        return FileTree.model_validate({**header, "state": file.state, "size": file.size})

    def values(self, file: Opened, query: ValuesQuery) -> memoryview:
        """Return values of a dataset, as the content of a .npy file."""
        return self._ask("values", file, {"name": query.name, "select": query.select})[1]

    def close(self) -> None:
        """End the processes."""
        for process in self._all:
            process.close()

    def _ask(self, verb: str, file: Opened, question: Mapping[str, object]) -> tuple[dict[str, object], memoryview]:
        process = self._free.get()
        try:
            header, payload = process.ask({"verb": verb, **question}, file.descriptor)
        except ReadingError as error:
            raise InvalidError(f"this cannot be read of the file: {error}") from error
        except OSError as error:
            raise UnavailableError(f"no process can be started that reads files: {error.strerror}") from error
        finally:
            self._free.put(process)
        if "error" in header:
            raise _error(header)
        return header, payload


def _error(header: Mapping[str, object]) -> DmError:
    cls = error_classes().get(str(header["code"]), InternalError)
    details = header.get("details")
    return cls(str(header["error"]), **(cast("dict[str, object]", details) if isinstance(details, dict) else {}))
