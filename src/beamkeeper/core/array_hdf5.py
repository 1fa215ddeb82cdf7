"""Arrays of HDF5 files, read without leaving the file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from types import TracebackType
from typing import Any, ClassVar, Self, TypeAlias

import h5py
import numpy as np

from beamkeeper.core.array_formats import NodeFacts, check_size, npy
from beamkeeper.domain.errors import DmError, InvalidError, NotFoundError, TooLargeError
from beamkeeper.domain.jsonable import json_safe, text
from beamkeeper.domain.slices import ARRAY_BYTES, parse, size_of
from beamkeeper.plugins.hdf5 import is_shape_elsewhere

MAX_HOPS = 32
MAX_DEPTH = 64
MAX_MEMBERS = 10_000
MAX_ATTRIBUTES = 200
MAX_ATTRIBUTE_BYTES = 64 * 1024
MAX_ATTRIBUTES_BYTES = 1024 * 1024
MAX_MEMBERS_BYTES = 4 * 1024 * 1024
"""So many bytes of attributes are told of all members of a group together."""

MAX_TEXTS = 1_000_000
_NAMED_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
_PLUGIN_FILTERS = {
    307: "bzip2",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32017: "sz",
    32024: "sz3",
    32026: "blosc2",
}
_DAMAGE = (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError)
Found: TypeAlias = h5py.HLObject | h5py.ExternalLink | None


class HDF5Reader:
    """Reads one open HDF5 file; its path is never asked for, so that nothing beside it can be reached by it."""

    format: ClassVar[str] = "HDF5"

    def __init__(self, descriptor: int) -> None:
        _register_filters()
        path = f"/proc/self/fd/{descriptor}"
        try:
            self._file = h5py.File(path, "r", locking=False)
        except OSError as error:
            try:
                self._file = h5py.File(path, "r", locking=False, swmr=True)  # taken while it was written
            except (OSError, ValueError):
                raise error from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def node(self, name: str) -> NodeFacts:
        """Return what stands at a name, with attributes and members."""
        found, rest = self._resolve(name)
        facts = _facts(name, found, rest)
        if isinstance(found, h5py.HLObject):
            facts["attrs"] = _attributes(found, MAX_ATTRIBUTES_BYTES)[0]
        if isinstance(found, h5py.Group):
            names = list(islice(found, MAX_MEMBERS + 1))
            facts["members"] = [{"name": text(name, 4096), "kind": _kind(found, name)} for name in names[:MAX_MEMBERS]]
            facts["is_cut"] = len(names) > MAX_MEMBERS
        return facts

    def tree(self, name: str, limit: int) -> tuple[list[NodeFacts], bool]:
        """Return what stands at a name and below it, in order; what is met a second time is not entered again."""
        found, rest = self._resolve(name)
        nodes = [_facts(name, found, rest)]
        walk = _below(found, name, set(), 0)
        nodes += islice(walk, limit - 1)
        return nodes, next(walk, None) is not None

    def members(self, name: str, limit: int) -> tuple[list[NodeFacts], bool]:
        """Return what stands at a name, and what stands at the names in it, links within the file followed."""
        found, rest = self._resolve(name)
        nodes = [_facts(name, found, rest)]
        if isinstance(found, h5py.HLObject):
            nodes[0]["attrs"] = _attributes(found, MAX_ATTRIBUTES_BYTES)[0]
        names = list(islice(found, limit)) if isinstance(found, h5py.Group) else []
        left = MAX_MEMBERS_BYTES
        for part in names[: limit - 1]:
            facts, left = self._member(f"{name.rstrip('/')}/{part}", left)
            nodes.append(facts)
        return nodes, len(names) == limit

    def _member(self, name: str, left: int) -> tuple[NodeFacts, int]:
        """Return a member of a group with its attributes, and for how many bytes of others' there is room then."""
        try:
            found, rest = self._resolve(name)
            facts = _facts(name, found, rest)
            if isinstance(found, h5py.HLObject):
                facts["attrs"], left = _attributes(found, left)
        except (DmError, *_DAMAGE):
            return {"name": text(name, 4096), "kind": "broken"}, left
        return facts, left

    def values(self, name: str, select: str) -> memoryview:
        """Return values of a dataset."""
        found, rest = self._resolve(name)
        if isinstance(found, h5py.ExternalLink):
            raise InvalidError(
                f'"{name}" is in another file: open "{text(found.filename)}" and ask for "{found.path}{rest}" there',
                target_file=text(found.filename),
            )
        if not isinstance(found, h5py.Dataset):
            raise InvalidError(f'"{name}" is no dataset, and has no values')
        _refuse_elsewhere(found, name)
        if found.shape is None:
            raise InvalidError(f'"{name}" is empty: it has no values')
        selection = parse(select, found.shape)
        if _is_text(found):
            return _texts(found, tuple(axis.key for axis in selection), size_of(selection))
        if found.dtype.hasobject:
            raise InvalidError(f'"{name}" is of the type {found.dtype}, which cannot be sent as an array')
        check_size(selection, found.dtype.itemsize)
        _refuse_unreadable(found, name)
        return npy(found[tuple(axis.key for axis in selection)])

    def _resolve(self, name: str) -> tuple[Found, str]:
        """Return what stands at a name, and what is left of the name behind a link into another file."""
        here: h5py.HLObject = self._file
        waiting = [part for part in name.split("/") if part]
        hops = 0
        while waiting:
            part = waiting.pop(0)
            if part == ".":
                continue
            if part == ".." or not isinstance(here, h5py.Group):
                raise NotFoundError(f'the file has no "{name}"')
            link = _link(here, part)
            if isinstance(link, h5py.ExternalLink):
                return link, "".join(f"/{rest}" for rest in waiting)
            if isinstance(link, h5py.SoftLink):
                hops += 1
                if hops > MAX_HOPS:
                    raise InvalidError(f'"{name}" leads in a circle')
                if link.path.startswith("/"):
                    here = self._file
                waiting = [inner for inner in link.path.split("/") if inner] + waiting
            elif isinstance(link, h5py.HardLink):
                here = here[part]
            else:
                raise NotFoundError(f'the file has no "{name}"')
        return here, ""


