"""Metadata: patches as RFC 7396 has them, what is remembered of them, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import JsonValue

from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.metadata import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_KEYS,
    acceptable,
    acceptable_text,
    check_metadata,
    checked_text,
    difference,
    joined,
    merge,
    patched,
    touched,
    undone,
)

RFC_7396: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7396)
def test_a_merge_patch_does_what_its_rfc_says(target: JsonValue, patch: JsonValue, result: JsonValue) -> None:
    assert merge(target, patch) == result


KEYS = st.sampled_from("ab")
LEAVES = st.none() | st.integers(0, 2)
FLAT: st.SearchStrategy[dict[str, JsonValue]] = st.dictionaries(KEYS, LEAVES)


@given(st.dictionaries(KEYS, st.integers(0, 2)), FLAT, FLAT)
def test_two_patches_joined_do_what_they_do_one_after_the_other(
    metadata: dict[str, JsonValue], first: dict[str, JsonValue], second: dict[str, JsonValue]
) -> None:
    assert patched(metadata, joined(first, second)) == patched(patched(metadata, first), second)


VALUES: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers(0, 1) | st.just(1.0),
    lambda inner: st.dictionaries(KEYS, inner, max_size=2) | st.lists(inner, max_size=2),
    max_leaves=5,
)
DOCUMENTS: st.SearchStrategy[dict[str, JsonValue]] = st.dictionaries(KEYS, VALUES, max_size=2)


@given(DOCUMENTS, DOCUMENTS)
def test_what_a_patch_touched_brings_back_what_was_before(
    metadata: dict[str, JsonValue], patch: dict[str, JsonValue]
) -> None:
    after = patched(metadata, patch)
    assert json.dumps(undone(after, patch, touched(metadata, patch)), sort_keys=True) == json.dumps(
        metadata, sort_keys=True
    )


@given(DOCUMENTS, DOCUMENTS)
def test_a_difference_can_be_undone_too_and_is_nothing_only_for_the_same(
    old: dict[str, JsonValue], new: dict[str, JsonValue]
) -> None:
    patch = difference(old, new)
    before = json.dumps(undone(new, patch, touched(old, patch)), sort_keys=True)
    assert before == json.dumps(old, sort_keys=True)
    assert bool(patch) == (before != json.dumps(new, sort_keys=True))


def nested(depth: int) -> dict[str, JsonValue]:
    value: dict[str, JsonValue] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (nested(32), nested(33)),
        ({"a": nested(1), "b": [[]]}, {"a": [nested(31)] * 2}),
        ({str(i): i for i in range(10_000)}, {str(i): i for i in range(10_001)}),
        ({"a": 2**63 - 1, "b": -(2**63)}, {"a": 2**63}),
        ({"a": True}, {"a": -(2**63) - 1}),
        ({"a": 1e308}, {"a": float("inf")}),
        ({"a": 5e-324}, {"a": [float("nan")]}),
        ({"a": "\x01\U0001f52c"}, {"a": "\0"}),
        ({"\x01": 1}, {"\0": 1}),
        ({"a": "\ud7ff"}, {"a": "\ud800"}),
        ({"a": "x" * (2**20 - 9)}, {"a": "x" * (2**20 - 8)}),
    ],
    ids=range(11),
)
def test_limits_hold_to_the_last_one(good: dict[str, JsonValue], bad: dict[str, JsonValue]) -> None:
    assert acceptable(good) is good
    with pytest.raises(InvalidError) as refusal:
        check_metadata(bad)
    assert acceptable(bad) == {"extraction": {"error": refusal.value.message}}


HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**63 - 1, -(2**63), 2**63, 10**18, 10**19]),
    st.floats(),
    st.text(),
    st.sampled_from(["\0", "\\u0000", "\ud800", "9" * 25, "a:b" * 20]),
)
TREES = st.recursive(
    HOSTILE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(metadata=st.dictionaries(st.text(max_size=3), TREES, max_size=4))
@example(metadata=nested(MAX_DEPTH))
@example(metadata=nested(MAX_DEPTH + 1))
@example(metadata={str(n): [{}] for n in range(40)})
@example(metadata={str(n): 1 for n in range(MAX_KEYS + 1)})
@example(metadata={"a": "é" * (MAX_BYTES // 2)})
@example(metadata={"\ud800": 1})
def test_the_text_of_metadata_shows_what_a_look_at_each_value_does(metadata: dict[str, Any]) -> None:
    why = refusal_of(check_metadata, metadata)
    assert refusal_of(checked_text, metadata) == why
    kept = metadata if why is None else {"extraction": {"error": why}}
    assert json.loads(acceptable_text(metadata)) == acceptable(metadata) == kept


def refusal_of(check: Callable[[dict[str, Any]], object], metadata: dict[str, Any]) -> str | None:
    try:
        check(metadata)
    except InvalidError as error:
        return error.message
    return None
