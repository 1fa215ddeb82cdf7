"""Arrays of MDA files, as the EPICS sscan record saves them: each positioner and detector of each dimension.

Written from the description of the format in the synApps documentation; numbers are XDR, big-endian.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np

from beamkeeper.core.array_formats import NodeFacts, check_size, npy
from beamkeeper.domain.errors import InvalidError, NotFoundError, TooLargeError
from beamkeeper.domain.jsonable import text
from beamkeeper.domain.slices import parse

MAGIC = (b"\x3f\xa6\x66\x66", b"\x3f\xb3\x33\x33")
MAX_BYTES = 512 * 1024 * 1024
MAX_RANK = 8
MAX_COUNT = 1_000_000
MAX_SCANS = 200_000
MAX_TEXT = 64 * 1024


class _Xdr:
    """Reads XDR from where it stands."""

    def __init__(self, content: bytes, where: int) -> None:
        self.content, self.where = content, where

    def ints(self, count: int) -> tuple[int, ...]:
        """Return whole numbers."""
        found = self.numbers(">i4", count)
        return tuple(int(one) for one in found)

    def numbers(self, kind: str, count: int) -> np.ndarray[Any, np.dtype[Any]]:
        """Return numbers of a kind, as they lie in the file."""
        if not 0 <= count <= MAX_COUNT:
            raise InvalidError(f"the MDA file is said to have {count} of something")
        size = np.dtype(kind).itemsize * count
        if self.where < 0 or self.where + size > len(self.content):
            raise InvalidError("the MDA file ends too early")
        found = np.frombuffer(self.content, kind, count, self.where)
        self.where += size
        return found

    def text(self) -> str:
        """Return a text, which has its length twice."""
        (length,) = self.ints(1)
        if not length:
            return ""
        (length,) = self.ints(1)
        if not 0 <= length <= MAX_TEXT:
            raise InvalidError(f"the MDA file is said to have a text of {length} letters")
        found = self.content[self.where : self.where + length]
        self.where += -(-length // 4) * 4
        return text(found, 200)


@dataclass
class _Column:
    """A positioner or detector of a dimension, and its numbers."""

    values: np.ndarray[Any, np.dtype[Any]]
    attrs: dict[str, str] = field(default_factory=dict)


class MdaReader:
    """Reads one open file: `/scan_1` is the outermost dimension, and the last group has the innermost."""

    format: ClassVar[str] = "MDA"

    def __init__(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        if size > MAX_BYTES:
            raise TooLargeError(f"an MDA file of {size} bytes is not read")
        self._content = os.pread(descriptor, size, 0)
        header = _Xdr(self._content, 8)
        (rank,) = header.ints(1)
        if not 0 < rank <= MAX_RANK:
            raise InvalidError(f"the MDA file is said to have {rank} dimensions")
        self._shape = header.ints(rank)
        if min(self._shape) < 0 or np.prod(self._shape, dtype=float) > MAX_BYTES:
            raise InvalidError(f"the MDA file is said to have {self._shape} points")
        header.ints(2)
        self._left = MAX_SCANS
        self._columns: dict[str, _Column] = {}
        self._headers: dict[int, tuple[bytes, Sequence[tuple[str, dict[str, str]]]]] = {}
        self._scan(header.where, ())

    def _scan(self, where: int, at: tuple[int, ...]) -> None:
        """Take in a scan, and those within it; `at` is its place in the dimensions around it."""
        self._left -= 1
        if self._left < 0:
            raise TooLargeError(f"an MDA file of more than {MAX_SCANS} scans is not read")
        part, level = _Xdr(self._content, where), len(at) + 1
        rank, points, done = part.ints(3)
        if rank != len(self._shape) - len(at):
            raise InvalidError("the MDA file has scans within scans that do not fit together")
        inner = part.ints(points) if rank > 1 else ()
        part.text(), part.text()
        described = self._described(part, level)
        for name, attrs in described:
            values = part.numbers(">f8" if name.startswith("P") else ">f4", points)
            self._keep(f"/scan_{level}/{name}", attrs, values[: max(0, done)], at)
        for number, place in enumerate(inner[: self._shape[len(at)]]):
            if place:
                self._scan(place, (*at, number))

    def _described(self, part: _Xdr, level: int) -> Sequence[tuple[str, dict[str, str]]]:
        """Return what a scan has by name, with what is said of it; the scans of one dimension say the same."""
        raw, described = self._headers.get(level, (b"", ()))
        begin = part.where
        if raw and self._content.startswith(raw, begin):
            part.where += len(raw)
            return described
        positioners, detectors, triggers = part.ints(3)
        found = [_described(part, "P", 7) for _ in range(_bounded(positioners))]
        found += [_described(part, "D", 3) for _ in range(_bounded(detectors))]
        for _ in range(_bounded(triggers)):
            part.ints(1)
            part.text()
            part.numbers(">f4", 1)
        self._headers[level] = self._content[begin : part.where], found
        return found

    def _keep(self, name: str, attrs: dict[str, str], values: Any, at: tuple[int, ...]) -> None:
        shape = self._shape[: len(at) + 1]
        if name not in self._columns:
            self._columns[name] = _Column(np.full(shape, np.nan, values.dtype.newbyteorder("=")), attrs)
        self._columns[name].values[at][: len(values)] = values[: shape[-1]]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._columns.clear()

    def node(self, name: str) -> NodeFacts:
        """Return what stands at a name."""
        facts, *below = self._below(name, deep=False)
        if facts["kind"] == "group":
            facts["members"] = [{"name": one["name"].rpartition("/")[2], "kind": one["kind"]} for one in below]
        return facts

    def tree(self, name: str, limit: int) -> tuple[list[NodeFacts], bool]:
        """Return what stands at a name and below it."""
        nodes = self._below(name, deep=True)
        return nodes[:limit], len(nodes) > limit

    def members(self, name: str, limit: int) -> tuple[list[NodeFacts], bool]:
        """Return what stands at a name and directly in it."""
        nodes = self._below(name, deep=False)
        return nodes[:limit], len(nodes) > limit

    def values(self, name: str, select: str) -> memoryview:
        """Return values of a positioner or detector."""
        column = self._columns.get(f"/{name.strip('/')}")
        if column is None:
            raise NotFoundError(f'the file has no values at "{name}"')
        selection = parse(select, column.values.shape)
        check_size(selection, column.values.itemsize)
        return npy(column.values[tuple(axis.key for axis in selection)])

    def _below(self, name: str, *, deep: bool) -> list[NodeFacts]:
        here = f"/{name.strip('/')}".rstrip("/")
        if here in self._columns:
            return [self._facts(here)]
        found: dict[str, NodeFacts] = {}
        for column in sorted(self._columns):  # so that detectors come before positioners
            group = column.rpartition("/")[0]
            if not here and group not in found:
                found[group] = {"name": group, "kind": "group"}
            if column.startswith(f"{here}/") and (deep or group == here):
                found[column] = self._facts(column)
        if here and not found:
            raise NotFoundError(f'the file has no "{name}"')
        return [{"name": here or "/", "kind": "group"}, *found.values()]

    def _facts(self, name: str) -> NodeFacts:
        column = self._columns[name]
        return {
            "name": name,
            "kind": "dataset",
            "shape": list(column.values.shape),
            "dtype": str(column.values.dtype),
            "descr": np.lib.format.dtype_to_descr(column.values.dtype),
            "attrs": column.attrs,
        }


def _bounded(count: int) -> int:
    if not 0 <= count <= 2000:
        raise InvalidError(f"the MDA file is said to have {count} of something")
    return count


def _described(part: _Xdr, letter: str, texts: int) -> tuple[str, dict[str, str]]:
    """Return the name of a positioner or detector, and what is said of it."""
    (number,) = part.ints(1)
    pv, description, *rest = [part.text() for _ in range(texts)]
    unit = rest[1] if letter == "P" else rest[0]
    told = {"pv": pv, "description": description, "units": unit}
    return f"{letter}{number + 1:02}", {key: value for key, value in told.items() if value}
