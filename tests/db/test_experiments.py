"""The tables of stations, experiment types and experiments, on both databases."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from beamkeeper.db import Database, StorageTransaction
from beamkeeper.db.base import new_uid
from beamkeeper.domain.errors import AlreadyExistsError, InvalidError, NotFoundError
from beamkeeper.domain.experiments import (
    Experiment,
    ExperimentChange,
    ExperimentOrder,
    ExperimentQuery,
    NewExperiment,
    NewExperimentType,
    NewStation,
    Station,
    StationChange,
)
from beamkeeper.domain.storage import NewStorageArea
from beamkeeper.domain.users import Action, Caller, Grant, NewUser, Publicity, Reach, Role, reach
from beamkeeper.testing.beamline import Clock

Storage = Database[StorageTransaction]
EVERYTHING = Reach(is_all=True)


def station(storage: Storage, name: str = "8ID") -> Station:
    with storage.write() as tx:
        found = tx.experiments.find_station(name)
        return found or tx.experiments.add_station(NewStation(name=name))


def add(
    storage: Storage, name: str = "coffee", *, at: str = "8ID", directory: str | None = None, **fields: Any
) -> Experiment:
    where = station(storage, at)
    with storage.write() as tx:
        area = (tx.storage.list() or [tx.storage.add(NewStorageArea(name="hot", station_url="file:///s", path="/s"))])[
            0
        ]
        new = NewExperiment(name=name, station=at, **fields)
        return tx.experiments.add(
            new, station=where, cycle="2026-1", area_uid=area.uid, directory=directory or f"{at}/{name}"
        )


def names(storage: Storage, reach: Reach = EVERYTHING, **query: Any) -> list[str]:
    """Return the names that a query finds, over all its pages."""
    found: list[str] = []
    after: str | None = None
    with storage.read() as tx:
        while True:
            page = tx.experiments.page(ExperimentQuery(after=after, **query), reach)
            found.extend(experiment.name for experiment in page.items)
            if (after := page.next) is None:
                return found


def test_a_station_comes_back_as_made_and_changed(storage: Storage) -> None:
    made = station(storage)
    with storage.write() as tx:
        changed = tx.experiments.change_station(made.uid, StationChange(title="Eight", cycle="2026-2"))
    assert changed == made.model_copy(update={"title": "Eight", "cycle": "2026-2"})
    with storage.read() as tx:
        assert tx.experiments.stations() == [changed]
        assert tx.experiments.station_named("8ID") == tx.experiments.get_station(made.uid) == changed


def test_names_of_stations_and_types_are_given_once(storage: Storage) -> None:
    station(storage)
    with storage.write() as tx:
        tx.experiments.add_type(NewExperimentType(name="XPCS"))
        with pytest.raises(AlreadyExistsError, match='"8ID"'):
            tx.experiments.add_station(NewStation(name="8ID"))
        with pytest.raises(AlreadyExistsError, match='"XPCS"'):
            tx.experiments.add_type(NewExperimentType(name="XPCS"))
        assert [kind.name for kind in tx.experiments.types()] == ["XPCS"]
        assert tx.experiments.is_type("XPCS")
        assert not tx.experiments.is_type("SAXS")


def test_a_join_token_works_once_and_not_too_late(storage: Storage, clock: Clock) -> None:
    where = station(storage)
    with storage.write() as tx:
        for letter in "ab":
            tx.experiments.add_join_token(where.uid, letter * 64, expires_at=clock.now + timedelta(seconds=60))
        assert tx.experiments.use_join_token("a" * 64) == where
        assert tx.experiments.use_join_token("a" * 64) is None
        assert tx.experiments.use_join_token("c" * 64) is None
    clock.tick(60)
    with storage.write() as tx:
        assert tx.experiments.use_join_token("b" * 64) is None


def test_an_experiment_comes_back_as_made(storage: Storage, clock: Clock) -> None:
    made = add(
        storage,
        title="Ölige Schaum\N{COMBINING DIAERESIS}e",
        publicity=Publicity.FACILITY,
        starts_at=clock.now,
        ends_at=clock.now + timedelta(microseconds=1),
        metadata={"sample": {"T": 1.5, "big": 2**60}, "list": [None, True]},
    )
    with storage.read() as tx:
        assert tx.experiments.get(made.uid) == tx.experiments.find(made.station_uid, "coffee") == made
    assert (made.station, made.cycle, made.directory, made.number) == ("8ID", "2026-1", "8ID/coffee", 1)


def test_a_name_is_given_once_on_a_station_for_ever(storage: Storage) -> None:
    made = add(storage)
    assert add(storage, at="9ID").number == 2
    with storage.write() as tx:
        assert tx.experiments.delete(made.uid).deleted_at == tx.now
    with pytest.raises(AlreadyExistsError, match='"coffee"'):
        add(storage, directory="elsewhere")
    assert add(storage, "tea").number == 3


def test_a_deletion_keeps_its_first_time(storage: Storage, clock: Clock) -> None:
    made = add(storage)
    times = []
    for _ in range(2):
        with storage.write() as tx:
            times.append(tx.experiments.delete(made.uid).deleted_at)
        clock.tick()
    assert times[0] == times[1]
    assert names(storage) == []
    assert names(storage, with_deleted=True) == ["coffee"]


def test_a_change_leaves_what_is_not_given_and_null_clears_what_may_be_empty(storage: Storage, clock: Clock) -> None:
    made = add(storage, title="T", ends_at=clock.now, metadata={"a": 1, "b": {"c": 2, "d": 3}})
    change = ExperimentChange(ends_at=None, proposal="P-1", title=None, metadata={"a": None, "b": {"c": 4}})
    with storage.write() as tx:
        changed = tx.experiments.change(made.uid, change)
    assert changed == made.model_copy(update={"ends_at": None, "proposal": "P-1", "metadata": {"b": {"c": 4, "d": 3}}})
    with storage.write() as tx:
        tx.experiments.set_pi(made.uid, "ada")
        assert tx.experiments.get(made.uid).pi == "ada"


def test_pages_hold_every_experiment_once_newest_first(storage: Storage) -> None:
    for number in range(5):
        add(storage, f"e{number}", at="9ID" if number == 3 else "8ID")
    assert names(storage, limit=2) == ["e4", "e3", "e2", "e1", "e0"]
    assert names(storage, limit=5, station="9ID") == ["e3"]
    assert names(storage, name="e2") == ["e2"]
    with storage.read() as tx, pytest.raises(InvalidError, match="cursor"):
        tx.experiments.page(ExperimentQuery(after="AAAA"), EVERYTHING)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (ExperimentOrder.NEWEST, ["C", "a", "b", "B"]),
        (ExperimentOrder.OLDEST, ["B", "b", "a", "C"]),
        (ExperimentOrder.NAME, ["B", "C", "a", "b"]),
        (ExperimentOrder.NAME_DOWN, ["b", "a", "C", "B"]),
    ],
)
def test_pages_of_each_order_hold_every_experiment_of_a_type_once(
    storage: Storage, order: ExperimentOrder, expected: list[str]
) -> None:
    for name in ("B", "b", "a", "C"):
        add(storage, name, type="XPCS")
    add(storage, "b", at="9ID")
    assert names(storage, type="XPCS", order=order, limit=2) == expected


def test_equal_names_of_two_stations_are_both_on_pages_of_one(storage: Storage) -> None:
    add(storage, "b")
    add(storage, "b", at="9ID")
    assert names(storage, order=ExperimentOrder.NAME, limit=1) == ["b", "b"]
    assert names(storage, order=ExperimentOrder.NAME_DOWN, limit=1) == ["b", "b"]


def test_text_is_found_in_either_case_and_its_wildcards_are_letters(storage: Storage) -> None:
    add(storage, "Foam-7", title="Milk FROTH 100%")
    add(storage, "tea", proposal="GUP_42")
    assert names(storage, text="foam") == names(storage, text="froth 100%") == ["Foam-7"]
    assert names(storage, text="gup_4") == ["tea"]
    assert names(storage, text="%") == ["Foam-7"]
    assert names(storage, text="_") == ["tea"]
    assert names(storage, text="\\") == []


def test_a_list_holds_what_the_callers_rights_reach(storage: Storage, clock: Clock) -> None:
    own = add(storage, "own")
    add(storage, "other")
    far = add(storage, "far", at="9ID")
    add(storage, "open", publicity=Publicity.PUBLIC)
    add(storage, "later", publicity=Publicity.FACILITY, embargo_until=clock.now + timedelta(seconds=5))
    assert names(storage, Reach()) == []
    assert names(storage, Reach(experiments=frozenset({own.uid}))) == ["own"]
    assert names(storage, Reach(stations=frozenset({far.station_uid}))) == ["far"]
    everybody = Reach(is_open_included=True)
    assert names(storage, everybody) == ["open"]
    clock.tick(5)
    assert names(storage, everybody) == ["later", "open"]
    with storage.read() as tx:
        assert set(tx.experiments.uids(Reach(experiments=frozenset({own.uid, far.uid})))) == {own.uid, far.uid}


def test_a_members_list_holds_what_is_theirs_as_the_roles_are_when_it_is_read(storage: Storage, clock: Clock) -> None:
    made = [add(storage, name) for name in ("one", "two", "three", "others")]
    add(storage, "open", publicity=Publicity.FACILITY)
    add(storage, "later", publicity=Publicity.PUBLIC, embargo_until=clock.now + timedelta(seconds=5))
    with storage.write() as tx:
        ada, bob = (tx.users.add(NewUser(username=name)) for name in ("ada", "bob"))
        roles = (Role.PI, Role.MANAGER, Role.USER)
        held = [
            Grant(user_uid=ada.uid, role=role, experiment_uid=one.uid) for role, one in zip(roles, made, strict=False)
        ]
        for grant in (*held, Grant(user_uid=bob.uid, role=Role.PI, experiment_uid=made[3].uid)):
            tx.users.grant(grant)
        caller = Caller("ada", ada.uid, grants=tuple(tx.users.grants_of(ada.uid)))
    seen = reach(caller, Action.EXPERIMENT_READ)
    assert names(storage, seen) == ["open", "three", "two", "one"]
    clock.tick(5)
    with storage.write() as tx:
        tx.users.revoke(held[1])
    assert names(storage, seen) == ["later", "open", "three", "one"], "what was taken back meanwhile is not there"


@pytest.mark.parametrize(
    ("directory", "is_in_the_way"),
    [
        ("2026/a", True),
        ("2026", True),
        ("2026/a/b", True),
        ("2026/a/b/c", True),
        ("2026/ab", False),
        ("2026/a b", False),
        ("2026/a0", False),
        ("2026/A", False),
        ("202", False),
        ("2027/a", False),
        ("x/2026/a", False),
    ],
)
def test_a_directory_is_in_the_way_of_itself_and_of_those_above_and_below(
    storage: Storage, directory: str, is_in_the_way: bool
) -> None:
    made = add(storage, directory="2026/a")
    with storage.write() as tx:
        other = tx.storage.add(NewStorageArea(name="other", station_url="file:///o", path="/o"))
        tx.experiments.delete(made.uid)
        found = tx.experiments.overlapping(made.storage_area_uid, directory)
        assert (found is not None) is is_in_the_way
        assert tx.experiments.overlapping(other.uid, directory) is None


def test_what_is_unknown_is_named(storage: Storage) -> None:
    uid = new_uid()
    with storage.read() as tx:
        for look in (tx.experiments.get, tx.experiments.get_station):
            with pytest.raises(NotFoundError, match=str(uid)):
                look(uid)
        with pytest.raises(NotFoundError, match='"8ID"'):
            tx.experiments.station_named("8ID")
        assert tx.experiments.find(uid, "coffee") is None
