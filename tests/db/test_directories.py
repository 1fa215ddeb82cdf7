"""Counting by directory: what the search index counts, put right by what has changed since, is what files say."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, update

from beamkeeper.db.files import directories as counted
from beamkeeper.db.files.tables import ReplicaRow
from beamkeeper.domain.files import FileQuery, ReplicaState
from beamkeeper.domain.ledger import DirectoryCount, DirectoryQuery
from beamkeeper.domain.names import to_b64
from beamkeeper.testing.catalogue import Catalogue, new_file

DIRECTORIES = ("data", "data/a", "data/a/b", "data/a.d", "data/\u00e4", "data/z")


@pytest.fixture
def catalogue(database_url: str) -> Iterator[Catalogue]:
    with closing(Catalogue(database_url)) as made:
        yield made


def register(catalogue: Catalogue, *paths: str | bytes, number: int = 1, experiment: str = "coffee") -> None:
    uid = catalogue.experiment(experiment).uid
    files = [
        new_file(path, experiment_uid=uid, content=b"1" * (place + number), number=number)
        for place, path in enumerate(paths)
    ]
    with catalogue.database.write() as tx:
        tx.files.register(files, by="test")


def index(catalogue: Catalogue, limit: int = 1000) -> None:
    with catalogue.database.write() as tx:
        tx.search.step(limit)


def told(catalogue: Catalogue, **wanted: Any) -> tuple[list[DirectoryCount], bool]:
    """Return what is told of directories, and whether every file was looked at for it."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(catalogue.database.engine, "before_cursor_execute", note)
    with catalogue.database.read() as tx:
        page = tx.ledger.directories(catalogue.experiment().uid, DirectoryQuery(**wanted))
    event.remove(catalogue.database.engine, "before_cursor_execute", note)
    return list(page.items), any("GROUP BY files.parent" in one for one in statements)


def looked_at(catalogue: Catalogue, uid: UUID, **wanted: Any) -> list[DirectoryCount]:
    query = DirectoryQuery(**wanted)
    with catalogue.database.read() as tx:
        return counted._looked_at(tx.session, uid, query)[: query.limit]


@pytest.mark.parametrize("seed", range(4))
def test_what_is_counted_is_what_is_there_whatever_the_index_has_seen(catalogue: Catalogue, seed: int) -> None:
    rng = random.Random(seed)
    uid, numbers = catalogue.experiment().uid, dict[str, int]()
    for _ in range(12):
        for path in {f"{rng.choice(DIRECTORIES)}/{rng.randrange(6)}" for _ in range(5)}:
            numbers[path] = numbers.get(path, 0) + 1
            new = new_file(path, experiment_uid=uid, content=rng.randbytes(rng.randrange(1, 9)), number=numbers[path])
            if rng.random() < 0.3:
                new = new.model_copy(update={"read_from": None, "verified_at": None})
            with catalogue.database.write() as tx:
                tx.files.register([new], by="test")
        register(catalogue, f"data/a/{rng.random()}", experiment="other")
        glob = FileQuery(experiment_uid=uid, glob=f"{rng.choice(DIRECTORIES)}/{rng.randrange(6)}")
        with catalogue.database.write() as tx:
            if rng.random() < 0.5:
                tx.files.hide(glob, by="test")
            else:
                tx.files.bring_back(glob)
            tx.search.step(rng.choice((0, 2, 100)))
        if rng.random() < 0.3:
            with catalogue.database.write() as tx:
                tx.session.execute(update(ReplicaRow).values(state=ReplicaState.SUSPECT))
        for wanted in ({}, {"limit": 2}, {"below_b64": to_b64(b"data/a")}, {"after": to_b64(b"data/a")}):
            assert told(catalogue, **wanted) == (looked_at(catalogue, uid, **wanted), False)


def test_no_file_is_looked_at_where_the_index_has_followed(catalogue: Catalogue) -> None:
    register(catalogue, "data/a/1", "data/a/2", "data/b/3")
    index(catalogue)
    found, is_all = told(catalogue)
    assert [(one.path, one.files, one.bytes, one.verified) for one in found] == [
        ("data/a", 2, 3, 2),
        ("data/b", 1, 3, 1),
    ]
    assert not is_all


def test_every_file_is_looked_at_where_counts_cannot_tell(catalogue: Catalogue) -> None:
    register(catalogue, b"data/\xff/1", b"data/a/2")
    index(catalogue)
    found, is_all = told(catalogue)
    assert ([one.path_b64 for one in found], is_all) == ([to_b64(b"data/a"), to_b64(b"data/\xff")], True)


@pytest.mark.parametrize("what", ["unverified", "behind"])
def test_many_changes_or_unverified_versions_are_not_looked_at_one_by_one(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    uid = catalogue.experiment().uid
    new = [new_file(f"data/a/{n}", experiment_uid=uid, content=b"1") for n in range(4)]
    if what == "unverified":
        new = [one.model_copy(update={"read_from": None, "verified_at": None}) for one in new]
    with catalogue.database.write() as tx:
        tx.files.register(new, by="test")
    if what == "unverified":
        index(catalogue)
        monkeypatch.setattr(counted, "UNVERIFIED", 3)
    else:
        monkeypatch.setattr("beamkeeper.db.finding.indexed.PENDING", 3)
    found, is_all = told(catalogue)
    assert ([(one.path, one.files) for one in found], is_all) == ([("data/a", 4)], True)


def test_sqlite_finds_unverified_versions_by_their_own_index(tmp_path: Path) -> None:
    """PostgreSQL plans by its statistics."""
    with closing(Catalogue(f"sqlite:///{tmp_path / 'catalog.db'}")) as catalogue:
        _finds_unverified_by_index(catalogue)


def _finds_unverified_by_index(catalogue: Catalogue) -> None:
    register(catalogue, "data/a/1")
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if "FROM versions" in statement:
            asked.append((statement, values))

    event.listen(catalogue.database.engine, "before_cursor_execute", note)
    told(catalogue)
    event.remove(catalogue.database.engine, "before_cursor_execute", note)
    (statement, values), *_ = asked
    with catalogue.database.engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
    assert any("ix_versions_unverified" in step[3] for step in plan), plan
