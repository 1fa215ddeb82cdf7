"""The body that registers files, read by the short way: it says what the models say, or leaves it to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from beamkeeper.client.files import _parts
from beamkeeper.db.base import new_uid
from beamkeeper.domain import arriving_body
from beamkeeper.domain.arriving import Arriving, arriving
from beamkeeper.domain.arriving_body import read
from beamkeeper.domain.files import FileKind, NewFile, NewFiles, Source, SourceIdentity
from beamkeeper.domain.names import Checksum, to_b64
from beamkeeper.testing.catalogue import new_file


def body(*files: NewFile) -> bytes:
    return NewFiles(files=files).model_dump_json().encode()


def by_client(*files: NewFile) -> bytes:
    """Return the body that our client sends."""
    (part,) = _parts(files)
    return b'{"files":[' + b",".join(part.files) + b"]}"


def by_models(content: bytes) -> list[Arriving] | None:
    """Return what the models make of a body; None where they refuse it."""
    try:
        return arriving(NewFiles.model_validate_json(content).files)
    except ValidationError:
        return None


def values(found: list[Arriving] | None) -> list[tuple[Any, ...]] | None:
    """Return the same with metadata as what they mean: a number may be written in several ways."""
    return None if found is None else [(*each[:-1], repr(json.loads(each.metadata))) for each in found]


FILES = (
    new_file("data/a", metadata={"energy": {"value": 12.4, "unit": "keV"}, "µ": [1, None, True, "\u2603"]}),
    new_file(b"data/\xff", number=2, verified_at=None, read_from=None, is_to_read=True, also=(new_uid(), new_uid())),
    new_file("data/b", chunks=("ab", "cd"), is_snapshot=True, checksums=()),
    new_file("data/link", kind=FileKind.LINK, link_target_b64=""),
    new_file("data/µ ' and ;"),
)


@pytest.mark.parametrize("sent", [body, by_client])
@pytest.mark.parametrize("file", [*FILES, None])
def test_what_a_client_sends_is_read_by_the_short_way(file: NewFile | None, sent: Callable[..., bytes]) -> None:
    files = FILES if file is None else (file,)
    assert read(sent(*files)) == arriving(files)


@pytest.mark.parametrize(
    ("part", "model"),
    [
        (arriving_body._NewFiles, NewFiles),
        (arriving_body._NewFile, NewFile),
        (arriving_body._Source, Source),
        (arriving_body._SourceIdentity, SourceIdentity),
        (arriving_body._Checksum, Checksum),
    ],
)
def test_both_ways_know_the_same_fields(part: type[msgspec.Struct], model: Any) -> None:
    fields = {field.encode_name: field.required for field in msgspec.structs.fields(part)}
    assert fields == {name: field.is_required() for name, field in model.model_fields.items()}


REFUSED: dict[str, Callable[[bytes], bytes]] = {
    "no JSON": lambda content: content[:-1],
    "a key twice": lambda content: content.replace(b'"number":1', b'"number":1,"number":1'),
    "a key twice in the metadata": lambda content: content.replace(b'"unit":"keV"', b'"unit":"eV","unit":"keV"'),
    "a field that nobody knows": lambda content: content.replace(b'"number":1', b'"number":1,"colour":2'),
    "a path that climbs": lambda content: content.replace(b'"path":"data/a"', b'"path":"data/../a"'),
    "two paths": lambda content: content.replace(b'"path":"data/a"', b'"path":"data/b"'),
    "no path": lambda content: content.replace(b'"path":"data/a"', b'"path":null').replace(b'"ZGF0YS9h"', b'""'),
    "an empty path beside another": lambda content: content.replace(b'"path":"data/a"', b'"path":""'),
    "a number below its least": lambda content: content.replace(b'"number":1', b'"number":0'),
    "a size beyond 64 bits": lambda content: content.replace(b'"size":5,"checksums"', b'"size":1e30,"checksums"'),
    "a checksum of other letters": lambda content: content.replace(b'"value":"', b'"value":"X', 1),
    "a time without a zone": lambda content: content.replace(b"Z", b"", 1),
    "a day that is none": lambda content: content.replace(b'_at":"2026-', b'_at":"2026-02-30T00:00:00Z","x":"', 1),
    "a time that is empty": lambda content: content.replace(b'"verified_at":"', b'"verified_at":"","x":"'),
    "an integer that is none": lambda content: content.replace(b'"mtime_ns":1', b'"mtime_ns":"+1"'),
    "metadata that are none": lambda content: content.replace(b'"metadata":{', b'"metadata":null,"x":{'),
    "no file": lambda _: b'{"files":[]}',
}


@pytest.mark.parametrize("spoil", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_left_to_the_models(spoil: Callable[[bytes], bytes]) -> None:
    content = body(FILES[0])
    assert read(content) is not None
    spoilt = spoil(content)
    assert spoilt != content
    assert read(spoilt) is None


def test_metadata_that_are_not_kept_are_left_to_the_models() -> None:
    new = FILES[0].model_copy(update={"metadata": {"big": 2**70}})
    assert read(body(new)) is None


TIMES = st.datetimes(timezones=st.just(UTC)).map(lambda at: at.isoformat().replace("+00:00", "Z"))
LOOSE = st.text(alphabet="0123456789-:.TZ+ ", max_size=28)


@given(
    st.sampled_from(["modified_at", "finished_at", "transferred_at", "verified_at"]),
    TIMES | LOOSE | st.sampled_from(["2026-11-28T24:00:00Z", "2026-11-28T10:00:00.1234567Z", "20261128T100000Z"]),
)
@example("modified_at", "2026-11-28T10:00:60Z")
def test_a_time_is_read_as_the_models_read_it(name: str, text: str) -> None:
    sent = json.loads(body(FILES[0]))
    sent["files"][0][name] = text
    content = json.dumps(sent, ensure_ascii=False).replace('": ', '":').encode()
    assert read(content) in (None, by_models(content))


def test_a_time_of_every_client_is_read_by_the_short_way() -> None:
    for text in ("2026-11-28T10:00:00Z", "2026-11-28T10:00:00.5Z", "2026-11-28T10:00:00.123456Z"):
        content = body(new_file("data/a", modified_at=datetime.fromisoformat(text)))
        assert read(content) == by_models(content) is not None


WORDS = st.text(max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(WORDS, inside, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(WORDS, VALUES, max_size=4))
def test_metadata_come_through_as_the_models_keep_them(metadata: dict[str, Any]) -> None:
    content = body(new_file("data/a", metadata=metadata))
    assert values(read(content)) in (None, values(by_models(content)))


@given(st.binary(max_size=12), st.booleans(), st.integers(-(2**80), 2**80))
def test_paths_and_numbers_come_through_as_the_models_keep_them(raw: bytes, has_text: bool, number: int) -> None:
    sent = json.loads(by_client(FILES[0]))
    new = sent["files"][0]
    new |= {"path_b64": to_b64(raw), "number": number}
    new["identity"]["ino"] = str(number)
    if has_text:
        new["path"] = raw.decode("utf-8", "replace")
    else:
        new.pop("path", None)
    content = json.dumps(sent, ensure_ascii=False, separators=(",", ":")).encode()
    assert read(content) in (None, by_models(content))
