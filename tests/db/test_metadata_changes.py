"""The history of metadata on both databases: what is changed is never lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.metadata import MetadataChange, undone
from beamkeeper.domain.names import Metadata
from beamkeeper.testing.catalogue import Catalogue, new_file


@pytest.fixture
def catalogue(database_url: str) -> Iterator[Catalogue]:
    with closing(Catalogue(database_url)) as made:
        yield made


def test_every_change_of_a_file_can_be_walked_back(catalogue: Catalogue) -> None:
    uid = catalogue.experiment().uid
    with catalogue.database.write() as tx:
        new = new_file("data/a", experiment_uid=uid, metadata={"n": 1, "sample": {"name": "Ag"}})
        file_uid = tx.files.register([new], by="service")[0].file_uid
    assert file_uid is not None
    states = []
    patches: list[Metadata] = [{"n": 2}, {"sample": {"name": None, "mass": 1}}, {"n": 2}, {"n": None}]
    for number, patch in enumerate(patches):
        with catalogue.database.write() as tx:
            states.append(tx.files.get(file_uid).metadata)
            tx.files.set_metadata(file_uid, patch, by=f"person {number}")
    with catalogue.database.write() as tx:
        states.append(tx.files.get(file_uid).metadata)
        second = new_file("data/a", content=b"2", number=2, experiment_uid=uid, metadata={"n": 7, "other": [None]})
        tx.files.register([second], by="service")
    with catalogue.database.read() as tx:
        found = tx.metadata.page(file_uid, after=None, limit=100).items
        now = tx.files.get(file_uid).metadata
    assert now == {"other": [None], "sample": {"mass": 1}}
    assert [(change.changed_by, change.version) for change in found] == [
        ("service", 2),
        ("person 3", None),
        ("person 1", None),
        ("person 0", None),
    ], "what changed nothing is no change"
    del states[2]
    for change, before in zip(found, reversed(states), strict=True):
        now = undone(now, change.patch, change.before)
        assert now == before


def test_a_long_history_has_pages(catalogue: Catalogue) -> None:
    uid = catalogue.experiment().uid
    with catalogue.database.write() as tx:
        file_uid = tx.files.register([new_file("data/a", experiment_uid=uid)], by="service")[0].file_uid
        assert file_uid is not None
        for number in range(5):
            tx.files.set_metadata(file_uid, {"n": number}, by="me")
    seen: list[MetadataChange] = []
    after = None
    with catalogue.database.read() as tx:
        while True:
            page = tx.metadata.page(file_uid, after=after, limit=2)
            seen.extend(page.items)
            if (after := page.next) is None:
                break
        for cursor in ("nonsense", "WyJ4Il0"):
            with pytest.raises(InvalidError):
                tx.metadata.page(file_uid, after=cursor, limit=2)
    assert [change.patch for change in seen] == [{"n": number} for number in (4, 3, 2, 1, 0)]
