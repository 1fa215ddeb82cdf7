"""Files that go before all others, and files that are tried again, in the journal of both databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from beamkeeper.db.base import new_uid
from beamkeeper.db.journal import Seen
from beamkeeper.domain.acquisition import JournalState, State
from beamkeeper.domain.files import SourceIdentity
from beamkeeper.domain.globs import matcher
from beamkeeper.testing.beamline import Beamline, options

J = JournalState


@pytest.fixture
def beamline(database_url: str, tmp_path: Path) -> Iterator[Beamline]:
    made = Beamline(database_url, tmp_path / "storage")
    yield made
    made.close()


def daq(beamline: Beamline, directory: bytes, *names: bytes, state: JournalState = J.READY) -> UUID:
    with beamline.database.write() as tx:
        uid = tx.acquisitions.add(beamline.experiment(), options(directory)).uid
    see(beamline, uid, *names, state=state)
    return uid


def see(
    beamline: Beamline, uid: UUID, *names: bytes, state: JournalState = J.READY, first: tuple[str, ...] = ()
) -> None:
    identity = SourceIdentity(dev=1, ino=1, size=10, mtime_ns=0, ctime_ns=0)
    with beamline.database.write() as tx:
        seen = [Seen(name, state, identity=identity, reason_code="damaged", reason="other bytes") for name in names]
        tx.journal.see(uid, seen, is_first=matcher(first) if first else None)
    beamline.clock.now += timedelta(seconds=1)


def claimed(beamline: Beamline, files: int = 1, *, without: tuple[UUID, ...] = ()) -> list[bytes]:
    """Claim until nothing is left, and return the paths in their order."""
    found: list[bytes] = []
    while True:
        with beamline.database.write() as tx:
            batch = tx.journal.claim(new_uid(), files=files, size=10**9, without=without)
        if batch is None:
            return found
        found += [file.path for file in batch.files]


def test_files_that_are_wanted_first_go_before_older_ones_of_other_daqs(beamline: Beamline) -> None:
    daq(beamline, b"det1", b"old_1", b"old_2")
    second = daq(beamline, b"det2", b"scan_1/a", b"scan_2/a", b"scan_2/b")
    with beamline.database.write() as tx:
        assert tx.journal.prioritise(second, matcher(("scan_2/*",))) == 2
    assert claimed(beamline) == [b"scan_2/a", b"scan_2/b", b"old_1", b"old_2", b"scan_1/a"]


def test_what_is_still_to_come_goes_first_too(beamline: Beamline) -> None:
    uid = daq(beamline, b"det1", b"a", b"b")
    see(beamline, uid, b"late.tif", b"c", first=("*.tif",))
    assert claimed(beamline, files=2) == [b"late.tif", b"a", b"b", b"c"]


def test_a_later_word_takes_the_place_of_an_earlier_one(beamline: Beamline) -> None:
    uid = daq(beamline, b"det1", b"a", b"b", b"c")
    with beamline.database.write() as tx:
        tx.journal.prioritise(uid, matcher(("c",)))
        tx.journal.prioritise(uid, matcher(("b",)))
        assert tx.acquisitions.set_first(uid, ("b",)).first == ("b",)
    assert claimed(beamline) == [b"b", b"a", b"c"]


def test_while_a_storage_area_is_paused_the_others_have_their_first_ones_first(beamline: Beamline) -> None:
    daq(beamline, b"det1", b"old")
    second = daq(beamline, b"det2", b"new")
    with beamline.database.write() as tx:
        tx.journal.prioritise(second, matcher(("new",)))
    assert claimed(beamline, without=(new_uid(),)) == [b"new", b"old"]


def test_only_what_is_meant_is_tried_again_and_begins_from_the_beginning(beamline: Beamline) -> None:
    uid = daq(beamline, b"det1", b"scan/a.tif", b"scan/b.dat", state=J.QUARANTINED)
    see(beamline, uid, b"scan/c.tif")
    with beamline.database.write() as tx:
        assert tx.journal.retry(uid, matcher(("*.h5",))) == 0
        assert tx.journal.retry(uid, matcher(("*.tif",))) == 1
    with beamline.database.read() as tx:
        found = {bytes(e.relpath): e for e in tx.journal.page(uid, None, None, 10).items}
    assert {path: entry.state for path, entry in found.items()} == {
        b"scan/a.tif": J.CANDIDATE,
        b"scan/b.dat": J.QUARANTINED,
        b"scan/c.tif": J.READY,
    }
    again = found[b"scan/a.tif"]
    assert (again.attempts, again.reason, again.reason_code) == (0, "", "")


def test_what_runs_again_holds_no_directory_and_ends_a_second_time(beamline: Beamline) -> None:
    uid = daq(beamline, b"det1")
    with beamline.database.write() as tx:
        tx.acquisitions.mark_started(uid)
        tx.acquisitions.mark_ended(uid, State.FAILED, "1 quarantined")
        again = tx.acquisitions.run_again(uid)
        tx.acquisitions.mark_retried(uid)
        assert (again.state, again.ended_at, again.message) == (State.STOPPING, None, "")
        assert again.stop_requested_at is not None
        assert [found.uid for found in tx.acquisitions.active()] == [uid]
        assert tx.acquisitions.holding("det1") == []
        control = tx.acquisitions.control(uid)
        assert (control.is_retry, control.retries, control.stop_now) == (True, 1, False)
        assert tx.acquisitions.mark_ended(uid, State.DONE).ended_at is not None
