"""Arrays of TIFF files: their pages, as datasets of frames."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
import tifffile

from beamkeeper.core.array_formats import NodeFacts, check_size, npy
from beamkeeper.domain.errors import InvalidError, NotFoundError, TooLargeError
from beamkeeper.domain.slices import parse

MAX_PAGES = 100_000
MAX_PAGE_BYTES = 512 * 1024 * 1024


class TiffReader:
    """Reads one open TIFF file: `/data` has the pages that are alike the first, `/data_1` those of the next kind."""

    format: ClassVar[str] = "TIFF"

    def __init__(self, descriptor: int) -> None:
        self._stream = os.fdopen(os.dup(descriptor), "rb")
        self._stream.seek(0)
        try:
            self._file = tifffile.TiffFile(self._stream, name="file.tif")
            self._sets = self._grouped()
        except BaseException:
            self._stream.close()
            raise

    def _grouped(self) -> dict[str, list[Any]]:
        alike: dict[tuple[object, object], list[Any]] = {}
        for number, page in enumerate(self._file.pages):
            if number >= MAX_PAGES:
                raise TooLargeError(f"a TIFF file of more than {MAX_PAGES} pages is not read")
            alike.setdefault((page.shape, str(page.dtype)), []).append(page)
        return {f"/data_{number}" if number else "/data": pages for number, pages in enumerate(alike.values())}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._stream.close()

    def node(self, name: str) -> NodeFacts:
        """Return what stands at a name."""
        if name.strip("/"):
            return self._facts(name)
        return {
            "name": "/",
            "kind": "group",
            "members": [{"name": name[1:], "kind": "dataset"} for name in self._sets],
        }

    def tree(self, name: str, limit: int) -> tuple[list[NodeFacts], bool]:
        """Return what stands at a name and below it."""
        if name.strip("/"):
            return [self._facts(name)], False
        nodes = [{"name": "/", "kind": "group"}, *map(self._facts, self._sets)]
        return nodes[:limit], len(nodes) > limit

    def members(self, name: str, limit: int) -> tuple[list[NodeFacts], bool]:
        """Return what stands at a name and directly in it: there is nothing deeper."""
        return self.tree(name, limit)

    def values(self, name: str, select: str) -> memoryview:
        """Return frames, or parts of them."""
        pages = self._pages(name)
        first = pages[0]
        dtype = self._dtype(first, name)
        shape = (len(pages), *first.shape)
        selection = parse(select, shape)
        check_size(selection, dtype.itemsize)
        if first.nbytes > MAX_PAGE_BYTES:
            raise TooLargeError(f"a page of {first.nbytes} bytes is too large to be read")
        frames, *inside = selection
        key = tuple(axis.key for axis in inside)
        numbers = range(frames.start, frames.start + frames.count * frames.step, frames.step)
        taken = [np.asarray(pages[number].asarray())[key] for number in numbers]
        if frames.is_index:
            return npy(taken[0])
        empty = np.zeros((0, *(axis.count for axis in inside if not axis.is_index)), dtype)
        return npy(np.stack(taken) if taken else empty)

    def _pages(self, name: str) -> list[Any]:
        pages = self._sets.get(f"/{name.strip('/')}")
        if pages is None:
            raise NotFoundError(f'the file has no "{name}": the pages are in /data')
        return pages

    @staticmethod
    def _dtype(page: Any, name: str) -> np.dtype[Any]:
        if page.dtype is None:
            raise InvalidError(f'"{name}" has pixels of a kind that is not read')
        found: np.dtype[Any] = np.dtype(page.dtype)
        return found

    def _facts(self, name: str) -> NodeFacts:
        pages = self._pages(name)
        dtype = self._dtype(pages[0], name)
        return {
            "name": name,
            "kind": "dataset",
            "shape": [len(pages), *pages[0].shape],
            "dtype": str(dtype),
            "descr": np.lib.format.dtype_to_descr(dtype.newbyteorder("=")),
            "chunks": [1, *pages[0].shape],
            "filters": [] if pages[0].compression == 1 else [str(pages[0].compression.name).lower()],
        }