def _link(group: h5py.Group, name: str) -> object:
    try:
        return group.get(name, getlink=True)
    except (KeyError, TypeError):  # nothing there, or a link of a kind that somebody has defined
        return None


def _kind(group: h5py.Group, name: str) -> str:
    """Return what a name stands for; behind a soft link is looked where it is asked for."""
    link = _link(group, name)
    if isinstance(link, h5py.ExternalLink):
        return "external"
    if not isinstance(link, h5py.HardLink):
        return "other"
    try:
        found = group.get(name, getclass=True)
    except _DAMAGE:
        return "broken"
    return "group" if found is h5py.Group else "dataset" if found is h5py.Dataset else "other"


def _facts(name: str, found: Found, rest: str = "") -> NodeFacts:
    facts: NodeFacts = {"name": text(name, 4096)}
    if isinstance(found, h5py.ExternalLink):
        return facts | {
            "kind": "external",
            "target_file": text(found.filename, 4096),
            "target_name": text(found.path + rest, 4096),
        }
    if isinstance(found, h5py.Group):
        return facts | {"kind": "group"}
    if not isinstance(found, h5py.Dataset):
        return facts | {"kind": "other"}
    is_text = _is_text(found)
    return facts | {
        "kind": "dataset",
        "shape": None if is_shape_elsewhere(found) else found.shape,
        "dtype": "text" if is_text else text(str(found.dtype)),
        "descr": None if found.dtype.hasobject else np.lib.format.dtype_to_descr(found.dtype),
        "is_text": is_text,
        "chunks": found.chunks,
        "filters": [_filter_name(number) for number in _filters(found)],
    }


