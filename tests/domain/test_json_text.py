"""JSON is read without guessing, and a refusal says what and where."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.json_text import parse_json

values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(values)
def test_what_is_json_is_read_as_it_is(value: JsonValue) -> None:
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ('{"a": 1, "b": {"a": 2}, "a": 3}', 24, 'the key "a" stands twice'),
        ('[{"a": {"b": "b", "b" : 1}}]', 18, 'the key "b" stands twice'),
        ('{"a": "NaN", "b": NaN}', 18, "JSON knows no NaN"),
        ('{"a": [1, -Infinity]}', 10, "JSON knows no -Infinity"),
        ('{"a": ' + "1" * 5000 + "}", 6, "a number has 5000 digits"),
        ("[" * 100_000, 900, "nested too deeply"),
        ('{"a":' * 2000 + "1" + "}" * 2000, 4500, "nested too deeply"),
        ('{"a": }', 6, "Expecting value"),
        ("", 0, "Expecting value"),
    ],
)
def test_a_refusal_has_a_place_and_a_reason(text: str, position: int, reason: str) -> None:
    with pytest.raises(InvalidError) as refusal:
        parse_json(text.encode())
    assert reason in refusal.value.message
    assert refusal.value.details["position"] == position


def test_other_encodings_are_refused() -> None:
    with pytest.raises(InvalidError, match="UTF-8"):
        parse_json('{"a": "\u00b5"}'.encode("latin-1"))


@given(st.binary() | st.text(alphabet='{}[]":,01aNnfIity- ').map(str.encode))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    reason = ""
    try:
        parse_json(content)
    except InvalidError as error:
        reason = error.message
    assert reason == "" or "at character" in reason
