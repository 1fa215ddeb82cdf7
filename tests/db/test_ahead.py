"""Files that are staged while they are written, on both databases: who may take them when, and what is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from beamkeeper.builtin.copying import CopyOptions, CopyTransfer
from beamkeeper.db.ahead import StagedPart
from beamkeeper.db.base import new_uid
from beamkeeper.db.journal import Batch, Seen
from beamkeeper.domain.acquisition import JournalState, State
from beamkeeper.domain.files import SourceIdentity
from beamkeeper.engine.ahead import AheadLoop
from beamkeeper.engine.reap import JournalHeld
from beamkeeper.engine.sending import Sender
from beamkeeper.plugins.api import Transfer
from beamkeeper.testing.beamline import Beamline, options

J = JournalState
ME = new_uid()


@pytest.fixture
def beamline(database_url: str, tmp_path: Path) -> Iterator[Beamline]:
    made = Beamline(database_url, tmp_path / "storage")
    yield made
    made.close()


@pytest.fixture
def daq(beamline: Beamline) -> UUID:
    """A DAQ with a file that grows and one that is ready."""
    with beamline.database.write() as tx:
        uid = tx.acquisitions.add(beamline.experiment(), options()).uid
        tx.journal.see(uid, [seen(b"large", J.GROWING), seen(b"small", J.READY)])
    return uid


def seen(path: bytes, state: JournalState) -> Seen:
    return Seen(path, state, identity=SourceIdentity(dev=1, ino=2**64 - 1, size=1000, mtime_ns=0, ctime_ns=0))


def begin(beamline: Beamline, daq: UUID, *, is_kept: bool = True) -> StagedPart:
    with beamline.database.write() as tx:
        part = tx.ahead.begin(daq, b"large", 2**64 - 1, ME)
        tx.stagings.add(part.uid, daq)
    if is_kept:
        with beamline.database.write() as tx:
            tx.ahead.keep(part.uid, ME, size=500, chunks=["c0"])
    return part


def finish(beamline: Beamline, daq: UUID) -> None:
    with beamline.database.write() as tx:
        tx.journal.see(daq, [seen(b"large", J.READY)])


def claims(beamline: Beamline) -> list[Batch]:
    found = []
    with beamline.database.write() as tx:
        while (batch := tx.journal.claim(ME, files=10, size=10**9)) is not None:
            found.append(batch)
    return found


def left_over(beamline: Beamline) -> list[UUID]:
    with beamline.database.read() as tx:
        return [staging.batch_uid for staging in tx.stagings.left_over()]


def growing(beamline: Beamline, daq: UUID) -> list[StagedPart | None]:
    with beamline.database.read() as tx:
        return [file.staged for file in tx.ahead.growing(tx.acquisitions.get(daq).agent)]


def test_a_file_that_was_staged_ahead_becomes_a_batch_of_its_own(beamline: Beamline, daq: UUID) -> None:
    assert growing(beamline, daq) == [None]
    part = begin(beamline, daq)
    assert growing(beamline, daq) == [StagedPart(part.uid, -1, 500, ["c0"])]
    assert left_over(beamline) == []
    finish(beamline, daq)
    large, small = claims(beamline)
    assert (large.uid, large.ahead, [file.path for file in large.files]) == (part.uid, (500, ["c0"]), [b"large"])
    assert large.files[0].version_uid == part.uid
    assert (small.ahead, [file.path for file in small.files]) == (None, [b"small"])
    with beamline.database.write() as tx:
        assert not tx.ahead.hold(part.uid, ME)  # nobody writes there any more but the worker
        tx.journal.pause(large, until=tx.now - timedelta(seconds=9))
    assert left_over(beamline) == [part.uid]
    (again,) = claims(beamline)
    assert (again.ahead, again.uid == part.uid) == (None, False)


def test_while_more_is_brought_the_file_waits_and_others_go(beamline: Beamline, daq: UUID) -> None:
    part = begin(beamline, daq, is_kept=False)
    finish(beamline, daq)
    assert [file.path for batch in claims(beamline) for file in batch.files] == [b"small"]
    with beamline.database.write() as tx:
        assert not tx.ahead.hold(part.uid, new_uid())
        tx.ahead.keep(part.uid, ME, size=500, chunks=[])
        tx.journal.see(daq, [seen(b"large", J.READY)])
    assert [batch.uid for batch in claims(beamline)] == [part.uid]


def test_what_the_dead_brought_is_gone_on_with_and_what_the_silent_did_is_not(beamline: Beamline, daq: UUID) -> None:
    part, held = begin(beamline, daq, is_kept=False), JournalHeld()
    with beamline.database.write() as tx:
        assert held.owners(tx) == [ME]
        tx.ahead.release(ME, is_dead=True)
        assert tx.ahead.hold(part.uid, ME)
        held.free(tx, ME)  # nobody knows that it is dead: it may write there again
    assert growing(beamline, daq) == [None]
    assert left_over(beamline) == [part.uid]


def test_what_a_step_held_that_failed_is_let_go_by_the_next(beamline: Beamline, daq: UUID) -> None:
    part = begin(beamline, daq, is_kept=False)
    finish(beamline, daq)
    reports: list[str] = []

    def transfer(name: str) -> Transfer:
        return CopyTransfer(CopyOptions())

    sender = Sender(transfer)
    loop = AheadLoop(beamline.database, "", ME, transfer=transfer, sender=sender, least_bytes=1, report=reports.append)
    loop.step()
    assert [file.path for batch in claims(beamline) for file in batch.files] == [b"large", b"small"]
    assert (left_over(beamline), reports) == ([part.uid], [])


def test_what_nobody_will_send_is_forgotten(beamline: Beamline, daq: UUID) -> None:
    part = begin(beamline, daq)
    with beamline.database.write() as tx:
        assert tx.ahead.stale() == []
        tx.acquisitions.mark_ended(daq, State.ABORTED, "")
        assert tx.ahead.stale() == [part.uid]
        tx.ahead.drop(part.uid)
    assert left_over(beamline) == [part.uid]
