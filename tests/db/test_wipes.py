"""The tables of wipes, their entries and holds, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from beamkeeper.db import AcquisitionTransaction
from beamkeeper.db.base import new_uid
from beamkeeper.db.wipe_entries import NewEntry
from beamkeeper.db.wipes import Counts
from beamkeeper.domain.acquisition import State
from beamkeeper.domain.errors import ConflictError, InvalidError, NotFoundError
from beamkeeper.domain.files import FileKind, SourceIdentity
from beamkeeper.domain.wipes import (
    EntryState,
    Wipe,
    WipeEntry,
    WipeEntryQuery,
    WipeQuery,
    WipeRun,
    WipeState,
    WipeTally,
)
from beamkeeper.testing.beamline import Beamline, options

ME, OTHER = UUID(int=1), UUID(int=2)
IDENTITY = SourceIdentity(dev=2**64 - 1, ino=2**64 - 2, size=10, mtime_ns=3, ctime_ns=4)


@pytest.fixture
def beamline(database_url: str, tmp_path: Path) -> Iterator[Beamline]:
    with closing(Beamline(database_url, tmp_path)) as made:
        work_as(made, ME)
        yield made


def work_as(beamline: Beamline, owner: UUID) -> None:
    with beamline.database.write() as tx:
        tx.workers.add(owner, host="h", boot_id="b", pid=1, start_ticks=1)


def add(beamline: Beamline, path: bytes = b"det/out", agent: str = "det1") -> Wipe:
    with beamline.database.write() as tx:
        return tx.wipes.add(None, agent=agent, path=path, min_age_hours=24.0, within_days=7.0, max_files=1000, by="ada")


def claim(beamline: Beamline, owner: UUID = ME, agent: str = "det1") -> UUID | None:
    with beamline.database.write() as tx:
        wipe = tx.wipes.claim(agent, owner)
    return wipe.uid if wipe else None


def step(beamline: Beamline, wipe: Wipe, state: WipeState, owner: UUID = ME, **values: object) -> Wipe:
    with beamline.database.write() as tx:
        return tx.wipes.step(wipe.uid, owner, state, **values)


def planned(beamline: Beamline) -> Wipe:
    wipe = add(beamline)
    claim(beamline)
    step(beamline, wipe, WipeState.PLANNING)
    return step(beamline, wipe, WipeState.PLANNED, is_safe=True)


def entry(path: bytes, reason: str = "", identity: SourceIdentity | None = IDENTITY) -> NewEntry:
    replica = None if reason else new_uid()
    return NewEntry(path, FileKind.FILE, identity, reason, f"why {reason}", replica, replica)


def test_a_wipe_comes_back_as_asked(beamline: Beamline) -> None:
    wipe = add(beamline, b"det/\xff")
    assert (wipe.state, wipe.is_safe, wipe.relpath, wipe.planned_by) == (WipeState.PENDING, None, b"det/\xff", "ada")
    with beamline.database.read() as tx:
        assert tx.wipes.get(wipe.uid) == tx.wipes.find(wipe.uid) == wipe
        assert tx.wipes.find(new_uid()) is None
        with pytest.raises(NotFoundError):
            tx.wipes.get(new_uid())


def test_the_oldest_with_work_is_claimed_by_one_living_process_of_its_agent(beamline: Beamline) -> None:
    first, second = add(beamline), add(beamline)
    assert claim(beamline, agent="elsewhere") is None
    assert claim(beamline) == first.uid
    work_as(beamline, OTHER)
    assert claim(beamline, OTHER) == second.uid
    assert claim(beamline) == first.uid
    with pytest.raises(ConflictError, match="another process"):
        step(beamline, first, WipeState.PLANNING, OTHER)
    with beamline.database.write() as tx:
        tx.workers.remove(ME)
    assert claim(beamline, OTHER) == first.uid
    with pytest.raises(ConflictError, match="another process"):
        step(beamline, first, WipeState.PLANNING, ME)


def test_only_the_steps_of_the_table_are_taken(beamline: Beamline) -> None:
    wipe = planned(beamline)
    assert wipe.planned_at is not None
    assert claim(beamline) is None
    with beamline.database.write() as tx:
        asked = tx.wipes.ask(wipe.uid, WipeRun(expected_files=0, remove_directories=True), by="mona")
    assert (asked.state, asked.run_by, asked.remove_directories) == (WipeState.ASKED, "mona", True)
    with beamline.database.write() as tx, pytest.raises(ConflictError, match="cannot go"):
        tx.wipes.ask(wipe.uid, WipeRun(expected_files=0), by="mona")
    assert claim(beamline) == wipe.uid
    with pytest.raises(ConflictError, match="cannot go"):
        step(beamline, wipe, WipeState.DONE)
    step(beamline, wipe, WipeState.RUNNING)
    done = step(beamline, wipe, WipeState.DONE, message="m" * 3000)
    assert done.ended_at is not None
    assert len(done.message) == 2000


def test_counts_are_kept_with_the_wipe(beamline: Beamline) -> None:
    wipe = add(beamline)
    claim(beamline)
    tally = WipeTally(reason="hidden", files=2, bytes=5)
    with beamline.database.write() as tx:
        tx.wipes.count(wipe.uid, ME, Counts(3, 2**40, [tally], 4, 5))
        tx.wipes.count_deleted(wipe.uid, ME, 1, 2**41, [tally])
    with beamline.database.read() as tx:
        found = tx.wipes.get(wipe.uid)
    assert (found.proven_files, found.proven_bytes, found.not_proven, found.directories) == (3, 2**40, (tally,), 4)
    assert (found.not_seen_open, found.deleted_files, found.deleted_bytes) == (5, 1, 2**41)
    assert (found.kept, found.not_proven_files, found.kept_files) == ((tally,), 2, 2)


def test_wipes_are_listed_newest_first(beamline: Beamline) -> None:
    wipes = []
    for number in range(5):
        wipes.append(add(beamline).uid)
        beamline.clock.tick(number % 2)
    found: list[UUID] = []
    query = WipeQuery(limit=2)
    with beamline.database.read() as tx:
        while True:
            page = tx.wipes.page(query)
            found += [wipe.uid for wipe in page.items]
            if page.next is None:
                break
            query = query.model_copy(update={"after": page.next})
        assert found == wipes[::-1]
        with pytest.raises(InvalidError):
            tx.wipes.page(WipeQuery(after="x"))


def entries(tx: AcquisitionTransaction, key: int, **wanted: object) -> list[WipeEntry]:
    found: list[WipeEntry] = []
    query = WipeEntryQuery.model_validate({"limit": 2, **wanted})
    while True:
        page = tx.wipe_entries.page(key, query)
        found += page.items
        if page.next is None:
            return found
        query = query.model_copy(update={"after": page.next})


def test_entries_come_back_by_pages_and_are_replaced_by_path(beamline: Beamline) -> None:
    wipe, other = add(beamline), add(beamline)
    long = b"a" * 5000
    written = [entry(b"a"), entry(b"b", "hidden"), entry(long, "never-seen", None), entry(b"\xff"), entry(b"c")]
    with beamline.database.write() as tx:
        key = tx.wipes.key(wipe.uid)
        tx.wipe_entries.write(key, written)
        tx.wipe_entries.write(tx.wipes.key(other.uid), [entry(b"a", "held")])
    with beamline.database.read() as tx:
        found = entries(tx, key)
        assert [bytes(e.relpath) for e in found] == [b"a", b"b", long, b"\xff", b"c"]
        assert (found[0].state, found[0].identity, found[0].size) == (EntryState.PROVEN, IDENTITY, 10)
        assert (found[1].state, found[1].reason, found[1].why) == (EntryState.NOT_PROVEN, "hidden", "why hidden")
        assert (found[2].identity, found[2].size) == (None, 0)
        assert [bytes(e.relpath) for e in entries(tx, key, state="not-proven")] == [b"b", long]
        assert [bytes(e.relpath) for e in entries(tx, key, reason="hidden")] == [b"b"]
        known = tx.wipe_entries.known(key, [b"a", long, b"none"])
        assert {path: planned.state for path, planned in known.items()} == {
            b"a": EntryState.PROVEN,
            long: EntryState.NOT_PROVEN,
        }
        assert known[b"a"].identity == IDENTITY
    with beamline.database.write() as tx:
        tx.wipe_entries.write(key, [entry(b"a", "changed")])
        assert entries(tx, key)[0].reason == "changed"
        tx.wipe_entries.clear(key)
        assert entries(tx, key) == []
        assert len(entries(tx, tx.wipes.key(other.uid))) == 1


def test_a_deletion_is_written_before_and_after(beamline: Beamline) -> None:
    wipe = add(beamline)
    with beamline.database.write() as tx:
        key = tx.wipes.key(wipe.uid)
        tx.wipe_entries.write(key, [*(entry(b"%d" % i) for i in range(4)), entry(b"no", "hidden")])
        batch = tx.wipe_entries.in_state(key, EntryState.PROVEN, limit=3)
        assert [e.path for e in batch] == [b"0", b"1", b"2"]
        assert [e.path for e in tx.wipe_entries.in_state(key, EntryState.PROVEN, after=batch[-1].id)] == [b"3"]
        tx.wipe_entries.mark_deleting([e.id for e in batch], by="mona")
    marked_at = beamline.clock.now
    beamline.clock.tick()
    with beamline.database.write() as tx:
        gone, kept, again = batch
        tx.wipe_entries.settle(
            {
                gone.id: (EntryState.DELETED, "", ""),
                kept.id: (EntryState.KEPT, "open", "a process has it open"),
                again.id: (EntryState.PROVEN, "", ""),
            }
        )
        files, size, tallies = tx.wipe_entries.totals(key)
        assert (files, size, tallies) == (1, 10, [WipeTally(reason="open", files=1, bytes=10)])
        assert list(tx.wipe_entries.paths(key, EntryState.DELETED)) == [b"0"]
        assert list(tx.wipe_entries.paths(key, EntryState.KEPT, "open")) == [b"1"]
        assert list(tx.wipe_entries.paths(key, EntryState.KEPT, "held")) == []
        found = {e.path: e for e in entries(tx, key)}
    assert (found["0"].by, found["0"].at, found["0"].deleted_at) == ("mona", marked_at, beamline.clock.now)
    assert (found["1"].by, found["1"].deleted_at) == ("mona", None)
    assert found["no"].by is None


def test_only_proven_entries_are_marked(beamline: Beamline) -> None:
    wipe = add(beamline)
    with beamline.database.write() as tx:
        key = tx.wipes.key(wipe.uid)
        tx.wipe_entries.write(key, [entry(b"no", "hidden")])
        (not_proven,) = tx.wipe_entries.in_state(key, EntryState.NOT_PROVEN)
        tx.wipe_entries.mark_deleting([not_proven.id], by="mona")
        assert tx.wipe_entries.in_state(key, EntryState.DELETING) == []


def test_plans_that_nobody_carried_out_are_forgotten(beamline: Beamline) -> None:
    old, active = planned(beamline), add(beamline, agent="det2")
    with beamline.database.write() as tx:
        tx.wipe_entries.write(tx.wipes.key(old.uid), [entry(b"a")])
    beamline.clock.tick(8 * 86400)
    young = planned(beamline)
    with beamline.database.write() as tx:
        (key,) = tx.wipes.old_plans(timedelta(days=7))
        tx.wipe_entries.clear(key)
        tx.wipes.remove(key)
    with beamline.database.read() as tx:
        assert {wipe.uid for wipe in tx.wipes.page(WipeQuery()).items} == {active.uid, young.uid}


def test_holds_are_of_an_agent_and_by_path(beamline: Beamline) -> None:
    with beamline.database.write() as tx:
        b = tx.holds.add(None, agent="det1", path=b"det/b", why="mine", by="ada")
        a = tx.holds.add(new_uid(), agent="det1", path=b"det/a", why="", by="bob")
        tx.holds.add(None, agent="det2", path=b"det/c", why="", by="bob")
    with beamline.database.read() as tx:
        assert tx.holds.list("det1") == [a, b]
        assert tx.holds.get(b.uid) == tx.holds.find(b.uid) == b
    with beamline.database.write() as tx:
        tx.holds.remove(b.uid)
        assert tx.holds.list("det1") == [a]
        assert tx.holds.find(b.uid) is None
        with pytest.raises(NotFoundError):
            tx.holds.remove(b.uid)


def test_those_that_cover_a_directory_are_found_active_ones_first(beamline: Beamline) -> None:
    of = beamline.experiment()
    with beamline.database.write() as tx:
        made = {
            name: tx.acquisitions.add(of, options(path, agent=agent)).uid
            for name, path, agent in (
                ("above", b"det", "det1"),
                ("itself", b"det/out", "det1"),
                ("below", b"det/out/scan", "det1"),
                ("beside", b"det/outer", "det1"),
                ("another agent", b"det", "det2"),
                ("again", b"det/out", "det1"),
            )
        }
        tx.acquisitions.add(of, options(b"det/out", is_put=True))
        tx.acquisitions.request_stop(made["itself"], now=True)
        for name in ("above", "again"):
            tx.acquisitions.request_stop(made[name], now=True)
            tx.acquisitions.mark_ended(made[name], State.ABORTED)
        found = [a.uid for a in tx.acquisitions.covering("det1", b"det/out")]
        assert found == [made["itself"], made["again"], made["above"]]
        assert [a.uid for a in tx.acquisitions.covering("det1", b"det/other")] == [made["above"]]
