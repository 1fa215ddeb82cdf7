"""The catalogue's tables and queries, on both databases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from beamkeeper.db import CatalogTransaction, Database
from beamkeeper.db.base import new_uid
from beamkeeper.db.schema import create
from beamkeeper.domain.errors import InvalidError, NotFoundError
from beamkeeper.domain.files import (
    File,
    FileCount,
    FileKind,
    FileOrder,
    FilePage,
    FileQuery,
    NewFile,
    Registered,
    RegisteredAs,
    ReplicaState,
    Source,
    SourceIdentity,
)
from beamkeeper.domain.names import Algorithm, Checksum, Metadata, show_path, to_b64
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import Reach
from beamkeeper.testing.beamline import Clock
from beamkeeper.testing.catalogue import EXPERIMENT, TAKEN, new_file

OTHER = UUID("01900000-0000-7000-8000-000000000002")
EVERYTHING = Reach(is_all=True)

Catalog = Database[CatalogTransaction]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalog(database_url: str, clock: Clock) -> Iterator[Catalog]:
    with closing(Database(database_url, CatalogTransaction, clock=clock)) as database:
        create(database, Service.CATALOG)
        yield database


def register(catalog: Catalog, *files: NewFile) -> list[Registered]:
    with catalog.write() as tx:
        return list(tx.files.register(files, by="service"))


def results(answers: list[Registered]) -> list[RegisteredAs]:
    return [answer.result for answer in answers]


def find(catalog: Catalog, **conditions: Any) -> list[str]:
    """Return the shown paths that a query finds, over all its pages."""
    return [show_path(file.relpath) for file in found(catalog, FileQuery(**conditions))]


def found(catalog: Catalog, query: FileQuery) -> list[File]:
    files: list[File] = []
    with catalog.read() as tx:
        while True:
            page = tx.files.find(query, EVERYTHING)
            files.extend(page.items)
            if page.next is None:
                return files
            query = query.model_copy(update={"after": page.next})


def at(catalog: Catalog, path: bytes | str) -> File:
    raw = path.encode() if isinstance(path, str) else path
    with catalog.read() as tx:
        (file,) = tx.files.lookup(EXPERIMENT, [raw])
    return file


UNUSUAL = (
    new_file(
        b'data/\xff \n"', metadata={"energy": {"value": 7.1, "unit": "keV"}, "µ": [1, None, True, "\u2603", 1e300]}
    ),
    new_file("data/large", size=2**53 + 1, verified_at=None, read_from=None, modified_at=TAKEN.replace(microsecond=7)),
    new_file("data/link", kind=FileKind.LINK, link_target_b64="", checksums=()),
    new_file("data/two", checksums=[Checksum(algorithm=each, value="ab" * 16) for each in (Algorithm.SHA256, "md5")]),
    new_file("data/plain", identity=SourceIdentity(dev=1, ino=2, size=3, mtime_ns=4, ctime_ns=5), is_snapshot=True),
)


def test_a_page_is_the_text_that_its_model_has(catalog: Catalog) -> None:
    assert all(answer.result is RegisteredAs.CREATED for answer in register(catalog, *UNUSUAL))
    with catalog.write() as tx:
        tx.files.hide(FileQuery(glob="data/large"), by="user")
    query = FileQuery(order=FileOrder.PATH, with_deleted=True)
    with catalog.read() as tx:
        text = tx.files.find_text(query, EVERYTHING)
        items = tx.files.lookup(EXPERIMENT, [bytes(new.relpath) for new in UNUSUAL])
    expected = FilePage(items=tuple(items), searched=len(UNUSUAL))
    assert json.loads(text) == json.loads(expected.model_dump_json())
    assert FilePage.model_validate_json(text) == expected


def test_a_registered_version_comes_back_as_it_was_given(catalog: Catalog) -> None:
    new = new_file(b"data/a \n\xff.tif", metadata={"energy": {"value": 7.1, "unit": "keV"}}, chunks=["ab"])
    (answer,) = register(catalog, new)
    assert (answer.result, answer.version_uid) == (RegisteredAs.CREATED, new.version_uid)
    file = at(catalog, new.relpath)
    assert file.uid == answer.file_uid
    for name in ("version_uid", "size", "source", "identity", "modified_at", "verified_at", "metadata", "path_b64"):
        assert getattr(file, name) == getattr(new, name), name
    assert list(file.checksums) == list(new.checksums)
    assert file.is_verified
    assert file.path is None


def test_asking_again_changes_nothing(catalog: Catalog) -> None:
    batch = [new_file(f"data/{i}") for i in range(5)]
    first = register(catalog, *batch)
    again = register(catalog, *batch)
    assert results(again) == [RegisteredAs.EXISTS] * 5
    assert [(a.file_uid, a.catalogued_at) for a in again] == [(a.file_uid, a.catalogued_at) for a in first]
    assert len(found(catalog, FileQuery())) == 5


def test_an_old_version_asked_again_still_exists(catalog: Catalog) -> None:
    first = new_file("data/a", content=b"1")
    register(catalog, first, new_file("data/a", content=b"2", number=2))
    assert results(register(catalog, first)) == [RegisteredAs.EXISTS]
    assert at(catalog, "data/a").version == 2


def test_a_version_uid_names_one_version_for_ever(catalog: Catalog) -> None:
    first = new_file("data/a")
    (stolen,) = register(catalog, first, new_file("data/b", version_uid=first.version_uid))[1:]
    assert (stolen.result, stolen.file_uid) == (RegisteredAs.CONFLICT, None)
    (stolen,) = register(catalog, new_file("data/a", version_uid=first.version_uid, experiment_uid=OTHER))
    assert (stolen.result, stolen.file_uid) == (RegisteredAs.CONFLICT, None)


def test_versions_follow_one_another(catalog: Catalog) -> None:
    early = new_file("data/a", content=b"3", number=3)
    assert results(register(catalog, early)) == [RegisteredAs.CONFLICT]
    assert results(register(catalog, new_file("data/a", content=b"1"))) == [RegisteredAs.CREATED]
    (refused,) = register(catalog, early)
    assert "its next version is 2 and not 3" in refused.message
    assert results(register(catalog, new_file("data/a", content=b"2", number=2), early)) == [RegisteredAs.CREATED] * 2
    with catalog.read() as tx:
        history = tx.files.history(at(catalog, "data/a").uid)
    assert [version.number for version in history.versions] == [1, 2, 3]
    assert [replica.state for replica in history.replicas] == [ReplicaState.VERIFIED] * 3
    assert [row.version_uid for row in history.ledger] == [version.uid for version in history.versions]
    assert {row.by for row in history.ledger} == {"service"}


def test_another_sources_different_bytes_are_a_conflict(catalog: Catalog) -> None:
    register(catalog, new_file("data/a", content=b"mine"))
    elsewhere = Source(agent="det2", path="other/a")
    (refused,) = register(catalog, new_file("data/a", content=b"yours", number=2, source=elsewhere))
    assert refused.result is RegisteredAs.CONFLICT
    assert "det1:/disk/data/a" in refused.message
    (adopted,) = register(catalog, new_file("data/a", content=b"mine", source=elsewhere))
    assert (adopted.result, adopted.file_uid) == (RegisteredAs.EXISTS, at(catalog, "data/a").uid)
    assert at(catalog, "data/a").source.agent == "det1"


def test_the_same_bytes_again_are_no_version_and_count_as_unchanged(catalog: Catalog) -> None:
    register(catalog, new_file("data/a"))
    touched = new_file("data/a", number=2)
    assert results(register(catalog, touched)) == [RegisteredAs.EXISTS]
    file = at(catalog, "data/a")
    assert (file.version, file.identity) == (1, touched.identity)


def test_a_conflict_leaves_the_rest_of_a_batch_alone(catalog: Catalog) -> None:
    answers = register(catalog, new_file("data/a"), new_file("data/b", number=7), new_file("data/c"))
    assert results(answers) == [RegisteredAs.CREATED, RegisteredAs.CONFLICT, RegisteredAs.CREATED]
    assert find(catalog) == ["data/a", "data/c"]


def test_a_sentence_about_the_longest_path_is_not_too_long(catalog: Catalog) -> None:
    path = b"/".join([b"\x01" * 255] * 15)
    (refused,) = register(catalog, new_file(path, number=2))
    assert refused.result is RegisteredAs.CONFLICT


def test_a_link_is_its_target(catalog: Catalog) -> None:
    link: dict[str, Any] = {"kind": FileKind.LINK, "checksums": [], "size": 0}
    register(catalog, new_file("data/l", link_target_b64=to_b64(b"/etc/passwd"), **link))
    file = at(catalog, "data/l")
    assert (file.kind, file.link_target_b64) == (FileKind.LINK, to_b64(b"/etc/passwd"))
    again = [new_file("data/l", link_target_b64=to_b64(t), number=2, **link) for t in (b"/etc/passwd", b"elsewhere")]
    assert results(register(catalog, *again)) == [RegisteredAs.EXISTS, RegisteredAs.CREATED]


def test_what_was_not_read_back_is_not_verified(catalog: Catalog) -> None:
    register(catalog, new_file("data/a", read_from=None, verified_at=None), new_file("data/b", checksums=[]))
    for path in ("data/a", "data/b"):
        file = at(catalog, path)
        assert (file.is_verified, file.verified_at) == (False, None)
        with catalog.read() as tx:
            assert tx.files.history(file.uid).ledger == ()


REFUSED: list[Metadata] = [
    {"text": "a\0b"},
    {"number": 2**63},
    {"big": "x" * 1024 * 1024},
    {"keys": {str(i): i for i in range(10_001)}},
    json.loads('{"a":' * 33 + "1" + "}" * 33),
]


def test_a_file_is_not_lost_for_its_metadata(catalog: Catalog) -> None:
    batch = [new_file(f"data/{i}", metadata=refused) for i, refused in enumerate(REFUSED)]
    assert results(register(catalog, *batch)) == [RegisteredAs.CREATED] * len(REFUSED)
    for new in batch:
        extraction = at(catalog, new.relpath).metadata["extraction"]
        assert isinstance(extraction, dict)
        assert "metadata" in str(extraction["error"])


def test_a_thousand_files_are_registered_in_a_handful_of_statements(catalog: Catalog) -> None:
    statements: list[str] = []
    event.listen(catalog.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    batch = [new_file(f"data/{i}", content=b"1") for i in range(1000)]
    next_batch = [new_file(f"data/{i}", content=b"2", number=2) for i in range(1000)]
    for files in (batch, batch, next_batch):
        statements.clear()
        register(catalog, *files)
        assert len(statements) < 20


def test_two_who_register_the_same_paths_at_once_agree(catalog: Catalog) -> None:
    batches = [[new_file(f"data/{i}") for i in range(200)] for _ in range(4)]
    with ThreadPoolExecutor(len(batches)) as pool:
        answers = list(pool.map(lambda batch: register(catalog, *batch), batches))
    for per_path in zip(*answers, strict=True):
        assert sorted(answer.result for answer in per_path) == [RegisteredAs.CREATED, *[RegisteredAs.EXISTS] * 3]
        assert len({answer.file_uid for answer in per_path}) == 1


def test_a_lookup_answers_for_what_is_there(catalog: Catalog) -> None:
    register(catalog, new_file("data/b"), new_file("data/a"), new_file("data/a", experiment_uid=OTHER, content=b"x"))
    with catalog.read() as tx:
        files = tx.files.lookup(EXPERIMENT, [b"data/b", b"data/none", b"data/a", b"data/a"])
    assert [(file.path, file.size) for file in files] == [("data/a", 5), ("data/b", 5)]


def test_pages_join_to_the_whole_list_in_the_order_of_bytes(catalog: Catalog) -> None:
    paths = [b"data/\xff", b"data/B", b"data/a", b"data/a/b", b"data/a.b", "data/é".encode()]
    register(catalog, *(new_file(path) for path in paths), new_file("data/0", experiment_uid=OTHER))
    expected = [*((EXPERIMENT, path) for path in sorted(paths)), (OTHER, b"data/0")]
    for limit in (1, 2, 7, 100):
        files = found(catalog, FileQuery(limit=limit))
        assert [(file.experiment_uid, bytes(file.relpath)) for file in files] == expected


def test_a_cursor_of_another_list_is_refused(catalog: Catalog) -> None:
    for cursor in ("", "abcd", "\u00e9", to_b64(b"0" * 16)):
        with catalog.read() as tx, pytest.raises(InvalidError):
            tx.files.find(FileQuery(after=cursor), EVERYTHING)


def test_size_and_time_narrow_a_query(catalog: Catalog) -> None:
    for i in range(4):
        register(catalog, new_file(f"data/{i}", content=b"x" * i, modified_at=TAKEN + timedelta(hours=i)))
    assert find(catalog, min_size=1, max_size=2) == ["data/1", "data/2"]
    assert find(catalog, min_size=-(10**30), max_size=10**30) == [f"data/{i}" for i in range(4)]
    after, before = TAKEN + timedelta(hours=1), TAKEN + timedelta(hours=3)
    assert find(catalog, modified_after=after, modified_before=before) == ["data/1", "data/2"]


GLOB_LETTERS = st.sampled_from(["a", "b", "B", "*", "?", "[", "]", "^", "%", "_", "!", "\\", "/", "é", "\n", "-"])
HOSTILE = st.lists(st.text(GLOB_LETTERS, min_size=1, max_size=5), min_size=1, max_size=2)


def plain_match(glob: str, text: str) -> bool:
    """Say what a glob means, in the slow and obvious way."""
    reached = {0}
    for char in glob:
        if char == "*":
            reached = {j for i in reached for j in range(i, len(text) + 1)}
        else:
            reached = {i + 1 for i in reached if i < len(text) and char in ("?", text[i])}
    return len(text) in reached


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_glob_means_the_same_on_both_databases(catalog: Catalog, data: st.DataObject) -> None:
    paths = {
        "/".join(part.replace("/", "") or "x" for part in parts).encode() for parts in data.draw(st.lists(HOSTILE))
    }
    experiment = new_uid()
    if paths:
        register(catalog, *(new_file(path, experiment_uid=experiment) for path in paths))
    shown = sorted((path, show_path(path)) for path in paths)
    glob = data.draw(st.text(GLOB_LETTERS, max_size=6) | st.sampled_from([text for _, text in shown] or [""]))
    expected = [text for _, text in shown if plain_match(glob, text)]
    assert find(catalog, experiment_uid=experiment, glob=glob) == expected


def test_a_glob_with_a_nul_is_refused(catalog: Catalog) -> None:
    with catalog.read() as tx, pytest.raises(InvalidError):
        tx.files.find(FileQuery(glob="a\0b"), EVERYTHING)


def test_what_people_set_and_removed_stays_with_the_next_version(catalog: Catalog) -> None:
    register(catalog, new_file("data/a", content=b"1", metadata={"sample": {"name": "Ag", "mass": 1}, "n": 1}))
    with catalog.write() as tx:
        changed = tx.files.set_metadata(
            at(catalog, "data/a").uid, {"sample": {"name": "Au", "mass": None}, "by": "me"}, by="me"
        )
    assert changed.metadata == {"sample": {"name": "Au"}, "n": 1, "by": "me"}
    assert at(catalog, "data/a").metadata == changed.metadata
    register(
        catalog, new_file("data/a", content=b"2", number=2, metadata={"sample": {"name": "Ag", "mass": 2}, "n": 2})
    )
    assert at(catalog, "data/a").metadata == {"sample": {"name": "Au"}, "n": 2, "by": "me"}


def test_metadata_cannot_grow_beyond_the_limits_by_patches(catalog: Catalog) -> None:
    register(catalog, new_file("data/a"))
    uid = at(catalog, "data/a").uid
    half = "x" * 600 * 1024
    with catalog.write() as tx:
        tx.files.set_metadata(uid, {"one": half}, by="me")
    with pytest.raises(InvalidError), catalog.write() as tx:
        tx.files.set_metadata(uid, {"two": half}, by="me")
    assert list(at(catalog, "data/a").metadata) == ["one"]


def test_hidden_files_come_back_within_thirty_days(catalog: Catalog, clock: Clock) -> None:
    register(catalog, *(new_file(f"data/{i}") for i in "abc"))
    query = FileQuery(experiment_uid=EXPERIMENT, glob="data/[ab]", limit=1)
    with catalog.write() as tx:
        assert tx.files.count(query, is_deleted=False).files == 0
    query = FileQuery(experiment_uid=EXPERIMENT, max_size=5, glob="data/?", limit=1)
    with catalog.write() as tx:
        assert tx.files.count(query, is_deleted=False) == FileCount(files=3, bytes=15)
        tx.files.hide(query, by="me")
        assert tx.files.count(query, is_deleted=False).files == 0
    assert find(catalog) == []
    assert find(catalog, with_deleted=True) == ["data/a", "data/b", "data/c"]
    clock.now += timedelta(days=29)
    with catalog.write() as tx:
        one = query.model_copy(update={"glob": "data/a"})
        assert tx.files.count(one, is_deleted=True).files == 1
        tx.files.bring_back(one)
    assert find(catalog) == ["data/a"]
    clock.now += timedelta(days=2)
    with catalog.write() as tx:
        assert tx.files.count(query, is_deleted=True).files == 0
        tx.files.bring_back(query)
    assert find(catalog) == ["data/a"]


def test_new_bytes_of_a_hidden_path_are_in_sight_and_the_old_ones_are_not(catalog: Catalog) -> None:
    register(catalog, new_file("data/a", content=b"1"))
    with catalog.write() as tx:
        tx.files.hide(FileQuery(experiment_uid=EXPERIMENT), by="me")
    register(catalog, new_file("data/a", content=b"1", number=2))
    assert find(catalog) == []
    register(catalog, new_file("data/a", content=b"2", number=2))
    assert find(catalog) == ["data/a"]


def test_a_summary_counts_what_is_in_sight(catalog: Catalog) -> None:
    register(
        catalog,
        new_file("data/a", content=b"1"),
        new_file("data/a", content=b"22", number=2),
        new_file("data/b", content=b"333", read_from=None),
        new_file("data/c", content=b"4444"),
        new_file("data/d", content=b"55555", experiment_uid=OTHER),
    )
    with catalog.write() as tx:
        tx.files.hide(FileQuery(experiment_uid=EXPERIMENT, glob="data/c"), by="me")
    with catalog.read() as tx:
        summary = tx.files.summary(EXPERIMENT)
        empty = tx.files.summary(new_uid())
    assert summary.model_dump(exclude={"experiment_uid"}) == {
        "files": 2,
        "bytes": 5,
        "versions": 3,
        "verified": 1,
        "unverified": 1,
        "deleted": 1,
    }
    assert (empty.files, empty.bytes, empty.deleted) == (0, 0, 0)


def test_a_file_that_is_not_there_is_not_found(catalog: Catalog) -> None:
    with catalog.read() as tx:
        for ask in (tx.files.get, tx.files.history):
            with pytest.raises(NotFoundError):
                ask(new_uid())
