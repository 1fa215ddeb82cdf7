"""The feed: numbers that rise in commit order, cursors, and who sees what, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import delete

from beamkeeper.db import Database, StorageTransaction
from beamkeeper.db.base import new_uid
from beamkeeper.db.events import EventRow
from beamkeeper.domain.errors import GoneError
from beamkeeper.domain.events import Cursor, NewEvent
from beamkeeper.domain.experiments import NewExperiment, NewStation
from beamkeeper.domain.storage import NewStorageArea
from beamkeeper.domain.users import Publicity, Reach

Storage = Database[StorageTransaction]
EVERYTHING = Reach(is_all=True)


def end(storage: Storage) -> Cursor:
    with storage.read() as tx:
        return tx.events.cursor()


def tell(storage: Storage, *kinds: str, experiment_uid: UUID | None = None, station_uid: UUID | None = None) -> None:
    with storage.write() as tx:
        for kind in kinds:
            tx.events.add(NewEvent(kind=kind, experiment_uid=experiment_uid, station_uid=station_uid, data={"a": [1]}))


def kinds(storage: Storage, cursor: Cursor, reach: Reach = EVERYTHING, limit: int = 100) -> list[str]:
    with storage.read() as tx:
        return [event.kind for event in tx.events.after(cursor, limit=limit, reach=reach)[0]]


def test_events_come_back_in_order_with_numbers_that_rise(storage: Storage) -> None:
    begin = end(storage)
    tell(storage, "a", "b")
    tell(storage, "c")
    with storage.read() as tx:
        events, cursor = tx.events.after(begin, limit=10, reach=EVERYTHING)
    assert [event.kind for event in events] == ["a", "b", "c"]
    numbers = [event.number for event in events]
    assert numbers == sorted(set(numbers))
    assert cursor == end(storage) == Cursor(begin.epoch, numbers[-1])
    assert events[0].data == {"a": [1]}
    assert kinds(storage, cursor) == []


def test_a_page_goes_on_where_the_one_before_ended(storage: Storage) -> None:
    cursor = end(storage)
    tell(storage, *"abcde")
    found = []
    while True:
        with storage.read() as tx:
            events, cursor = tx.events.after(cursor, limit=2, reach=EVERYTHING)
        if not events:
            break
        found.append("".join(event.kind for event in events))
    assert found == ["ab", "cd", "e"]


def test_what_is_rolled_back_is_not_told(storage: Storage) -> None:
    begin = end(storage)

    def fail() -> None:
        with storage.write() as tx:
            tx.events.add(NewEvent(kind="a"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert kinds(storage, begin) == []
    assert end(storage) == begin


def test_a_reader_misses_nothing_that_others_commit_at_the_same_time(storage: Storage) -> None:
    cursor, writers, each = end(storage), 4, 15

    def write(writer: int) -> None:
        for number in range(each):
            tell(storage, f"{writer}-{number}")

    seen: list[int] = []
    with ThreadPoolExecutor(writers) as pool:
        running = [pool.submit(write, writer) for writer in range(writers)]
        while len(seen) < writers * each:
            is_over = all(future.done() for future in running)
            with storage.read() as tx:
                events, cursor = tx.events.after(cursor, limit=7, reach=EVERYTHING)
            seen.extend(event.number for event in events)
            if is_over and not events:
                break
        for future in running:
            future.result()
    assert len(seen) == writers * each
    assert seen == sorted(seen)


def test_each_caller_gets_what_its_rights_reach(storage: Storage) -> None:
    with storage.write() as tx:
        area = tx.storage.add(NewStorageArea(name="hot", station_url="file:///s", path="/s"))
        stations = [tx.experiments.add_station(NewStation(name=name)) for name in ("8ID", "9ID")]
        made = [
            tx.experiments.add(
                NewExperiment(name="e", station=station.name, publicity=publicity),
                station=station,
                cycle="1",
                area_uid=area.uid,
                directory=station.name,
            )
            for station, publicity in zip(stations, (Publicity.PROPRIETARY, Publicity.PUBLIC), strict=True)
        ]
    begin = end(storage)
    tell(storage, "site")
    for number, (station, experiment) in enumerate(zip(stations, made, strict=True)):
        tell(storage, f"station-{number}", station_uid=station.uid)
        tell(storage, f"experiment-{number}", experiment_uid=experiment.uid)
        tell(storage, f"both-{number}", experiment_uid=experiment.uid, station_uid=station.uid)
    tell(storage, "unknown", experiment_uid=new_uid())
    assert len(kinds(storage, begin)) == 8
    assert kinds(storage, begin, Reach()) == []
    own_station = Reach(stations=frozenset({stations[0].uid}))
    assert kinds(storage, begin, own_station) == ["station-0", "experiment-0", "both-0"]
    own = Reach(experiments=frozenset({made[0].uid}))
    assert kinds(storage, begin, own) == ["experiment-0", "both-0"]
    assert kinds(storage, begin, Reach(is_open_included=True)) == ["experiment-1", "both-1"]
    with storage.read() as tx:
        assert tx.events.after(begin, limit=100, reach=Reach())[1] == tx.events.cursor()


def test_a_cursor_of_another_epoch_or_beyond_what_is_kept_is_gone(storage: Storage) -> None:
    begin = end(storage)
    tell(storage, "a", "b", "c")
    last = end(storage)
    with storage.write() as tx:
        tx.session.execute(delete(EventRow).where(EventRow.number <= last.number - 1))
    assert kinds(storage, Cursor(last.epoch, last.number - 1)) == ["c"]
    gone = [begin, Cursor("other", last.number), Cursor(last.epoch, last.number + 1)]
    with storage.write() as tx:
        fresh = tx.events.begin_epoch()
    assert fresh.epoch > last.epoch
    for cursor in (*gone, last):
        with storage.read() as tx, pytest.raises(GoneError) as caught:
            tx.events.after(cursor, limit=1, reach=EVERYTHING)
        assert caught.value.details["next"] == str(fresh)


def test_a_change_of_identities_has_one_number_a_transaction(storage: Storage) -> None:
    begin = end(storage)
    uid = new_uid()
    with storage.write() as tx:
        assert tx.events.changed is None
        first = tx.events.revise()
        assert tx.events.revise(experiment_uid=uid) == tx.events.revise(experiment_uid=uid) == first
        assert tx.events.changed == Cursor(begin.epoch, begin.number + 1)
        tx.events.add(NewEvent(kind="other"))
    assert kinds(storage, begin) == ["identity.changed", "identity.changed", "other"]
    assert end(storage).number == begin.number + 3
    assert kinds(storage, begin, Reach(experiments=frozenset({uid}))) == []


def test_waiting_ends_at_once_with_the_next_commit(storage: Storage) -> None:
    begin = end(storage)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(storage.wait, lambda: end(storage) != begin, 60)
        tell(storage, "a")
        assert waiting.result(timeout=30)
    assert not storage.wait(lambda: False, timedelta(milliseconds=10).total_seconds())
