"""Master files and announcements in the database, on both kinds of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from beamkeeper.db.base import new_uid
from beamkeeper.db.masters import REST, Links, Master
from beamkeeper.domain.masters import MISSING_TOLD, MasterCount
from beamkeeper.testing.beamline import Beamline, options


@pytest.fixture
def beamline(database_url: str, tmp_path: Path) -> Iterator[Beamline]:
    made = Beamline(database_url, tmp_path / "storage")
    yield made
    made.close()


@pytest.fixture
def daq(beamline: Beamline) -> UUID:
    with beamline.database.write() as tx:
        return tx.acquisitions.add(beamline.experiment(), options()).uid


def add(beamline: Beamline, daq: UUID, path: bytes, *linked: bytes) -> UUID:
    uid = new_uid()
    with beamline.database.write() as tx:
        tx.masters.add(daq, beamline.experiment().uid, [Links(path, uid, linked)])
    return uid


def due(beamline: Beamline) -> list[Master]:
    with beamline.database.read() as tx:
        return tx.masters.due(10)


def settle(beamline: Beamline, master: Master, *missing: bytes, again_s: float | None = None) -> None:
    with beamline.database.write() as tx:
        next_at = None if again_s is None else tx.now + timedelta(seconds=again_s)
        tx.masters.settle(master, missing=missing, is_told=True, next_at=next_at)


def test_a_master_is_due_at_once_with_all_that_it_links_to_missing(beamline: Beamline, daq: UUID) -> None:
    uid = add(beamline, daq, b"data/m.h5", b"data/1.h5", b"data/\xff.h5")
    (found,) = due(beamline)
    assert (found.path, found.version_uid, found.linked) == (b"data/m.h5", uid, 2)
    assert list(found.missing) == [b"data/1.h5", b"data/\xff.h5"]
    assert not found.is_told


def test_what_is_complete_is_not_due_again_and_what_is_not_after_a_while_or_when_it_is_stirred(
    beamline: Beamline, daq: UUID
) -> None:
    add(beamline, daq, b"data/a.h5", b"data/1.h5")
    add(beamline, daq, b"data/b.h5", b"data/2.h5")
    a, b = due(beamline)
    settle(beamline, a)
    settle(beamline, b, b"data/2.h5", again_s=60)
    assert due(beamline) == []
    with beamline.database.write() as tx:
        tx.masters.stir(new_uid())
    assert due(beamline) == []
    with beamline.database.write() as tx:
        assert tx.masters.are_wanting([beamline.experiment().uid, new_uid()]) == [beamline.experiment().uid]
        tx.masters.stir(beamline.experiment().uid)
    assert due(beamline) == []  # it was looked after a moment ago
    beamline.clock.tick(REST.total_seconds())
    assert [master.path for master in due(beamline)] == [b"data/b.h5"]
    settle(beamline, b, b"data/2.h5", again_s=60)
    beamline.clock.tick(10)
    with beamline.database.write() as tx:
        tx.masters.stir(beamline.experiment().uid)
    assert [master.path for master in due(beamline)] == [b"data/b.h5"]
    settle(beamline, b, b"data/2.h5", again_s=60)
    beamline.clock.tick(61)
    assert [master.path for master in due(beamline)] == [b"data/b.h5"]


def test_a_newer_version_takes_the_place_of_the_older_and_is_not_settled_by_what_was_found_of_it(
    beamline: Beamline, daq: UUID
) -> None:
    add(beamline, daq, b"data/m.h5", b"data/1.h5")
    (old,) = due(beamline)
    add(beamline, daq, b"data/m.h5", b"data/1.h5", b"data/2.h5")
    settle(beamline, old)
    (found,) = due(beamline)
    assert (found.linked, len(found.missing)) == (2, 2)


def test_the_counts_and_the_list_of_a_daq_are_its_own(beamline: Beamline, daq: UUID) -> None:
    with beamline.database.write() as tx:
        other = tx.acquisitions.add(beamline.experiment("tea"), options(b"other")).uid
        tx.masters.add(other, beamline.experiment("tea").uid, [Links(b"data/m.h5", new_uid(), [b"data/x"])])
    many = [b"data/%04d.h5" % number for number in range(MISSING_TOLD + 5)]
    for path in (b"data/b.h5", b"data/a.h5"):
        add(beamline, daq, path, *many)
    (_, first, second) = due(beamline)
    settle(beamline, first)
    with beamline.database.read() as tx:
        assert tx.masters.count(daq) == MasterCount(complete=1, incomplete=1)
        page = tx.masters.page(daq, None, None, 1)
        rest = tx.masters.page(daq, None, page.next, 10)
        wanting = tx.masters.page(daq, False, None, 10)
    assert [item.path for item in (*page.items, *rest.items)] == ["data/a.h5", "data/b.h5"]
    (item,) = wanting.items
    assert (item.linked, item.missing, len(item.first_missing)) == (len(many), len(many), MISSING_TOLD)
    assert item.relpath == second.path


def test_announcements_are_kept_once_each_and_what_is_said_again_is_new(beamline: Beamline, daq: UUID) -> None:
    with beamline.database.write() as tx:
        assert tx.announcements.add(daq, [b"b", b"a", b"b"]) == 2
        assert tx.announcements.add(new_uid(), [b"z"]) == 1
        (first, b), (second, a) = tx.announcements.after(daq)
        assert (b, a, first < second) == (b"b", b"a", True)
    with beamline.database.write() as tx:
        assert tx.announcements.add(daq, [b"b", b"\xff\n"]) == 2
        assert [path for _, path in tx.announcements.after(daq, second)] == [b"b", b"\xff\n"]
        assert [path for _, path in tx.announcements.after(daq)] == [b"a", b"b", b"\xff\n"]


def test_what_was_announced_after_the_decision_is_not_dropped_with_it(beamline: Beamline, daq: UUID) -> None:
    with beamline.database.write() as tx:
        tx.announcements.add(daq, [b"a", b"b"])
        last = tx.announcements.after(daq)[-1][0]
        tx.announcements.add(daq, [b"b"])
        tx.announcements.drop(daq, [b"a", b"b", b"unknown"], up_to=last)
        assert [path for _, path in tx.announcements.after(daq)] == [b"b"]
        tx.announcements.drop_all(daq)
        assert tx.announcements.after(daq) == []


def test_a_master_with_links_that_nobody_read_is_never_called_complete(beamline: Beamline, daq: UUID) -> None:
    with beamline.database.write() as tx:
        tx.masters.add(daq, beamline.experiment().uid, [Links(b"data/m.h5", new_uid(), [b"data/1.h5"], unread=7)])
    settle(beamline, due(beamline)[0])
    with beamline.database.read() as tx:
        (item,) = tx.masters.page(daq, None, None, 10).items
    assert (item.is_complete, item.linked, item.missing) == (False, 8, 7)
