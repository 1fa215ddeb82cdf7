"""Small pictures of versions in the database of the storage."""

from __future__ import annotations

from beamkeeper.db import Database, StorageTransaction
from beamkeeper.db.base import new_uid

OURS, THEIRS = new_uid(), new_uid()
FIRST, SECOND, OTHER = new_uid(), new_uid(), new_uid()


def test_a_version_has_one_picture_and_only_its_experiment_has_it(storage: Database[StorageTransaction]) -> None:
    with storage.write() as tx:
        tx.thumbnails.keep(OURS, {FIRST: b"one", SECOND: b"two"})
        tx.thumbnails.keep(THEIRS, {OTHER: b"other"})
    with storage.write() as tx:
        tx.thumbnails.keep(OURS, {FIRST: b"again"})
        tx.thumbnails.keep(THEIRS, {SECOND: b"not theirs"})
        tx.thumbnails.keep(OURS, {})
    with storage.read() as tx:
        assert tx.thumbnails.of(OURS, [FIRST, SECOND, OTHER, new_uid()]) == {FIRST: b"again", SECOND: b"two"}
        assert tx.thumbnails.of(THEIRS, [SECOND, OTHER]) == {OTHER: b"other"}
