"""The table of DAQs and uploads, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from beamkeeper.db.base import new_uid
from beamkeeper.domain.acquisition import AcquisitionQuery, Finished, Kind, State
from beamkeeper.domain.errors import ConflictError, InvalidError, NotFoundError
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.users import Action, Role, reach
from beamkeeper.testing.beamline import Beamline, names, options


@pytest.fixture
def beamline(database_url: str, tmp_path: Path) -> Iterator[Beamline]:
    made = Beamline(database_url, tmp_path / "storage")
    yield made
    made.close()


def start(beamline: Beamline, path: bytes = b"det/out", experiment: str = "coffee", **changed: Any) -> UUID:
    found = beamline.experiment(experiment)
    with beamline.database.write() as tx:
        return tx.acquisitions.add(found, options(path, **changed)).uid


def test_every_option_comes_back_as_it_was_given(beamline: Beamline) -> None:
    asked = options(
        b"det/\xff out\n",
        destination="scan 1/é",
        tree=Tree.ANALYSIS,
        include=("*.tif", "ö*"),
        exclude=("*.tmp",),
        with_hidden=False,
        with_existing=False,
        resend=True,
        finished=Finished.CLOSED,
        quiet_s=0.5,
        metadata={"sample": {"name": "Ü", "x": [1, 2.5, None, True]}},
        processors=(),
        skip_processors=("metadata",),
        max_run_time_s=1800.0,
        poll=True,
        sentinel="*.done",
    )
    experiment = beamline.experiment()
    with beamline.database.write() as tx:
        made = tx.acquisitions.add(experiment, asked)
    with beamline.database.read() as tx:
        found = tx.acquisitions.get(made.uid)
        existing_before = tx.acquisitions.control(made.uid).existing_before
    assert found == made
    assert found.relpath == b"det/\xff out\n"
    assert (found.path, found.experiment, found.state) == (None, "coffee", State.PENDING)
    for name in ("destination", "tree", "include", "exclude", "with_hidden", "with_existing", "resend", "finished"):
        assert getattr(found, name) == getattr(asked, name)
    for name in ("quiet_s", "metadata", "processors", "skip_processors", "max_run_time_s", "started_by", "agent"):
        assert getattr(found, name) == getattr(asked, name)
    assert (found.poll, found.sentinel) == (True, "*.done")
    assert existing_before == found.created_at == beamline.clock.now


def test_no_processors_and_the_stations_own_chain_are_different_things(beamline: Beamline) -> None:
    none, own = start(beamline, processors=()), start(beamline, processors=None)
    with beamline.database.read() as tx:
        assert tx.acquisitions.get(none).processors == ()
        assert tx.acquisitions.get(own).processors is None


def test_an_upload_stops_once_and_keeps_the_time_of_it(beamline: Beamline) -> None:
    uid = start(beamline, kind=Kind.UPLOAD)
    with beamline.database.write() as tx:
        tx.acquisitions.mark_started(uid)
    asked_at = beamline.clock.tick()
    with beamline.database.write() as tx:
        tx.acquisitions.request_stop(uid)
    beamline.clock.tick()
    with beamline.database.write() as tx:
        again = tx.acquisitions.request_stop(uid)
    assert (again.state, again.stop_requested_at) == (State.STOPPING, asked_at)
    ended_at = beamline.clock.tick()
    with beamline.database.write() as tx:
        ended = tx.acquisitions.mark_ended(uid, State.DONE)
    assert (ended.state, ended.ended_at) == (State.DONE, ended_at)
    with pytest.raises(ConflictError, match="cannot go from done to stopping"), beamline.database.write() as tx:
        tx.acquisitions.request_stop(uid)


def test_a_stop_can_be_made_a_stop_now_but_not_back(beamline: Beamline) -> None:
    uid = start(beamline)
    seen = []
    for now in (False, True, False):
        with beamline.database.write() as tx:
            tx.acquisitions.request_stop(uid, now=now)
        with beamline.database.read() as tx:
            seen.append(tx.acquisitions.control(uid).stop_now)
    assert seen == [False, True, True]


def test_one_that_was_stopped_before_it_ran_does_not_start(beamline: Beamline) -> None:
    uid = start(beamline)
    with beamline.database.write() as tx:
        tx.acquisitions.request_stop(uid)
        assert tx.acquisitions.mark_started(uid).state is State.STOPPING


def test_a_take_over_is_one_instant_for_both(beamline: Beamline) -> None:
    old = start(beamline)
    beamline.clock.tick()
    with beamline.database.write() as tx:
        new = tx.acquisitions.add(tx.experiments.get(beamline.experiment().uid), options())
        tx.acquisitions.take_over(old, by=new.uid)
    with beamline.database.read() as tx:
        ended, goes_on = tx.acquisitions.control(old), tx.acquisitions.control(new.uid)
        assert names(tx.acquisitions.holding("det1")) == [new.uid]
    assert (ended.state, ended.taken_over_by, ended.taken_over_at) == (State.STOPPING, new.uid, new.created_at)
    assert list(goes_on.took_over) == [old]
    assert (goes_on.state, goes_on.taken_over_by) == (State.PENDING, None)


def test_the_engine_gets_all_that_has_not_ended_but_puts_that_still_receive(beamline: Beamline) -> None:
    pending, running, stopping, ended = (start(beamline) for _ in range(4))
    receiving, closed = (start(beamline, kind=Kind.UPLOAD, is_put=True) for _ in range(2))
    with beamline.database.write() as tx:
        for uid in (running, stopping, ended, closed):
            tx.acquisitions.mark_started(uid)
        tx.acquisitions.request_stop(stopping)
        tx.acquisitions.mark_ended(ended, State.FAILED, "the disk is full")
    with beamline.database.read() as tx:
        assert names(tx.acquisitions.active()) == [pending, running, stopping, closed]
        assert tx.acquisitions.get(ended).message == "the disk is full"
        assert tx.acquisitions.get(receiving).state is State.PENDING


def test_only_daqs_of_the_agent_that_have_not_ended_hold_directories(beamline: Beamline) -> None:
    held = start(beamline)
    start(beamline, kind=Kind.UPLOAD)
    start(beamline, agent="det2")
    ended = start(beamline)
    with beamline.database.write() as tx:
        tx.acquisitions.mark_ended(ended, State.ABORTED)
    with beamline.database.read() as tx:
        assert names(tx.acquisitions.holding("det1")) == [held]


def test_pages_hold_everything_once_and_newest_first(beamline: Beamline) -> None:
    made = []
    for count in range(7):
        if count % 2:  # some are of the same instant: the order is total all the same
            beamline.clock.tick()
        made.append(start(beamline))
    seen: list[UUID] = []
    after, pages = None, 0
    while pages == 0 or after is not None:
        with beamline.database.read() as tx:
            page = tx.acquisitions.page(Kind.DAQ, AcquisitionQuery(limit=3, after=after))
        seen, after, pages = seen + names(page.items), page.next, pages + 1
    assert seen == made[::-1]
    assert pages == 3


def test_a_list_can_be_of_one_kind_of_one_experiment_and_of_the_active_only(beamline: Beamline) -> None:
    daq, upload, other = start(beamline), start(beamline, kind=Kind.UPLOAD), start(beamline, experiment="tea")
    ended = start(beamline)
    with beamline.database.write() as tx:
        tx.acquisitions.mark_ended(ended, State.ABORTED)
    coffee = beamline.experiment("coffee").uid
    with beamline.database.read() as tx:
        page = tx.acquisitions.page
        assert names(page(Kind.UPLOAD, AcquisitionQuery()).items) == [upload]
        assert names(page(Kind.DAQ, AcquisitionQuery(experiment_uid=coffee)).items) == [ended, daq]
        assert names(page(None, AcquisitionQuery(is_active=True)).items) == [other, upload, daq]
        counts = {State.PENDING: 2, State.ABORTED: 1}
        assert tx.acquisitions.count_by_state(Kind.DAQ) == counts
        assert tx.acquisitions.count_by_state() == {**counts, State.PENDING: 3}


@pytest.mark.parametrize(
    ("role", "expected"),
    [(Role.USER, ["coffee"]), (Role.STATION_VIEWER, ["coffee", "tea"]), (Role.ADMINISTRATOR, ["coffee", "tea"])],
)
def test_a_list_is_of_the_experiments_that_rights_reach(beamline: Beamline, role: Role, expected: list[str]) -> None:
    for name in ("coffee", "tea"):
        start(beamline, experiment=name)
    within = reach(beamline.caller(role, "coffee"), Action.ACQUISITION_READ)
    with beamline.database.read() as tx:
        found = tx.acquisitions.page(None, AcquisitionQuery(), within).items
    assert sorted(item.experiment for item in found) == expected


@pytest.mark.parametrize(
    "cursor", ["", "x", "W10=", "WyJ4IiwieSJd", "WzEsIngiXQ==", "Wzk5OTk5OTk5OTk5OTk5OTk5OTksIjAwIl0"]
)
def test_a_cursor_of_somebodys_making_is_refused(beamline: Beamline, cursor: str) -> None:
    with beamline.database.read() as tx, pytest.raises(InvalidError, match="cursor"):
        tx.acquisitions.page(None, AcquisitionQuery(after=cursor))


def test_what_is_unknown_is_not_found(beamline: Beamline) -> None:
    with beamline.database.read() as tx:
        assert tx.acquisitions.find(uuid4()) is None
        with pytest.raises(NotFoundError, match="no DAQ or upload"):
            tx.acquisitions.get(uuid4())


def test_two_who_claim_a_directory_at_once_see_each_other(beamline: Beamline) -> None:
    experiment, seen = beamline.experiment(), []
    barrier = threading.Barrier(2)

    def claim() -> None:
        barrier.wait()
        with beamline.database.write() as tx:
            tx.acquisitions.lock_starts()
            held = tx.acquisitions.holding("det1")
            seen.append(len(held))
            if not held:
                tx.acquisitions.add(experiment, options(uid=new_uid()))

    threads = [threading.Thread(target=claim) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [0, 1]
