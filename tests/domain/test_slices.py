"""Selections of arrays: held against numpy, and cut into pieces that put together are the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamkeeper.domain import slices
from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.slices import parse, pieces, select, shape_of, shown, size_of

bounds = st.none() | st.integers(-12, 12)
keys = st.builds(slice, bounds, bounds, st.none() | st.integers(1, 5)) | st.integers(-9, 9)


@st.composite
def selections(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    chosen: list[Any] = [draw(keys) for _ in range(draw(st.integers(0, len(shape))))]
    if draw(st.booleans()):
        chosen.insert(draw(st.integers(0, len(chosen))), Ellipsis)
    return shape, tuple(chosen)


@given(selections())
def test_a_selection_means_what_it_means_to_numpy(given_: tuple[tuple[int, ...], tuple[Any, ...]]) -> None:
    shape, key = given_
    array = np.arange(np.prod(shape)).reshape(shape)
    try:
        expected = array[key]
    except IndexError:
        with pytest.raises(InvalidError):
            select(key, shape)
        return
    found = select(key, shape)
    assert np.array_equal(array[tuple(axis.key for axis in found)], expected)
    assert shape_of(found) == expected.shape
    assert size_of(found) == expected.size
    assert parse(shown(found), shape) == found


@given(selections(), st.integers(1, 40), st.booleans())
def test_pieces_are_small_and_make_up_the_whole_once(
    given_: tuple[tuple[int, ...], tuple[Any, ...]], limit: int, is_chunked: bool
) -> None:
    shape, key = given_
    array = np.arange(np.prod(shape)).reshape(shape)
    try:
        whole = select([slice(k, k + 1 or None) if isinstance(k, int) else k for k in key], shape)
    except InvalidError:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "ARRAY_BYTES", limit)
        found = list(pieces(whole, 1, tuple(min(3, length) for length in shape) if is_chunked else None))
    taken = [array[tuple(axis.key for axis in piece)].ravel() for piece in found]
    assert all(part.size <= limit for part in taken)
    expected = array[tuple(axis.key for axis in whole)].ravel()
    assert sorted(np.concatenate(taken).tolist()) == sorted(expected.tolist())


def test_pieces_are_cut_at_the_edges_of_chunks() -> None:
    whole = select((slice(3, None),), (200 * 1024 * 1024,))
    starts = [piece[0].start for piece in pieces(whole, 1, (1024 * 1024,))]
    assert starts[0] == 3
    assert all(start % (1024 * 1024) == 0 for start in starts[1:])
    assert len(starts) == 4


def test_one_element_is_never_cut() -> None:
    whole = select((slice(None),), (3,))
    assert [shown(piece) for piece in pieces(whole, 10**9)] == ["0:1:1", "1:2:1", "2:3:1"]


@given(st.text(max_size=30))
def test_any_text_is_a_selection_or_refused(words: str) -> None:
    try:
        found = parse(words, (5, 6))
    except InvalidError:
        return
    assert all(0 <= axis.start < length or not axis.count for axis, length in zip(found, (5, 6), strict=True))


@pytest.mark.parametrize(
    "words",
    [
        "a",
        "1,2,3",
        "...,...",
        "::0",
        "::-1",
        "5",
        "-6",
        "1" * 30,
        "1:2:3:4",
        ",",
        "0x1",
        "1e3",
        "[0]",
        "1;2",
        ":" * 3000,
    ],
)
def test_what_selects_nothing_is_refused(words: str) -> None:
    with pytest.raises(InvalidError):
        parse(words, (5, 6))


def test_an_array_of_one_value_is_selected_whole() -> None:
    assert parse("", ()) == parse("...", ()) == ()
    with pytest.raises(InvalidError):
        parse("0", ())
