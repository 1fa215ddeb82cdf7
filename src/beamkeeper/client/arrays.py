"""Arrays in stored files, read over HTTP slice by slice: files, groups and datasets much as h5py has them.

with client.files.open("data/scan_1.h5", experiment="coffee") as file:
    frames = file["entry/data/data"]
    frame = frames[10, 100:200, ::2]
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast
from uuid import UUID

from pydantic import JsonValue

from beamkeeper.client.http import Http
from beamkeeper.domain.arrays import FileChoice, FileNode, FileTree, Node, NodeKind, NodeQuery, TreeQuery, ValuesQuery
from beamkeeper.domain.errors import InvalidError, NotFoundError, SettingsError, TooLargeError
from beamkeeper.domain.files import File
from beamkeeper.domain.names import RelPath, show_path
from beamkeeper.domain.slices import ARRAY_BYTES, Axis, Selection, pieces, select, shape_of, shown, size_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TIMEOUT_S = 120.0
"""How long one answer may take: others may be read before it."""

MAX_FOLLOWED = 16

Lookup = Callable[[bytes], File]
QueryT = TypeVar("QueryT", bound=FileChoice)


class Arrays:
    """What is in stored files, as the storage service reads them."""

    def __init__(self, http: Callable[[], Http], experiment: Callable[[str], UUID]) -> None:
        self._http = http
        self.experiment = experiment

    def open(self, file: File, version: int | None, lookup: Lookup, followed: int = 0) -> ArrayFile:
        """Return a file; `lookup` finds others of its experiment, to which it may have links."""
        return ArrayFile(self, file, version, lookup, followed)

    def node(self, experiment_uid: UUID, query: NodeQuery) -> FileNode:
        """Return what stands at a name in a file."""
        path = f"/api/v1/experiments/{experiment_uid}/arrays/node"
        found: FileNode = self._http().get(path, FileNode, query=query, timeout_s=TIMEOUT_S)
        return found

    def tree(self, experiment_uid: UUID, query: TreeQuery) -> FileTree:
        """Return what stands at a name in a file and below it."""
        path = f"/api/v1/experiments/{experiment_uid}/arrays/tree"
        found: FileTree = self._http().get(path, FileTree, query=query, timeout_s=TIMEOUT_S)
        return found

    def members(self, experiment_uid: UUID, query: TreeQuery) -> FileTree:
        """Return what stands at a name in a file and directly in it, with attributes."""
        path = f"/api/v1/experiments/{experiment_uid}/arrays/members"
        found: FileTree = self._http().get(path, FileTree, query=query, timeout_s=TIMEOUT_S)
        return found

    def values(self, experiment_uid: UUID, query: ValuesQuery) -> bytes:
        """Return values of a dataset, as the content of a .npy file."""
        path = f"/api/v1/experiments/{experiment_uid}/arrays/values"
        return self._http().content(path, query=query, timeout_s=TIMEOUT_S)


class Group(Mapping[str, "Group | Dataset"]):
    """A group of a file: names with groups and datasets."""

    def __init__(self, file: ArrayFile, node: Node) -> None:
        self.file = file
        self.name = node.name
        self._node = node

    @property
    def attrs(self) -> Mapping[str, JsonValue]:
        """The attributes, as JSON values."""
        return self._node.attrs

    def __getitem__(self, name: str) -> Group | Dataset:
        return self.file.at(name if name.startswith("/") else f"{self.name.rstrip('/')}/{name}")

    def __iter__(self) -> Iterator[str]:
        if self._node.is_cut:
            raise InvalidError(f'"{self.name}" has more names than can be listed: ask for those that you know')
        return (member.name for member in self._node.members)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        try:
            self[name]
        except (KeyError, InvalidError):
            return False
        return True

    def __repr__(self) -> str:
        return f'<group "{self.name}" of "{show_path(self.file.path)}">'


class ArrayFile(Group):
    """A stored file; it is the same content while it is open, or else reading fails with ConflictError."""

    def __init__(self, arrays: Arrays, file: File, version: int | None, lookup: Lookup, followed: int) -> None:
        self._arrays = arrays
        self._lookup = lookup
        self._followed = followed
        self._choice: dict[str, Any] = {"path_b64": file.path_b64, "version": version or file.version, "state": None}
        if file.checksums and version in (None, file.version):
            self._choice["checksum"] = str(file.checksums[0])
        self.catalogued = file
        self.path = file.relpath
        found = arrays.node(file.experiment_uid, self._asked(NodeQuery, "/"))
        self._choice["state"] = found.state
        self.format = found.format
        super().__init__(self, found.node)

    def at(self, name: str) -> Group | Dataset:
        """Return what stands at a name; a link into another file of the experiment is followed there."""
        node = self._at(posixpath.normpath(name))
        if node.kind is NodeKind.GROUP:
            return Group(self, node)
        if node.kind is NodeKind.DATASET:
            return Dataset(self, node)
        if node.kind is NodeKind.EXTERNAL:
            return self._follow(node)
        raise KeyError(f'"{name}" of "{show_path(self.path)}" is neither a group nor a dataset')

    def tree(self, name: str = "/", *, limit: int = 1000) -> FileTree:
        """Return what stands at a name and below it, with one question."""
        return self._arrays.tree(self.catalogued.experiment_uid, self._asked(TreeQuery, name, limit=limit))

    def members(self, name: str, *, limit: int = 1000) -> FileTree:
        """Return what stands at a name and directly in it, with attributes and with one question.

        Names that are links into another file of the experiment are followed; what it has is named as it is there.
        """
        try:
            found = self._arrays.members(self.catalogued.experiment_uid, self._asked(TreeQuery, name, limit=limit))
        except NotFoundError as error:
            raise KeyError(error.message) from error
        if found.nodes[0].kind is not NodeKind.EXTERNAL:
            return found
        other, there = self._leads_to(found.nodes[0])
        return other.members(there, limit=limit)

    def npy(self, name: str, selection: str) -> bytes:
        """Return values as the content of a .npy file: what datasets are made of."""
        return self._arrays.values(self.catalogued.experiment_uid, self._asked(ValuesQuery, name, select=selection))

    def _at(self, name: str) -> Node:
        try:
            return self._arrays.node(self.catalogued.experiment_uid, self._asked(NodeQuery, name)).node
        except NotFoundError as error:
            raise KeyError(error.message) from error

    def _asked(self, query: type[QueryT], name: str, **more: object) -> QueryT:
        return query.model_validate({**self._choice, "name": name, **more})

    def _follow(self, node: Node) -> Group | Dataset:
        other, name = self._leads_to(node)
        return other.at(name)

    def _leads_to(self, node: Node) -> tuple[ArrayFile, str]:
        """Return the file that a link leads to, and the name there."""
        if self._followed >= MAX_FOLLOWED:
            raise InvalidError(f'"{node.name}" leads from file to file without an end')
        beside = posixpath.normpath(
            posixpath.join(self.path.parent, node.target_file.encode("utf-8", "surrogateescape"))
        )
        if node.target_file.startswith("/") or beside.startswith(b".."):
            raise InvalidError(
                f'"{node.name}" is in "{node.target_file}", which is not in this experiment: it is not followed'
            )
        other = self._lookup(RelPath(beside))
        return self._arrays.open(other, None, self._lookup, self._followed + 1), posixpath.normpath(node.target_name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is kept open between slices."""

    def __repr__(self) -> str:
        return f'<{self.format} file "{show_path(self.path)}">'


