"""Orders for replicas, on both databases: handed out, settled, chosen in bulk, and never the last one dropped."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from beamkeeper.db.base import new_uid
from beamkeeper.db.replicas import requests
from beamkeeper.domain.files import NewFile, ReadFrom, ReplicaState
from beamkeeper.domain.ledger import NewVerification, ReplicaQuery
from beamkeeper.domain.replicas import (
    DueReplicas,
    NewReplicaRequest,
    ReplicaAction,
    ReplicaListQuery,
    ReplicaRequest,
    RequestState,
    SettledReplica,
    SettledReplicas,
    Settling,
)
from beamkeeper.domain.storage import NewStorageArea, StorageArea
from beamkeeper.domain.users import Reach
from beamkeeper.testing.catalogue import Catalogue, new_file
from db.waiting import until_another_waits

ALL = Reach(is_all=True)
V, WANTED, FAILED, DROPPED = ReplicaState.VERIFIED, ReplicaState.WANTED, ReplicaState.FAILED, ReplicaState.DROPPED


@dataclass
class Shelf:
    """A catalogue with an experiment and two areas beside its own."""

    made: Catalogue
    areas: dict[str, StorageArea] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.of = self.made.experiment()
        with self.made.database.write() as tx:
            for name in ("cold", "far"):
                path = f"/mnt/{name}"
                self.areas[name] = tx.storage.add(NewStorageArea(name=name, station_url=f"file://{path}", path=path))

    def register(self, *paths: str, also: Sequence[str] = ("cold",), number: int = 1) -> list[NewFile]:
        uids = tuple(self.areas[name].uid for name in also)
        own: dict[str, Any] = {
            "experiment_uid": self.of.uid,
            "storage_area_uid": self.of.storage_area_uid,
            "number": number,
        }
        files = [new_file(path, content=b"%d" % number, also=uids, **own) for path in paths]
        with self.made.database.write() as tx:
            tx.files.register(files, by="station")
        return files

    def due(self, area: str = "cold") -> DueReplicas | None:
        with self.made.database.write() as tx:
            return tx.replica_orders.due(self.areas[area].uid, ALL)

    def settle(self, batch: DueReplicas, outcome: Settling, message: str = "") -> Sequence[UUID]:
        at, read_from = self.made.clock.now, ReadFrom.DEVICE
        items = [
            SettledReplica(
                replica_uid=i.replica_uid, outcome=outcome, message=message, verified_at=at, read_from=read_from
            )
            for i in batch.items
        ]
        new = SettledReplicas(batch_uid=batch.uid, action=batch.action, items=tuple(items))
        with self.made.database.write() as tx:
            return tx.replica_orders.settle(new, by="station")

    def made_all(self, area: str = "cold") -> None:
        while batch := self.due(area):
            self.settle(batch, Settling.DONE)

    def ask(self, action: ReplicaAction, area: str | None = "cold", **which: object) -> ReplicaRequest:
        fields = {"uid": new_uid(), "action": action, "experiment_uid": self.of.uid, **which}
        with self.made.database.write() as tx:
            new = NewReplicaRequest.model_validate(fields)
            found = tx.replica_requests.add(new, self.of, self.areas[area] if area else None, by="mara")
        return self.chosen(found.uid)

    def chosen(self, uid: UUID) -> ReplicaRequest:
        is_busy = True
        while is_busy:
            with self.made.database.write() as tx:
                is_busy = tx.replica_requests.step()
        return self.request(uid)

    def request(self, uid: UUID) -> ReplicaRequest:
        with self.made.database.read() as tx:
            found = tx.replica_requests.find(uid)
        assert found is not None
        return found

    def states(self, area: str = "cold") -> list[ReplicaState]:
        query = ReplicaListQuery(experiment_uid=self.of.uid, storage_area=area, all_versions=True)
        with self.made.database.read() as tx:
            return [one.state for one in tx.replicas.page(query, self.of).items]


@pytest.fixture
def shelf(database_url: str) -> Iterator[Shelf]:
    with closing(Catalogue(database_url)) as made:
        yield Shelf(made)


def test_registering_orders_copies_and_the_same_batch_is_handed_out_until_it_is_settled(shelf: Shelf) -> None:
    files = shelf.register("data/a", "data/b", also=("cold", "far"))
    batch = shelf.due()
    assert batch is not None
    assert shelf.due() == batch
    assert [item.version_uid for item in batch.items] == [file.version_uid for file in files]
    assert {item.sources[0].storage_area_uid for item in batch.items} == {shelf.of.storage_area_uid}
    shelf.register("data/c")
    assert shelf.due() == batch
    assert len(shelf.settle(batch, Settling.DONE)) == 2
    assert shelf.settle(batch, Settling.AGAIN) == []  # which is settled already
    assert shelf.states() == [V, V, WANTED]
    assert shelf.states("far") == [WANTED, WANTED]
    with shelf.made.database.read() as tx:
        due = tx.ledger.replicas(ReplicaQuery(experiment_uid=shelf.of.uid), ALL)
        assert len(due.items) == 5  # what is to be made is no copy to be scrubbed
        proof = tx.ledger.proofs(shelf.of.uid, [b"data/a"])[0]
        assert sum(one.device_read_at is not None for one in proof.replicas) == 2


def test_what_was_registered_before_is_ordered_once_and_the_same_bytes_for_the_version_that_has_them(
    shelf: Shelf,
) -> None:
    (first,) = shelf.register("data/a", also=())
    assert shelf.due() is None
    (again,) = shelf.register("data/a")
    batch = shelf.due()
    assert batch is not None
    assert [item.version_uid for item in batch.items] == [first.version_uid]
    assert again.version_uid != first.version_uid
    shelf.settle(batch, Settling.DONE)
    shelf.register("data/a")
    assert shelf.due() is None


def test_a_copy_that_fails_is_tried_again_later_and_given_up_in_the_end(shelf: Shelf) -> None:
    shelf.register("data/a")
    tries = 0
    while batch := shelf.due():
        shelf.settle(batch, Settling.AGAIN, "no room")
        assert shelf.due() is None  # not before its time
        tries += 1
        shelf.made.clock.now += timedelta(minutes=11)
    assert (tries, shelf.states()) == (10, [FAILED])
    with shelf.made.database.read() as tx:
        page = tx.replicas.page(ReplicaListQuery(experiment_uid=shelf.of.uid, state=FAILED), shelf.of)
    assert [one.message for one in page.items] == ["no room"]
    asked = shelf.ask(ReplicaAction.ADD)
    shelf.made_all()
    assert (shelf.request(asked.uid).done, shelf.states()) == (1, [V])


def test_versions_of_one_file_go_one_after_the_other_and_the_highest_has_the_plain_name(shelf: Shelf) -> None:
    shelf.register("data/a")
    shelf.register("data/a", number=2)
    first = shelf.due()
    assert first is not None
    assert [(item.number, item.is_plain, item.replaces) for item in first.items] == [(1, True, None)]
    shelf.settle(first, Settling.AGAIN)
    second = shelf.due()
    assert second is not None
    assert [(item.number, item.is_plain) for item in second.items] == [(2, True)]
    shelf.settle(second, Settling.DONE)
    shelf.made.clock.now += timedelta(minutes=1)
    late = shelf.due()
    assert late is not None
    assert [(item.number, item.is_plain) for item in late.items] == [(1, False)]
    shelf.settle(late, Settling.DONE)
    shelf.register("data/a", number=3)
    third = shelf.due()
    assert third is not None
    assert [(i.number, i.is_plain, i.replaces and i.replaces.number) for i in third.items] == [(3, True, 2)]


def test_a_request_chooses_many_files_in_parts_and_counts_what_becomes_of_them(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "CHOSEN_AT_ONCE", 3)
    shelf.register(*(f"data/x/{n}" for n in range(8)), "data/y", also=())
    asked = shelf.ask(ReplicaAction.ADD, glob="data/x/*")
    assert (asked.chosen, asked.there, asked.is_chosen, asked.state) == (8, 0, True, RequestState.RUNNING)
    shelf.made_all()
    ended = shelf.request(asked.uid)
    assert (ended.done, ended.bytes, ended.state) == (8, 8, RequestState.DONE)
    again = shelf.ask(ReplicaAction.ADD)
    assert (again.chosen, again.there) == (1, 8)
    with shelf.made.database.write() as tx:
        stopped = tx.replica_requests.stop(again.uid)
    assert (stopped.state, shelf.due()) == (RequestState.STOPPED, None)
    assert shelf.ask(ReplicaAction.ADD).chosen == 1


def test_the_last_verified_copy_is_never_dropped_not_even_by_two_drops_at_a_time(shelf: Shelf) -> None:
    shelf.register("data/a", also=("cold", "far"))
    shelf.made_all("cold")
    shelf.made_all("far")
    with shelf.made.database.write() as tx:
        own = tx.ledger.replicas(ReplicaQuery(experiment_uid=shelf.of.uid), ALL).items
        (first,) = [one.replica for one in own if one.replica.storage_area_uid == shelf.of.storage_area_uid]
        bad = {"is_match": False, "read_from": ReadFrom.DEVICE, "message": "it has other bytes"}
        tx.ledger.record(
            [NewVerification(uid=new_uid(), replica_uid=first.uid, verified_at=shelf.made.clock.now, **bad)], by="x"
        )
    asked = [shelf.ask(ReplicaAction.DROP, area) for area in ("cold", "far")]
    assert [one.chosen for one in asked] == [1, 1]  # each has another that is verified, as yet
    batches = [batch for area in ("cold", "far") if (batch := shelf.due(area)) is not None]
    counted: list[int] = []
    threads = [
        threading.Thread(target=lambda b=batch: counted.append(len(shelf.settle(b, Settling.DROPPING))))
        for batch in batches
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counted) == [0, 1]
    assert sorted(shelf.request(one.uid).refused for one in asked) == [0, 1]
    states = shelf.states("cold") + shelf.states("far")
    assert sorted(states) == [ReplicaState.DROPPING, V]


def test_who_drops_locks_the_copies_of_a_version_in_one_order_so_that_two_never_wait_for_each_other(
    shelf: Shelf,
) -> None:
    """On PostgreSQL: SQLite has one writer at a time."""
    database = shelf.made.database
    if database.name == "SQLite":
        return
    shelf.register("data/a", also=("cold", "far"))
    shelf.made_all("cold")
    shelf.made_all("far")
    shelf.ask(ReplicaAction.DROP, "far")
    batch = shelf.due("far")
    assert batch is not None
    ids = {area: _replica_id(shelf, area) for area in ("cold", "far")}
    settling = threading.Thread(target=lambda: shelf.settle(batch, Settling.DROPPING))
    with database.write() as tx:
        tx.session.execute(text("SELECT id FROM replicas WHERE id = :id FOR UPDATE"), {"id": ids["cold"]})
        settling.start()
        until_another_waits(tx.session)
        tx.session.execute(text("SELECT id FROM replicas WHERE id = :id FOR UPDATE NOWAIT"), {"id": ids["far"]})
    settling.join()
    assert shelf.states("far") == [ReplicaState.DROPPING]


def _replica_id(shelf: Shelf, area: str) -> int:
    wanted = text("SELECT id FROM replicas WHERE storage_area_uid = :uid")
    with shelf.made.database.read() as tx:
        found: int = tx.session.execute(wanted, {"uid": shelf.areas[area].uid}).scalar_one()
    return found


def test_a_request_whose_copies_somebody_drops_before_they_are_made_or_read_ends_and_says_so(shelf: Shelf) -> None:
    shelf.register("data/a", "data/b", also=())
    added = shelf.ask(ReplicaAction.ADD)
    shelf.ask(ReplicaAction.DROP, glob="data/a")
    left = shelf.request(added.uid)
    assert (left.chosen, left.refused, left.state) == (1, 1, RequestState.RUNNING)
    shelf.made_all()
    assert (shelf.request(added.uid).done, shelf.request(added.uid).state) == (1, RequestState.DONE)

    read = shelf.ask(ReplicaAction.VERIFY)
    shelf.ask(ReplicaAction.DROP, glob="data/b")
    ended = shelf.request(read.uid)
    assert (ended.chosen, ended.refused, ended.state) == (0, 1, RequestState.DONE)
    assert ended.message == "some are left as they are: they are dropped, as was asked for later"


def test_a_drop_that_is_stopped_drops_no_more_but_what_was_begun(shelf: Shelf) -> None:
    shelf.register("data/a", "data/b")
    shelf.made_all()
    shelf.register("data/c")
    asked = shelf.ask(ReplicaAction.DROP)
    with shelf.made.database.write() as tx:
        tx.replica_requests.stop(asked.uid)
    batch = shelf.due()
    assert batch is not None
    assert [item.path for item in batch.items] == ["data/c"]  # it was never made, and is marked already
    shelf.settle(batch, Settling.DONE)
    assert (shelf.due(), shelf.states()) == (None, [V, V, DROPPED])
    assert shelf.ask(ReplicaAction.DROP).chosen == 2


def test_a_drop_says_why_copies_were_left_as_they_are(shelf: Shelf) -> None:
    shelf.register("data/a")
    shelf.made_all()
    asked = shelf.ask(ReplicaAction.DROP)
    batch = shelf.due()
    assert batch is not None
    shelf.settle(batch, Settling.FAILED, "the other copy has other bytes")
    ended = shelf.request(asked.uid)
    assert (ended.refused, ended.state) == (1, RequestState.DONE)
    assert ended.message == "some are left as they are: the other copy has other bytes"


def test_what_was_dropped_proves_nothing_when_it_is_made_anew(shelf: Shelf) -> None:
    shelf.register("data/a")
    shelf.made_all()
    shelf.ask(ReplicaAction.DROP)
    for outcome in (Settling.DROPPING, Settling.DONE):
        batch = shelf.due()
        assert batch is not None
        shelf.made.clock.now += timedelta(seconds=1)
        shelf.settle(batch, outcome)
    assert shelf.states() == [DROPPED]
    shelf.ask(ReplicaAction.ADD)
    batch = shelf.due()
    assert batch is not None
    cached = SettledReplica(
        replica_uid=batch.items[0].replica_uid,
        outcome=Settling.DONE,
        verified_at=shelf.made.clock.now + timedelta(seconds=1),
        read_from=ReadFrom.CACHE,
    )
    with shelf.made.database.write() as tx:
        tx.replica_orders.settle(SettledReplicas(batch_uid=batch.uid, action=batch.action, items=(cached,)), by="x")
        (proof,) = tx.ledger.proofs(shelf.of.uid, [b"data/a"])
    read_at = {one.replica.storage_area_uid: one.device_read_at for one in proof.replicas}
    assert read_at[shelf.areas["cold"].uid] is None
    assert read_at[shelf.of.storage_area_uid] is not None
