"""Values from files and programs: whatever they hold, what is kept is JSON that every database takes."""

from __future__ import annotations

import json
import math
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamkeeper.builtin.values import from_lines, from_output, json_safe, number_or_text, text
from beamkeeper.plugins.extractors import ExtractionError

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(alphabet=st.characters(exclude_categories=()))
    | st.binary()
    | st.complex_numbers()
    | st.builds(np.float32, st.floats(width=32))
    | st.builds(np.array, st.lists(st.integers(0, 255), max_size=3)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(anything)
def test_anything_becomes_json_that_a_database_takes(value: object) -> None:
    safe = json_safe(value)
    shown = json.dumps(safe, allow_nan=False, ensure_ascii=False)
    assert shown.encode("utf-8")
    assert "\\u0000" not in shown.replace("\\\\", "")
    assert json.loads(shown) == safe
    assert json_safe(safe) == safe


@given(st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_that_is_printed_is_read_as_that_number(number: float) -> None:
    read = number_or_text(f" {number!r} ")
    assert float(read if isinstance(read, str | int | float) else math.nan) == float(number)


@pytest.mark.parametrize("word", ["nan", "inf", "1_000", "0x10", "12 keV", "", "1.2.3", "--1", "2026-03-01", "1e"])
def test_what_is_no_plain_number_stays_text(word: str) -> None:
    assert number_or_text(word) == word


def test_numbers_beyond_every_range_are_kept_as_text_or_not_at_all() -> None:
    assert number_or_text("9" * 5000) is None
    assert number_or_text("1e999") is None
    assert number_or_text("9" * 30) == "9" * 30


@given(st.binary())
def test_any_output_gives_metadata_or_the_reason(output: bytes) -> None:
    with suppress(ExtractionError):
        assert json.dumps(from_output(output), allow_nan=False)


def test_lines_without_a_pair_are_passed_over() -> None:
    lines = ["# Exposure_time = 0.5", "", "=", ": x", "a:b:c", "no pair", "time: 12:30", "empty:"]
    assert from_lines(lines) == {"Exposure_time": 0.5, "a": "b:c", "time": "12:30", "empty": ""}


def test_old_bytes_are_read_as_latin_1() -> None:
    assert text(b"\xb5m") == "\u00b5m"
    assert text("\u00b5m".encode()) == "\u00b5m"


def test_bytes_that_were_smuggled_into_text_are_marked() -> None:
    assert text("a\udcffb") == "a\ufffdb"
    assert text("a\ud800b") == "a?b"
