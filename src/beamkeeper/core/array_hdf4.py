"""Arrays of HDF4 files, as NeXus wrote them once: their scientific datasets, in the order of the file."""

from __future__ import annotations

from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np

from beamkeeper.core.array_formats import NodeFacts, check_size, npy
from beamkeeper.domain.errors import InvalidError, NotFoundError
from beamkeeper.domain.jsonable import json_safe, text
from beamkeeper.domain.slices import parse, shape_of

MAX_DATASETS = 10_000
MAX_ATTRIBUTES = 100
MAGIC = b"\x0e\x03\x13\x01"
_CHARACTER = 4
_KINDS = {3: "u1", 5: "f4", 6: "f8", 20: "i1", 21: "u1", 22: "i2", 23: "u2", 24: "i4", 25: "u4"}
"""Numpy's types by the numbers that HDF4 has for them."""


class Hdf4Reader:
    """Reads one open file: all datasets stand in its root, with a number where a name comes again."""

    format: ClassVar[str] = "HDF4"

    def __init__(self, descriptor: int) -> None:
        try:
            from pyhdf.SD import SD, SDC
        except ImportError as error:
            raise InvalidError(
                "HDF4 files are read through pyhdf: `pip install 'beamkeeper[formats]'` at the storage"
            ) from error
        self._file: Any = SD(f"/proc/self/fd/{descriptor}", SDC.READ)
        self._places: dict[str, int] = {}
        for place in range(min(self._file.info()[0], MAX_DATASETS)):
            name = text(self._file.select(place).info()[0], 200).replace("/", "_") or "data"
            again = sum(known == name or known.startswith(f"{name} (") for known in self._places)
            self._places[f"{name} ({again + 1})" if again else name] = place

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.end()

    def node(self, name: str) -> NodeFacts:
        """Return what stands at a name."""
        if name.strip("/"):
            return self._facts(name.strip("/"))
        return {**self._root(), "members": [{"name": known, "kind": "dataset"} for known in self._places]}

    def tree(self, name: str, limit: int) -> tuple[list[NodeFacts], bool]:
        """Return what stands at a name and below it."""
        if name.strip("/"):
            return [self._facts(name.strip("/"))], False
        nodes = [self._root(), *map(self._facts, list(self._places)[: limit - 1])]
        return nodes, len(self._places) > limit - 1

    def members(self, name: str, limit: int) -> tuple[list[NodeFacts], bool]:
        """Return what stands at a name and directly in it: there is nothing deeper."""
        return self.tree(name, limit)

    def values(self, name: str, select: str) -> memoryview:
        """Return values of a dataset."""
        dataset = self._dataset(name.strip("/"))
        shape, kind = _form(dataset)
        if kind is None:
            raise InvalidError(f'"{name}" is of a type that is not read')
        selection = parse(select, shape)
        check_size(selection, kind.itemsize)
        if kind.kind == "S":  # letters in a row are one text, and never many
            check_size(parse("", shape), kind.itemsize)
            letters = np.asarray(dataset.get())  # as numbers, or as letters
            letters = letters.astype("u1" if letters.dtype.kind in "ui" else "S1")
            texts = np.frombuffer(letters.tobytes(), kind).reshape(shape)
            return npy(texts[tuple(axis.key for axis in selection)])
        if not all(axis.count for axis in selection):
            return npy(np.zeros(shape_of(selection), kind))
        part = [[getattr(axis, word) for axis in selection] for word in ("start", "count", "step")]
        return npy(np.asarray(dataset.get(*part)).reshape(shape_of(selection)))

    def _dataset(self, name: str) -> Any:
        if name not in self._places:
            raise NotFoundError(f'the file has no "{name}"')
        return self._file.select(self._places[name])

    def _root(self) -> NodeFacts:
        return {"name": "/", "kind": "group", "attrs": _attributes(self._file)}

    def _facts(self, name: str) -> NodeFacts:
        dataset = self._dataset(name)
        shape, kind = _form(dataset)
        return {
            "name": f"/{name}",
            "kind": "dataset",
            "shape": list(shape),
            "dtype": str(kind or "unknown"),
            "descr": None if kind is None else np.lib.format.dtype_to_descr(kind),
            "attrs": _attributes(dataset),
        }


def _form(dataset: Any) -> tuple[tuple[int, ...], np.dtype[Any] | None]:
    _, _, lengths, number, _ = dataset.info()
    shape = tuple(lengths) if isinstance(lengths, list) else (lengths,)
    if number == _CHARACTER and shape[-1]:
        return shape[:-1], np.dtype(f"S{shape[-1]}")
    return shape, np.dtype(_KINDS[number]) if number in _KINDS else None


def _attributes(found: Any) -> dict[str, Any]:
    return {text(name, 200): json_safe(value) for name, value in list(found.attributes().items())[:MAX_ATTRIBUTES]}
