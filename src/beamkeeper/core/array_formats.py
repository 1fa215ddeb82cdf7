"""What the readers of arrays share: their questions, and values as the content of .npy files."""

from __future__ import annotations

import io
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from beamkeeper.domain.errors import TooLargeError
from beamkeeper.domain.slices import ARRAY_BYTES, Selection, shown, size_of

NodeFacts = dict[str, Any]


class Reader(Protocol):
    """Reads one open file."""

    format: ClassVar[str]

    def node(self, name: str) -> NodeFacts:
        """Return what stands at a name, with attributes and members."""
        ...

    def tree(self, name: str, limit: int) -> tuple[list[NodeFacts], bool]:
        """Return what stands at a name and below it, in order, and whether that is cut."""
        ...

    def members(self, name: str, limit: int) -> tuple[list[NodeFacts], bool]:
        """Return what stands at a name and directly in it, with attributes, and whether that is cut."""
        ...

    def values(self, name: str, select: str) -> memoryview:
        """Return values of a dataset."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def check_size(selection: Selection, item_bytes: int) -> None:
    """Refuse what is more than an answer holds, before any of it is read."""
    wanted = size_of(selection) * max(1, item_bytes)
    if wanted > ARRAY_BYTES:
        raise TooLargeError(
            f"{shown(selection)} has {wanted} bytes, and one answer {ARRAY_BYTES} at most: ask for it in pieces"
        )


def npy(values: Any) -> memoryview:
    """Return an array as the content of a .npy file, never pickled."""
    content = io.BytesIO()
    np.lib.format.write_array(content, np.asarray(values), allow_pickle=False)
    return content.getbuffer()
