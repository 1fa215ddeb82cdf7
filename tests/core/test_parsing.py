"""Bodies that register files, read by a helper: what comes back, and what is read in the service all the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from beamkeeper.core import parsing
from beamkeeper.core.parsing import Parser
from beamkeeper.db.base import new_uid
from beamkeeper.domain.arriving import Arriving, arriving
from beamkeeper.domain.files import FileKind, NewFile, NewFiles
from beamkeeper.testing.catalogue import new_file
from beamkeeper.testing.station import until


def body(*files: NewFile) -> bytes:
    return NewFiles(files=files).model_dump_json().encode()


FILES = (
    new_file("data/a", metadata={"energy": {"value": 12.4, "unit": "keV"}, "µ": [1, None, True, "\u2603"]}),
    new_file(b"data/\xff", number=2, verified_at=None, read_from=None, is_to_read=True, also=(new_uid(), new_uid())),
    new_file("data/b", chunks=("ab", "cd"), is_snapshot=True, checksums=()),
    new_file("data/link", kind=FileKind.LINK, link_target_b64="YQ=="),
)


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> Iterator[Parser]:
    monkeypatch.setattr(parsing, "LARGE_BYTES", 0)
    monkeypatch.setattr(parsing, "SWARM_BYTES", 0)
    with closing(Parser()) as parser:
        yield parser


def read(parser: Parser, content: bytes) -> list[Arriving]:
    """Return what the helper says, once there is one."""
    return until(lambda: parser.read(content), "the helper answers")


def test_a_helper_returns_the_same_as_is_read_here(parser: Parser) -> None:
    assert parser.read(body(*FILES)) is None, "the first is not kept waiting for a process to start"
    assert read(parser, body(*FILES)) == arriving(FILES)
    assert read(parser, body(FILES[0])) == arriving(FILES[:1]), "nothing is left of a longer one"


REFUSED: dict[str, Callable[[bytes], bytes]] = {
    "no JSON": lambda content: content[:-1],
    "a key twice": lambda content: content.replace(b'"number":1', b'"number":1,"number":1'),
    "a key twice in the metadata": lambda content: content.replace(b'"unit":"keV"', b'"unit":"eV","unit":"keV"'),
    "a field that nobody knows": lambda content: content.replace(b'"number":1', b'"number":1,"colour":2'),
    "a path that climbs": lambda content: content.replace(b'"path":"data/a"', b'"path":"data/../a"'),
    "a number that is none": lambda content: content.replace(b'"number":1', b'"number":0'),
}


@pytest.mark.parametrize("spoil", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_left_to_the_service_which_says_why(parser: Parser, spoil: Callable[[bytes], bytes]) -> None:
    content = body(FILES[0])
    read(parser, content)
    spoilt = spoil(content)
    assert spoilt != content
    assert parser.read(spoilt) is None
    assert parser.read(content) == arriving(FILES[:1]), "and the helper goes on"


def test_when_a_helper_dies_the_service_reads_itself_and_another_is_started(parser: Parser) -> None:
    content = body(*FILES)
    read(parser, content)
    (helper,) = parser.helpers
    os.kill(helper, signal.SIGKILL)
    until(lambda: not parser.helpers or None, "it has ended")
    assert read(parser, content) == arriving(FILES)
    assert parser.helpers not in ([], [helper])


def test_few_or_small_bodies_start_no_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    content = body(*FILES)
    monkeypatch.setattr(parsing, "SWARM_BYTES", 3 * len(content))
    with closing(Parser()) as parser:
        for _ in range(10):
            assert parser.read(content) is None, "small ones do not count"
        monkeypatch.setattr(parsing, "LARGE_BYTES", len(content))
        assert parser.read(content) is None
        assert parser.read(content) is None
        assert not parser.is_asked
        assert parser.read(content) is None
        assert parser.is_asked
        assert read(parser, content) == arriving(FILES)