def _below(found: Found, name: str, seen: set[tuple[int, int]], depth: int) -> Iterator[NodeFacts]:
    if not isinstance(found, h5py.Group) or depth > MAX_DEPTH:
        return
    info = h5py.h5o.get_info(found.id)
    if (info.fileno, info.addr) in seen:
        return
    seen.add((info.fileno, info.addr))
    for part in found:
        below = f"{name.rstrip('/')}/{part}"
        link = _link(found, part)
        if isinstance(link, h5py.HardLink):
            try:
                inner = found[part]
                facts = _facts(below, inner)
            except _DAMAGE:
                yield {"name": text(below, 4096), "kind": "broken"}
                continue
            yield facts
            yield from _below(inner, below, seen, depth + 1)
        elif isinstance(link, h5py.ExternalLink):
            yield _facts(below, link)
        else:
            target = text(link.path, 4096) if isinstance(link, h5py.SoftLink) else ""
            yield {"name": text(below, 4096), "kind": "other", "target_name": target}


def _attributes(found: h5py.HLObject, left: int) -> tuple[dict[str, Any], int]:
    """Return attributes that are of bearable size, and how many bytes are left; one that cannot be read is null."""
    attributes: dict[str, Any] = {}
    for name in islice(found.attrs, MAX_ATTRIBUTES):
        try:
            attribute = found.attrs.get_id(name)
            size = attribute.get_storage_size()
            left -= size
            is_small = size <= MAX_ATTRIBUTE_BYTES and left > 0 and attribute.dtype.itemsize <= MAX_ATTRIBUTE_BYTES
            attributes[text(name, 200)] = json_safe(found.attrs[name]) if is_small else None
        except _DAMAGE:
            attributes[text(name, 200)] = None
    return attributes, left


def _is_text(dataset: h5py.Dataset) -> bool:
    info = h5py.check_string_dtype(dataset.dtype)
    return info is not None and info.length is None


def _texts(dataset: h5py.Dataset, key: tuple[int | slice, ...], count: int) -> memoryview:
    """Return texts of different lengths, as UTF-8 in fields of the longest."""
    if count > MAX_TEXTS:
        raise TooLargeError(f"{count} texts are more than {MAX_TEXTS}: ask for them in pieces")
    found = np.asarray(dataset[key], dtype=object)
    raw = [item if isinstance(item, bytes) else str(item).encode("utf-8", "surrogateescape") for item in found.flat]
    longest = max((len(item) for item in raw), default=1)
    if longest * count > ARRAY_BYTES:
        raise TooLargeError(f"{count} texts of up to {longest} bytes are too many for one answer: ask for fewer")
    return npy(np.array(raw, dtype=f"S{max(1, longest)}").reshape(found.shape))


def _refuse_elsewhere(dataset: h5py.Dataset, name: str) -> None:
    if dataset.is_virtual:
        sources = list(islice(dataset.virtual_sources(), 1000))
        names = sorted({text(source.file_name) for source in sources} - {"."})
        if not names:
            inner = sorted({text(source.dset_name) for source in sources})
            raise InvalidError(
                f'"{name}" is virtual: its values are in {", ".join(inner[:5])} of this file: open those'
            )
        raise InvalidError(
            f'"{name}" is virtual: its values are in other files ({", ".join(names[:5])}): open those',
            target_files=names[:100],
        )
    if dataset.external:
        raise InvalidError(f'"{name}" has its bytes in files beside it, which are not read for it')


def _filters(dataset: h5py.Dataset) -> list[int]:
    plan = dataset.id.get_create_plist()
    return [plan.get_filter(index)[0] for index in range(min(plan.get_nfilters(), 32))]


def _filter_name(number: int) -> str:
    return _NAMED_FILTERS.get(number) or _PLUGIN_FILTERS.get(number) or f"filter {number}"


def _refuse_unreadable(dataset: h5py.Dataset, name: str) -> None:
    for number in _filters(dataset):
        if not h5py.h5z.filter_avail(number):
            raise InvalidError(
                f'"{name}" is compressed by {_filter_name(number)}, which the storage service lacks: '
                f"pip install 'beamkeeper[formats]' there"
            )


def _register_filters() -> None:
    """Let HDF5 read what its plugins have compressed, where these are installed."""
    try:
        import hdf5plugin  # noqa: F401
    except ImportError:
        return
