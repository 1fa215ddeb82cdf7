"""Files as they are registered: paths agree, and a key that stands twice in their JSON is always seen."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from beamkeeper.domain.files import NewFile, NewFiles, PathRef
from beamkeeper.domain.json_text import read_keys
from beamkeeper.domain.names import to_b64
from beamkeeper.testing.catalogue import new_file

SPACES = ("", "", "", " ", "\n", "\t ")
texts = st.text(alphabet='ab:"\\ \u00b5\x00', max_size=5)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


class _Writer:
    """Writes JSON as others might: with spaces, with characters as numbers, and with a key twice where it is told."""

    def __init__(self, data: st.DataObject) -> None:
        self._draw = data.draw
        self.repeated = 0

    def text(self, value: str) -> str:
        plain = json.dumps(value, ensure_ascii=self._draw(st.booleans()))
        if self._draw(st.booleans()):
            return plain
        return '"' + "".join(f"\\u{ord(char):04x}" for char in value) + '"'

    def value(self, value: Any) -> str:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return "[" + ",".join(map(self.value, value)) + "]"
        if not isinstance(value, dict):
            return json.dumps(value)
        pairs = [self._pair(key, inner) for key, inner in value.items()]
        if pairs and self._draw(st.integers(0, 3)) == 0:
            pairs.append(self._pair(next(iter(value)), self._draw(scalars)))
            self.repeated += 1
        return "{" + ",".join(pairs) + "}"

    def _pair(self, key: str, value: Any) -> str:
        return f"{self.text(key)}{self._draw(st.sampled_from(SPACES))}:{self.value(value)}"


@given(st.dictionaries(texts, values, max_size=4), st.data())
def test_a_key_that_stands_twice_is_never_counted_as_one(metadata: dict[str, Any], data: st.DataObject) -> None:
    writer = _Writer(data)
    plain = json.loads(new_file("data/a").model_dump_json(exclude={"metadata"}))
    rest = json.dumps(plain, separators=(",", ":"))
    content = f'{{"files":[{rest[:-1]},"metadata":{writer.value(metadata)}}}]}}'.encode()
    try:
        keys = NewFiles.model_validate_json(content).given_keys
    except ValidationError:  # the slow way decides
        return
    if writer.repeated:
        assert keys is None or keys != read_keys(content)


@given(st.dictionaries(st.text("ab:", min_size=1, max_size=3), st.integers(0, 9) | st.text("ab:' /", max_size=4)))
def test_what_our_client_sends_is_read_once(metadata: dict[str, Any]) -> None:
    new = new_file("data/a", metadata=metadata)
    content = NewFiles(files=(new,)).model_dump_json().encode()
    if " :" not in content.decode():
        assert NewFiles.model_validate_json(content).given_keys == read_keys(content)


def test_a_key_of_the_file_itself_that_stands_twice_is_seen() -> None:
    content = NewFiles(files=(new_file("data/a"),)).model_dump_json(exclude={"files": {"__all__": {"path"}}}).encode()
    found = NewFiles.model_validate_json(content)
    assert found.given_keys == read_keys(content)
    assert found.files[0].path == "data/a"  # filled in, and not counted
    twice = content.replace(b'"number":1', b'"number":1,"number":1')
    assert NewFiles.model_validate_json(twice).given_keys != read_keys(twice)


@pytest.mark.parametrize(
    "given_",
    [
        {"path": "data/\u00b5"},
        {"path_b64": to_b64("data/\u00b5".encode())},
        {"path": "data/\u00b5", "path_b64": to_b64("data/\u00b5".encode())},
    ],
)
def test_either_way_to_write_a_path_fills_in_the_other(given_: dict[str, str]) -> None:
    path = PathRef.model_validate_json(json.dumps(given_))
    assert (path.path, path.path_b64) == ("data/\u00b5", to_b64("data/\u00b5".encode()))
    assert path.relpath == "data/\u00b5".encode()
    assert path == PathRef(**given_)


def test_a_path_that_is_no_text_has_its_bytes() -> None:
    path = PathRef(path_b64=to_b64(b"data/\xff"))
    assert (path.path, path.relpath) == (None, b"data/\xff")


@pytest.mark.parametrize(
    ("given_", "reason"),
    [
        ({}, "give path or path_b64"),
        ({"path": "a", "path_b64": to_b64(b"b")}, "name different files"),
        ({"path": "../a"}, "not a plain relative path"),
        ({"path_b64": to_b64(b"a/../b")}, "not a plain relative path"),
        ({"path_b64": "%%"}, "not URL-safe base64"),
        ({"path_b64": 7}, "valid string"),
    ],
)
def test_a_path_that_says_two_things_or_climbs_is_refused(given_: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        PathRef.model_validate_json(json.dumps(given_))


def test_metadata_that_nobody_keeps_is_text_that_says_why() -> None:
    assert json.loads(new_file("data/a", metadata={"n": 2**70}).metadata_text)["extraction"]["error"]
    assert NewFile.model_validate_json(new_file("data/a").model_dump_json()).metadata_text == "{}"
