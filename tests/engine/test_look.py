"""What the storage says of its own files: what is there, where, and whether its bytes are the right ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamkeeper.db.base import new_uid
from beamkeeper.domain.files import ReadFrom
from beamkeeper.domain.names import Algorithm, Checksum, RelPath, from_b64, path_fields, to_b64
from beamkeeper.domain.storage import (
    CheckItem,
    CheckMode,
    CheckOutcome,
    EntryKind,
    ListedEntry,
    NewCheck,
    NewCheckItem,
    NewListing,
)
from beamkeeper.engine.beneath import Beneath
from beamkeeper.engine.look import Looker, PlainNames
from beamkeeper.engine.readback import Reader
from beamkeeper.testing.accounts import unprivileged

EXPERIMENT = UUID(int=7)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader()
    yield made
    made.close()


def item(path: bytes, content: bytes, number: int = 1, **changes: Any) -> NewCheckItem:
    checksum = Checksum(algorithm=Algorithm.BLAKE3, value=blake3(content).hexdigest())
    values: dict[str, Any] = {"path_b64": to_b64(path), "version_uid": new_uid(), "number": number}
    return NewCheckItem(**{**values, "size": len(content), "checksum": checksum, **changes})


def look(root: Path, reader: Reader, mode: CheckMode, *items: NewCheckItem) -> list[CheckItem]:
    with Beneath(root) as beneath:
        asked = NewCheck(uid=new_uid(), experiment_uid=EXPERIMENT, mode=mode, items=items)
        return Looker(beneath, reader).look(asked)


def outcomes(found: list[CheckItem]) -> list[CheckOutcome]:
    return [one.outcome for one in found]


def test_bytes_that_are_right_are_read_from_the_device(root: Path, reader: Reader) -> None:
    (root / "data" / "a").write_bytes(b"frame")
    os.sync()
    (found,) = look(root, reader, CheckMode.READ, item(b"data/a", b"frame"))
    assert (found.outcome, found.size, found.message) == (CheckOutcome.MATCH, 5, "")
    assert found.checksum is not None
    assert found.checksum.value == blake3(b"frame").hexdigest()
    assert found.read_from in (ReadFrom.DEVICE, ReadFrom.CACHE)


def test_a_flipped_bit_shows_when_it_is_read_and_only_then(root: Path, reader: Reader) -> None:
    (root / "data" / "a").write_bytes(b"frbme")
    wanted = item(b"data/a", b"frame")
    assert outcomes(look(root, reader, CheckMode.STAT, wanted)) == [CheckOutcome.MATCH]
    (found,) = look(root, reader, CheckMode.READ, wanted)
    assert found.outcome is CheckOutcome.DIFFERENT
    assert found.checksum is not None
    assert found.checksum.value == blake3(b"frbme").hexdigest()


def test_what_is_not_as_it_should_be_is_said(root: Path, reader: Reader) -> None:
    (root / "data" / "short").write_bytes(b"fr")
    (root / "data" / "directory").mkdir()
    os.mkfifo(root / "data" / "fifo")
    (root / "data" / "link").symlink_to("short")
    (root / "data" / "file").write_bytes(b"")
    names = (b"short", b"directory", b"fifo", b"link", b"gone", b"file/below")
    found = look(root, reader, CheckMode.READ, *(item(b"data/" + name, b"frame") for name in names))
    different, missing = CheckOutcome.DIFFERENT, CheckOutcome.MISSING
    assert outcomes(found) == [different, different, different, different, missing, missing]
    assert found[0].message == "it has 2 bytes in place of 5"


def test_links_are_looked_at_and_never_followed(root: Path, reader: Reader, tmp_path_factory: Any) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "a").write_bytes(b"frame")
    (root / "data" / "link").symlink_to(outside / "a")
    (root / "data" / "out").symlink_to(outside)
    target = to_b64(os.fsencode(outside / "a"))
    right = item(b"data/link", b"", link_target_b64=target)
    wrong = item(b"data/link", b"", link_target_b64=to_b64(b"elsewhere"))
    followed, through = item(b"data/link", b"frame"), item(b"data/out/a", b"frame")
    found = look(root, reader, CheckMode.READ, right, wrong, followed, through)
    assert outcomes(found) == [
        CheckOutcome.MATCH,
        CheckOutcome.DIFFERENT,
        CheckOutcome.DIFFERENT,
        CheckOutcome.MISSING,
    ]


def test_an_older_version_is_found_where_older_versions_are_kept(root: Path, reader: Reader) -> None:
    kept = root / ".dm" / "versions" / "data" / "a"
    kept.mkdir(parents=True)
    (kept / "1").write_bytes(b"first")
    (root / "data" / "a").write_bytes(b"other")
    one, two = item(b"data/a", b"first", 1), item(b"data/a", b"other", 2)
    assert outcomes(look(root, reader, CheckMode.READ, one, two)) == [CheckOutcome.MATCH] * 2
    (kept / "1").unlink()
    assert outcomes(look(root, reader, CheckMode.READ, one, two)) == [CheckOutcome.DIFFERENT, CheckOutcome.MATCH]


def test_a_file_that_we_may_not_read_is_unreadable_and_not_missing(root: Path, reader: Reader) -> None:
    for name in ("a", "b"):
        (root / "data" / name).write_bytes(b"frame")
    (root / "data" / "a").chmod(0)
    for directory in (root, root / "data", *list(root.parents)[:2]):
        directory.chmod(0o755)
    reader.close()
    with unprivileged():
        own = Reader()  # its threads have to be this account's too
        found = look(root, own, CheckMode.READ, item(b"data/a", b"frame"), item(b"data/b", b"frame"))
        own.close()
    assert outcomes(found) == [CheckOutcome.UNREADABLE, CheckOutcome.MATCH]


def pages(names: PlainNames, root: Path, limit: int, upto: bytes | None = None) -> list[ListedEntry]:
    found: list[ListedEntry] = []
    after: str | None = None
    while True:
        asked = NewListing(
            uid=new_uid(),
            experiment_uid=EXPERIMENT,
            after_b64=after,
            upto_b64=to_b64(upto) if upto else None,
            limit=limit,
        )
        answer: Any = names.page(EXPERIMENT, root, asked)
        found += [ListedEntry.model_validate(entry) for entry in answer["items"]]
        if answer["is_end"]:
            return found
        after = found[-1].path_b64


def paths(found: list[ListedEntry]) -> list[bytes]:
    return [bytes(entry.relpath) for entry in found]


PART = st.binary(min_size=1, max_size=3).filter(lambda part: not {0, 47} & set(part) and part not in (b".", b".."))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wanted=st.lists(st.lists(PART, min_size=1, max_size=3).map(b"/".join), max_size=12),
    limit=st.integers(1, 5),
    again=st.booleans(),
)
def test_every_name_is_listed_once_in_the_order_of_its_bytes(
    wanted: list[bytes], limit: int, again: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("listed")
    made: set[bytes] = set()
    for path in wanted:
        at = os.path.join(os.fsencode(root), b"data", path)
        try:
            os.makedirs(os.path.dirname(at), exist_ok=True)
            with open(at, "wb"):
                made.add(b"data/" + path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue
    (root / "data").mkdir(exist_ok=True)
    names = PlainNames()
    for _ in range(2 if again else 1):
        assert paths(pages(names, root, limit)) == sorted(made)
    for upto in made:
        assert paths(pages(names, root, limit, upto)) == [path for path in sorted(made) if path <= upto]
    names.close()


def test_a_walk_that_is_lost_goes_on_at_the_cursor(root: Path) -> None:
    for name in ("a/1", "a/2", "a.txt", "b/c/3", "z"):
        (root / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "data" / name).write_bytes(b"")
    wanted = paths(pages(PlainNames(), root, 100))
    assert wanted == [b"data/a.txt", b"data/a/1", b"data/a/2", b"data/b/c/3", b"data/z"]
    for index, after in enumerate(wanted):
        names = PlainNames()
        asked = NewListing(uid=new_uid(), experiment_uid=EXPERIMENT, after_b64=to_b64(after), limit=100)
        answer: Any = names.page(EXPERIMENT, root, asked)
        assert [from_b64(entry["path_b64"]) for entry in answer["items"]] == wanted[index + 1 :]
        names.close()


def test_kinds_are_told_apart_and_directories_left_out(root: Path) -> None:
    (root / "data" / "directory").mkdir()
    (root / "data" / "file").write_bytes(b"12345")
    (root / "data" / "link").symlink_to("nowhere")
    os.mkfifo(root / "data" / "fifo")
    found = {entry.path: (entry.kind, entry.size) for entry in pages(PlainNames(), root, 100)}
    assert found == {
        "data/fifo": (EntryKind.OTHER, 0),
        "data/file": (EntryKind.FILE, 5),
        "data/link": (EntryKind.LINK, 7),
    }


def test_a_directory_that_cannot_be_read_is_no_empty_one(root: Path) -> None:
    (root / "data" / "shut").mkdir(mode=0)
    for directory in (root, root / "data", *list(root.parents)[:2]):
        directory.chmod(0o755)
    with unprivileged(), pytest.raises(PermissionError):
        pages(PlainNames(), root, 100)


def test_names_that_are_no_text_are_listed(root: Path) -> None:
    path = b"data/\xff\n"
    with open(os.path.join(os.fsencode(root), path), "wb"):
        pass
    (entry,) = pages(PlainNames(), root, 100)
    assert entry.path is None
    assert path_fields(RelPath(path))["path_b64"] == entry.path_b64
