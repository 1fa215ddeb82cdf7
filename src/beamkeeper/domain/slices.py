"""Selections of an array: `10:20, ::2, 5`, parsed without trust, and cut into pieces of a size.

Nothing here imports pydantic: the process that reads arrays starts with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from beamkeeper.domain.errors import InvalidError

MAX_DIMENSIONS = 32
MAX_TEXT = 2000
ARRAY_BYTES = 64 * 1024 * 1024
"""The most bytes of one answer: larger selections are asked for in pieces."""

_PART = re.compile(r"(?P<start>-?\d{1,19})?(?P<colon>:(?P<stop>-?\d{1,19})?(:(?P<step>\d{1,19})?)?)?")


@dataclass(frozen=True, slots=True)
class Axis:
    """What is wanted of one dimension: `count` elements from `start` by `step`; a single one drops the dimension."""

    start: int
    count: int
    step: int = 1
    is_index: bool = False

    @property
    def key(self) -> int | slice:
        """What h5py and numpy take."""
        return self.start if self.is_index else slice(self.start, self.start + self.count * self.step, self.step)

    def __str__(self) -> str:
        if self.is_index:
            return str(self.start)
        return f"{self.start}:{self.start + self.count * self.step}:{self.step}"


Selection = tuple[Axis, ...]


def parse(words: str, shape: Sequence[int]) -> Selection:
    """Return what a text selects of an array of this shape; empty is all of it."""
    if len(words) > MAX_TEXT:
        raise InvalidError(f"the selection has more than {MAX_TEXT} characters")
    parts = [part.strip() for part in words.split(",")] if words.strip() else []
    keys: list[int | slice | None] = [None if part == "..." else _key(part) for part in parts]
    return select([Ellipsis if key is None else key for key in keys], shape)


def _key(part: str) -> int | slice:
    match = _PART.fullmatch(part)
    if match is None or not part:
        raise InvalidError(f'"{part[:100]}" in the selection is neither a number, nor start:stop:step, nor "..."')
    start, stop, step = (None if match[name] is None else int(match[name]) for name in ("start", "stop", "step"))
    if match["colon"] is None and start is not None:
        return start
    return slice(start, stop, step)


def select(keys: Sequence[object], shape: Sequence[int]) -> Selection:
    """Return what numbers, slices and an Ellipsis select of an array of this shape."""
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidError(f"an array of {len(shape)} dimensions is not read")
    if sum(key is Ellipsis for key in keys) > 1:
        raise InvalidError('a selection has "..." once at most')
    given = len([key for key in keys if key is not Ellipsis])
    if given > len(shape):
        raise InvalidError(f"the selection has {given} dimensions, and the array {len(shape)}")
    full: list[object] = []
    for key in keys if any(key is Ellipsis for key in keys) else [*keys, Ellipsis]:
        full += [slice(None)] * (len(shape) - given) if key is Ellipsis else [key]
    return tuple(_axis(key, length, place) for place, (key, length) in enumerate(zip(full, shape, strict=True)))


def _axis(key: object, length: int, place: int) -> Axis:
    if isinstance(key, slice):
        step = 1 if key.step is None else key.step
        if not isinstance(step, int) or step < 1:
            raise InvalidError(f"a step is 1 or more, and not {key.step}: turn the answer round instead")
        found = range(*slice(key.start, key.stop, step).indices(length))
        return Axis(found.start, len(found), step) if found else Axis(0, 0)
    if isinstance(key, bool) or not hasattr(key, "__index__"):
        raise InvalidError(f"{str(key)[:100]!r} selects nothing: give numbers, slices or an Ellipsis")
    index = int(key.__index__())
    if not -length <= index < length:
        raise InvalidError(f"index {index} lies outside of dimension {place}, which has {length}")
    return Axis(index % length, 1, is_index=True)


def shape_of(selection: Selection) -> tuple[int, ...]:
    """Return the shape of what is selected."""
    return tuple(axis.count for axis in selection if not axis.is_index)


def size_of(selection: Selection) -> int:
    """Return how many elements are selected."""
    return math.prod(axis.count for axis in selection)


def shown(selection: Selection) -> str:
    """Return a selection as text."""
    return ",".join(str(axis) for axis in selection)


def pieces(selection: Selection, item_bytes: int, chunks: Sequence[int] | None = None) -> Iterator[Selection]:
    """Yield a selection in pieces that an answer holds, in order; cut at the edges of chunks where that can be."""
    if size_of(selection) * item_bytes <= ARRAY_BYTES or size_of(selection) < 2:
        yield selection
        return
    place = next(place for place, axis in enumerate(selection) if axis.count > 1)
    axis = selection[place]
    one = size_of(selection) // axis.count * item_bytes
    count = max(1, ARRAY_BYTES // max(1, one))
    if chunks is not None and axis.step == 1 and count > chunks[place]:
        count -= (axis.start + count) % chunks[place]  # later pieces then begin at an edge
        count = max(1, count)
    for start in _starts(axis, count, chunks[place] if chunks is not None and axis.step == 1 else 1):
        part = Axis(axis.start + start[0] * axis.step, start[1], axis.step)
        yield from pieces((*selection[:place], part, *selection[place + 1 :]), item_bytes, chunks)


def _starts(axis: Axis, count: int, chunk: int) -> Iterator[tuple[int, int]]:
    """Yield where the pieces of a dimension begin, and how long they are."""
    at, length = 0, count
    while at < axis.count:
        yield at, min(length, axis.count - at)
        at += length
        length = max(count // chunk * chunk, count if count < chunk else chunk)