class Dataset:
    """A dataset of a file: slices of it are read when they are asked for."""

    def __init__(self, file: ArrayFile, node: Node) -> None:
        self.file = file
        self.name = node.name
        self._node = node

    @property
    def attrs(self) -> Mapping[str, JsonValue]:
        """The attributes, as JSON values."""
        return self._node.attrs

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each dimension."""
        return self._node.shape or ()

    @property
    def ndim(self) -> int:
        """How many dimensions there are."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many elements there are."""
        count = 1 if self._node.shape is not None else 0
        for length in self.shape:
            count *= length
        return count

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """The shape of what is stored as one piece."""
        return self._node.chunks

    @property
    def compression(self) -> tuple[str, ...]:
        """How the pieces are compressed, by the names of the filters."""
        return self._node.filters

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The type of the elements; texts are objects (bytes)."""
        numpy = _numpy()
        if self._node.is_text:
            return cast("np.dtype[Any]", numpy.dtype(object))
        if self._node.descr is None:
            raise InvalidError(f'"{self.name}" is of the type {self._node.dtype}, which is not sent as an array')
        found: np.dtype[Any] = numpy.lib.format.descr_to_dtype(_tuples(self._node.descr))
        return found

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a dataset of one value has no length")
        return self.shape[0]

    def __getitem__(self, key: object) -> Any:
        """Return values: numbers and slices of each dimension, as with h5py; several requests where they are many."""
        numpy = _numpy()
        wanted = select(key if isinstance(key, tuple) else (key,), self.shape)
        full = tuple(Axis(axis.start, axis.count, axis.step) for axis in wanted)  # dimensions go at the end
        dtype = self.dtype
        taken = numpy.empty(shape_of(full), dtype)
        item_bytes = 256 if self._node.is_text else dtype.itemsize
        for piece in pieces(full, item_bytes, self.chunks) if taken.size else ():
            self._fill(taken, full, piece)
        found: NDArray[Any] = taken.reshape(shape_of(wanted))
        return found[()] if found.ndim == 0 else found

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return all values, for numpy."""
        found: NDArray[Any] = _numpy().asarray(self[...], dtype=dtype)
        return found

    def asstr(self, encoding: str = "utf-8") -> NDArray[Any] | str:
        """Return the values of a dataset of texts as text."""
        numpy = _numpy()
        found = self[...]
        if isinstance(found, bytes):
            return found.decode(encoding)
        decoded: NDArray[Any] = numpy.array([item.decode(encoding) for item in found.flat], dtype=object)
        return decoded.reshape(found.shape)

    def _fill(self, taken: NDArray[Any], full: Selection, piece: Selection) -> None:
        """Read a piece into its place; texts that are longer than was thought are read in smaller pieces."""
        where = tuple(_within(whole, part) for whole, part in zip(full, piece, strict=True))
        try:
            taken[where] = self._read(shown(piece))
        except TooLargeError:
            if not self._node.is_text or size_of(piece) == 1:
                raise
            for part in pieces(piece, ARRAY_BYTES // (size_of(piece) // 2)):
                self._fill(taken, full, part)

    def _read(self, selection: str) -> NDArray[Any]:
        content = io.BytesIO(self.file.npy(self.name, selection))
        found: NDArray[Any] = _numpy().lib.format.read_array(content, allow_pickle=False)
        return found.astype(object)[()] if self._node.is_text else found  # one text is no array

    def __repr__(self) -> str:
        return f'<dataset "{self.name}" of "{show_path(self.file.path)}": {self._node.dtype} {self.shape}>'


def _within(whole: Axis, part: Axis) -> slice:
    """Return where a piece of a dimension lies in what was asked for."""
    start = (part.start - whole.start) // whole.step
    return slice(start, start + part.count)


def _tuples(descr: Any) -> Any:
    """Return a type as numpy describes it: JSON knows lists only."""
    if isinstance(descr, list):
        return [tuple(tuple(part) if index == 2 else _tuples(part) for index, part in enumerate(f)) for f in descr]
    return descr


def _numpy() -> Any:
    try:
        import numpy
    except ImportError as error:
        raise SettingsError(
            "numpy is not installed here, which arrays need: pip install 'beamkeeper[arrays]'"
        ) from error
    return numpy
