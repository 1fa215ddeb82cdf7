"""Arrays of detector images that fabio reads: their frames, as one dataset."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np

from beamkeeper.core.array_formats import NodeFacts, check_size, npy
from beamkeeper.domain.errors import InvalidError, NotFoundError, TooLargeError
from beamkeeper.domain.slices import parse

MAX_FRAMES = 100_000
MAX_PIXELS = 256 * 1024 * 1024
READERS = {"CBF": "cbfimage", "EDF": "edfimage", "ADSC": "dtrekimage"}


def recognise(head: bytes) -> str | None:
    """Return which of the formats a file is in, by how it begins; None for any other."""
    if head.startswith(b"###CBF"):
        return "CBF"
    text = head.lstrip()
    if not text.startswith(b"{"):
        return None
    return "ADSC" if b"HEADER_BYTES" in head else "EDF"


class FrameReader:
    """Reads one open file: `/data` has its frames."""

    format: ClassVar[str] = "image"

    def __init__(self, descriptor: int, kind: str) -> None:
        try:
            from fabio import fabioformats
        except ImportError as error:
            raise InvalidError(
                f"{kind} files are read through fabio: `pip install 'beamkeeper[formats]'` at the storage"
            ) from error
        logging.disable(logging.CRITICAL)  # fabio warns of what is then told in its place
        # By a name that leads to the open file, whatever happens to its own name meanwhile.
        self._image = fabioformats.factory(READERS[kind]).read(f"/proc/self/fd/{descriptor}")
        self._count = int(self._image.nframes)
        if self._count > MAX_FRAMES:
            raise TooLargeError(f"a file of more than {MAX_FRAMES} frames is not read")
        shape = tuple(int(axis) for axis in self._image.shape)
        if len(shape) != 2 or shape[0] * shape[1] > MAX_PIXELS:
            raise TooLargeError(f"a frame of {shape} is not read")
        self._shape = (self._count, *shape)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._image.close()

    def node(self, name: str) -> NodeFacts:
        """Return what stands at a name."""
        if name.strip("/"):
            return self._facts(name)
        return {"name": "/", "kind": "group", "members": [{"name": "data", "kind": "dataset"}]}

    def tree(self, name: str, limit: int) -> tuple[list[NodeFacts], bool]:
        """Return what stands at a name and below it."""
        if name.strip("/"):
            return [self._facts(name)], False
        nodes: list[NodeFacts] = [{"name": "/", "kind": "group"}, self._facts("/data")]
        return nodes[:limit], len(nodes) > limit

    def members(self, name: str, limit: int) -> tuple[list[NodeFacts], bool]:
        """Return what stands at a name and directly in it: there is nothing deeper."""
        return self.tree(name, limit)

    def values(self, name: str, select: str) -> memoryview:
        """Return frames, or parts of them."""
        self._check(name)
        selection = parse(select, self._shape)
        dtype = self._dtype()
        check_size(selection, dtype.itemsize)
        frames, *inside = selection
        key = tuple(axis.key for axis in inside)
        numbers = range(frames.start, frames.start + frames.count * frames.step, frames.step)
        taken = [self._frame(number)[key] for number in numbers]
        if frames.is_index:
            return npy(taken[0])
        empty = np.zeros((0, *(axis.count for axis in inside if not axis.is_index)), dtype)
        return npy(np.stack(taken) if taken else empty)

    def _frame(self, number: int) -> Any:
        data = self._image.data if self._count == 1 else self._image.getframe(number).data
        if tuple(data.shape) != self._shape[1:]:
            raise InvalidError(f"frame {number} has another shape than the first")
        return np.asarray(data, self._dtype())

    def _dtype(self) -> np.dtype[Any]:
        found: np.dtype[Any] = np.dtype(self._image.data.dtype).newbyteorder("=")
        return found

    def _check(self, name: str) -> None:
        if name.strip("/") != "data":
            raise NotFoundError(f'the file has no "{name}": the frames are in /data')

    def _facts(self, name: str) -> NodeFacts:
        self._check(name)
        dtype = self._dtype()
        return {
            "name": "/data",
            "kind": "dataset",
            "shape": list(self._shape),
            "dtype": str(dtype),
            "descr": np.lib.format.dtype_to_descr(dtype),
            "chunks": [1, *self._shape[1:]],
            "filters": [],
        }
