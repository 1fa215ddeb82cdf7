"""Datasets on both databases: lists, saved queries, and what is frozen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from uuid import UUID

import pytest

from beamkeeper.db.base import new_uid
from beamkeeper.domain.datasets import Dataset, DatasetQuery, DatasetState, Member, MemberQuery, NewDataset
from beamkeeper.domain.errors import InvalidError, NotFoundError
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.users import Reach
from beamkeeper.testing.catalogue import Catalogue, new_file

EVERYTHING = Reach(is_all=True)
TIFFS = 'path ~ "data/*.tif"'


@pytest.fixture
def catalogue(database_url: str) -> Iterator[Catalogue]:
    with closing(Catalogue(database_url)) as made:
        yield made


def fill(catalogue: Catalogue, *paths: str, experiment: str = "coffee", number: int = 1) -> list[UUID]:
    uid = catalogue.experiment(experiment).uid
    files = [new_file(path, experiment_uid=uid, number=number, content=b"x" * number) for path in paths]
    with catalogue.database.write() as tx:
        return [answer.file_uid for answer in tx.files.register(files, by="service") if answer.file_uid is not None]


def make(catalogue: Catalogue, name: str = "d", query: str | None = None, experiment: str = "coffee") -> Dataset:
    uid = catalogue.experiment(experiment).uid
    with catalogue.database.write() as tx:
        return tx.datasets.add(NewDataset(experiment_uid=uid, name=name, query=query), owner="ada")


def members(catalogue: Catalogue, uid: UUID, limit: int = 2) -> list[Member]:
    found: list[Member] = []
    after = None
    with catalogue.database.read() as tx:
        dataset = tx.datasets.get(uid)
        while True:
            page = tx.datasets.files(dataset, MemberQuery(limit=limit, after=after))
            found.extend(page.items)
            if (after := page.next) is None:
                count = tx.datasets.count(dataset)
                assert (count.files, count.bytes) == (len(found), sum(one.version.size for one in found))
                return found


def paths(catalogue: Catalogue, uid: UUID) -> list[str | None]:
    return [member.file.path for member in members(catalogue, uid)]


def hide(catalogue: Catalogue, glob: str) -> None:
    with catalogue.database.write() as tx:
        tx.files.hide(FileQuery(experiment_uid=catalogue.experiment().uid, glob=glob), by="me")


def test_a_list_has_what_was_added(catalogue: Catalogue) -> None:
    uids = fill(catalogue, *(f"data/{i}" for i in range(5)))
    one, two = make(catalogue, "one"), make(catalogue, "two")
    with catalogue.database.write() as tx:
        assert tx.datasets.add_files(one.uid, uids[:4], by="ada") == 4
        assert tx.datasets.add_files(one.uid, uids, by="ada") == 1
        assert tx.datasets.add_files(two.uid, [uids[2], uids[2]], by="ada") == 1
        assert tx.datasets.remove_files(one.uid, [uids[0], new_uid()]) == 1
        assert tx.datasets.remove_files(one.uid, [uids[0]]) == 0
    assert paths(catalogue, one.uid) == ["data/1", "data/2", "data/3", "data/4"]
    assert paths(catalogue, two.uid) == ["data/2"]
    hide(catalogue, "data/2")
    assert paths(catalogue, two.uid) == []
    with catalogue.database.read() as tx:
        holding = tx.datasets.page(DatasetQuery(file_uid=uids[2]), EVERYTHING).items
        assert [dataset.name for dataset in holding] == ["two", "one"]


def test_only_files_of_its_experiment_that_are_in_sight_come_into_a_list(catalogue: Catalogue) -> None:
    (own,) = fill(catalogue, "data/a")
    (foreign,) = fill(catalogue, "data/a", experiment="tea")
    dataset = make(catalogue)
    for uids in ([own, foreign], [new_uid()]):
        with pytest.raises(NotFoundError), catalogue.database.write() as tx:
            tx.datasets.add_files(dataset.uid, uids, by="ada")
    hide(catalogue, "*")
    with pytest.raises(NotFoundError), catalogue.database.write() as tx:
        tx.datasets.add_files(dataset.uid, [own], by="ada")
    assert paths(catalogue, dataset.uid) == []


def test_a_saved_query_finds_what_is_there_when_it_is_asked(catalogue: Catalogue) -> None:
    dataset = make(catalogue, query=TIFFS)
    fill(catalogue, "data/c.tif", "data/b.h5", experiment="tea")
    assert paths(catalogue, dataset.uid) == []
    fill(catalogue, "data/c.tif", "data/a.tif", "data/b.tif", "data/b.h5")
    assert paths(catalogue, dataset.uid) == ["data/a.tif", "data/b.tif", "data/c.tif"]
    hide(catalogue, "data/b.tif")
    assert paths(catalogue, dataset.uid) == ["data/a.tif", "data/c.tif"]


@pytest.mark.parametrize("query", [None, TIFFS])
def test_what_is_frozen_stays_with_the_versions_of_then(catalogue: Catalogue, query: str | None) -> None:
    uids = fill(catalogue, "data/a.tif", "data/b.tif", "data/hidden.tif")
    dataset = make(catalogue, query=query)
    with catalogue.database.write() as tx:
        if query is None:
            tx.datasets.add_files(dataset.uid, uids, by="ada")
    hide(catalogue, "data/hidden.tif")
    with catalogue.database.write() as tx:
        frozen = tx.datasets.freeze(dataset.uid, by="ada")
    assert (frozen.state, frozen.query) == (DatasetState.FROZEN, query)
    assert frozen.frozen_at is not None
    fill(catalogue, "data/a.tif", number=2)
    fill(catalogue, "data/c.tif")
    hide(catalogue, "data/b.tif")
    found = members(catalogue, dataset.uid)
    assert [(one.file.path, one.version.number, one.file.version) for one in found] == [
        ("data/a.tif", 1, 2),
        ("data/b.tif", 1, 1),
    ]
    assert [one.version.size for one in found] == [1, 1]
    assert found[0].version.checksums != found[0].file.checksums
    assert found[1].file.deleted_at is not None


def test_datasets_are_listed_newest_first_within_ones_reach(catalogue: Catalogue) -> None:
    for name in "abc":
        make(catalogue, name)
    make(catalogue, "a", experiment="tea")
    within = Reach(experiments=frozenset({catalogue.experiment().uid}))
    with catalogue.database.read() as tx:
        first = tx.datasets.page(DatasetQuery(limit=2), within)
        second = tx.datasets.page(DatasetQuery(limit=2, after=first.next), within)
        assert [dataset.name for dataset in (*first.items, *second.items)] == ["c", "b", "a"]
        assert second.next is None
        assert len(tx.datasets.page(DatasetQuery(name="a"), EVERYTHING).items) == 2
        with pytest.raises(InvalidError):
            tx.datasets.page(DatasetQuery(after="nonsense"), EVERYTHING)
