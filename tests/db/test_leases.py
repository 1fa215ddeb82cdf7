"""Leases, fencing and staging directories in the journal, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from beamkeeper.db.base import new_uid
from beamkeeper.db.journal import Batch, Seen
from beamkeeper.domain.acquisition import JournalState
from beamkeeper.domain.files import SourceIdentity
from beamkeeper.testing.beamline import Beamline, options

J = JournalState


@pytest.fixture
def beamline(database_url: str, tmp_path: Path) -> Iterator[Beamline]:
    made = Beamline(database_url, tmp_path / "storage")
    yield made
    made.close()


@pytest.fixture
def daq(beamline: Beamline) -> UUID:
    """A DAQ with three files that are ready."""
    with beamline.database.write() as tx:
        uid = tx.acquisitions.add(beamline.experiment(), options()).uid
        tx.journal.see(uid, [ready(b"%d" % number) for number in range(3)])
    return uid


def ready(path: bytes) -> Seen:
    return Seen(path, J.READY, identity=SourceIdentity(dev=1, ino=1, size=10, mtime_ns=0, ctime_ns=0))


def claim(beamline: Beamline, owner: UUID, *, files: int = 10) -> Batch | None:
    with beamline.database.write() as tx:
        return tx.journal.claim(owner, files=files, size=10**9)


def claimed(beamline: Beamline, owner: UUID) -> Batch:
    batch = claim(beamline, owner)
    assert batch is not None
    return batch


def step(beamline: Beamline, batch: Batch, state: JournalState, *, free: bool = False) -> int:
    with beamline.database.write() as tx:
        return tx.journal.step(batch, state, {f.id: {"attempts": 1} for f in batch.files}, free=free)


def release(beamline: Beamline, owner: UUID) -> int:
    with beamline.database.write() as tx:
        return tx.journal.release(owner)


def left_over(beamline: Beamline) -> list[UUID]:
    with beamline.database.read() as tx:
        return [staging.batch_uid for staging in tx.stagings.left_over()]


def states(beamline: Beamline, daq: UUID) -> dict[JournalState, int]:
    with beamline.database.read() as tx:
        return {tally.state: tally.files for tally in tx.journal.tallies(daq)}


def test_what_is_held_is_not_claimed_again(beamline: Beamline, daq: UUID) -> None:
    assert claim(beamline, new_uid()) is not None
    assert claim(beamline, new_uid()) is None


def test_a_batch_that_changes_hands_keeps_its_name_and_gets_a_new_token(beamline: Beamline, daq: UUID) -> None:
    """The name is that of its staging and its publish; a token of its own is what fences the first worker off."""
    stopped, other = new_uid(), new_uid()
    first = claimed(beamline, stopped)
    assert step(beamline, first, J.STAGED) == 3
    assert release(beamline, stopped) == 3
    second = claimed(beamline, other)
    assert (second.uid, second.state) == (first.uid, J.STAGED)
    assert second.lease != first.lease
    assert step(beamline, first, J.STORED) == 0
    assert states(beamline, daq) == {J.STAGED: 3}
    assert step(beamline, second, J.STORED) == 3


def test_who_lost_a_batch_gives_nothing_of_it_back(beamline: Beamline, daq: UUID) -> None:
    stopped = new_uid()
    first = claimed(beamline, stopped)
    step(beamline, first, J.STAGED)
    release(beamline, stopped)
    second = claimed(beamline, new_uid())
    with beamline.database.write() as tx:
        tx.journal.pause(first, until=tx.now)
    assert claim(beamline, new_uid()) is None
    assert step(beamline, second, J.STORED) == 3


def test_a_batch_that_was_not_staged_begins_anew_under_another_name(beamline: Beamline, daq: UUID) -> None:
    """Its first worker may still be writing to its staging directory: nobody else ever does."""
    stopped = new_uid()
    first = claimed(beamline, stopped)
    release(beamline, stopped)
    second = claimed(beamline, new_uid())
    assert second.uid != first.uid
    assert step(beamline, first, J.STAGED) == 0


def test_a_staging_is_left_over_once_nobody_copies_to_it_or_waits_for_its_publish(
    beamline: Beamline, daq: UUID
) -> None:
    owner = new_uid()
    first = claimed(beamline, owner)
    assert left_over(beamline) == []
    release(beamline, owner)
    assert left_over(beamline) == [first.uid]
    second = claimed(beamline, owner)
    assert left_over(beamline) == [first.uid]
    step(beamline, second, J.STAGED)
    release(beamline, owner)
    assert left_over(beamline) == [first.uid]
    third = claimed(beamline, owner)
    step(beamline, third, J.STORED, free=True)
    assert left_over(beamline) == [first.uid, second.uid]
    with beamline.database.write() as tx:
        tx.stagings.forget(first.uid)
    assert left_over(beamline) == [second.uid]


def test_a_batch_is_gone_on_with_when_its_pause_is_over(beamline: Beamline, daq: UUID) -> None:
    first = claimed(beamline, new_uid())
    with beamline.database.write() as tx:
        tx.journal.pause(first, until=tx.now + timedelta(seconds=5))
    assert claim(beamline, new_uid()) is None
    beamline.clock.tick(6)
    assert len(claimed(beamline, new_uid()).files) == 3


def test_a_worker_that_was_taken_for_dead_hears_of_it(beamline: Beamline) -> None:
    uid = new_uid()
    with beamline.database.write() as tx:
        tx.workers.add(uid, host="here", boot_id="1", pid=1, start_ticks=1)
    with beamline.database.write() as tx:
        assert tx.workers.beat(uid)
        tx.workers.remove(uid)
        assert not tx.workers.beat(uid)


def test_a_clock_that_is_set_back_lets_no_file_wait_for_it(beamline: Beamline, daq: UUID) -> None:
    beamline.clock.tick(-5 * 3600)
    assert claim(beamline, new_uid()) is not None


def test_a_batch_that_is_to_wait_a_minute_waits(beamline: Beamline, daq: UUID) -> None:
    batch = claimed(beamline, new_uid())
    with beamline.database.write() as tx:
        tx.journal.pause(batch, until=tx.now + timedelta(minutes=1))
    assert claim(beamline, new_uid()) is None
    beamline.clock.tick(61)
    assert claim(beamline, new_uid()) is not None
