"""The table of storage areas, on both databases."""

from __future__ import annotations

import pytest

from beamkeeper.db import Database, StorageTransaction
from beamkeeper.db.base import new_uid
from beamkeeper.domain.errors import AlreadyExistsError, NotFoundError
from beamkeeper.domain.storage import AreaKind, NewStorageArea

Storage = Database[StorageTransaction]


def test_areas_come_back_as_added_by_name(storage: Storage) -> None:
    with storage.write() as tx:
        tape = tx.storage.add(NewStorageArea(name="tape", kind=AreaKind.ARCHIVE, station_url="file:///t", path="/t"))
        disk = tx.storage.add(NewStorageArea(name="disk", station_url="file:///d", path="/d", transfer="rsync"))
    with storage.read() as tx:
        assert tx.storage.list() == [disk, tape]
        assert tx.storage.get(tape.uid) == tx.storage.named("tape") == tape


def test_a_name_is_given_once(storage: Storage) -> None:
    for number in range(2):
        new = NewStorageArea(name="disk", station_url=f"file:///{number}", path=f"/{number}")
        with storage.write() as tx:
            if number == 0:
                tx.storage.add(new)
                continue
            with pytest.raises(AlreadyExistsError, match='"disk"'):
                tx.storage.add(new)


def test_an_unknown_area_is_named(storage: Storage) -> None:
    with storage.read() as tx:
        with pytest.raises(NotFoundError, match='"disk"'):
            tx.storage.named("disk")
        with pytest.raises(NotFoundError):
            tx.storage.get(new_uid())
