"""What an intake does with files that are tried again, and with those that go first."""

from __future__ import annotations

from pathlib import Path

from beamkeeper.db.journal import Seen
from beamkeeper.db.journal_rows import FIRST, JournalRow
from beamkeeper.db.news import Topic
from beamkeeper.domain.acquisition import JournalState, Kind, State
from beamkeeper.engine.intake import Rules
from beamkeeper.testing.intakes import Watched, watched
from beamkeeper.testing.station import until

J = JournalState


def quarantined(made: Watched, *paths: bytes) -> None:
    """Put files aside, as workers do."""
    with made.database.write() as tx:
        tx.journal.see(made.uid, [Seen(p, J.QUARANTINED, reason_code="damaged", reason="other bytes") for p in paths])


def retry(made: Watched, *, is_over: bool) -> None:
    with made.database.write() as tx:
        tx.journal.retry(made.uid, lambda path: True)
        if is_over:
            tx.acquisitions.run_again(made.uid)
        tx.acquisitions.mark_retried(made.uid)


def test_a_running_daq_looks_at_once_at_what_is_tried_again(tmp_path: Path) -> None:
    with Watched(tmp_path) as made:
        (made.directory / "a").write_bytes(b"x")
        made.begun().awaits(b"a", J.READY)
        quarantined(made, b"a", b"gone")
        retry(made, is_over=False)
        made.intake.wake()
        assert made.awaits(b"a", J.READY).reason == ""
        made.awaits(b"gone", J.VANISHED)
        assert made.intake.scans == 1


def test_one_pass_that_is_scanned_already_looks_at_what_is_tried_again(tmp_path: Path) -> None:
    with Watched(tmp_path, kind=Kind.UPLOAD) as made:
        (made.directory / "a").write_bytes(b"x")
        made.begun().awaits(b"a", J.READY)
        until(lambda: made.intake.is_drained, "the end of the pass")
        quarantined(made, b"a")
        retry(made, is_over=False)
        made.intake.wake()
        made.awaits(b"a", J.READY)
        assert made.intake.scans == 1


def test_one_that_had_ended_looks_at_nothing_but_what_is_tried_again(tmp_path: Path) -> None:
    with Watched(tmp_path) as made:
        (made.directory / "dir").mkdir()
        for name in ("a", "dir/b", "other"):
            (made.directory / name).write_bytes(b"x")
        # Of the directory it was said that it could not be read.
        quarantined(made, b"a", b"dir")
        with made.database.write() as tx:
            tx.acquisitions.mark_started(made.uid)
            tx.acquisitions.mark_ended(made.uid, State.FAILED)
        retry(made, is_over=True)
        made.start()
        until(lambda: made.intake.is_drained, "the end")
        assert {path: entry.state for path, entry in made.entries().items()} == {b"a": J.READY, b"dir/b": J.READY}
        assert made.intake.scans == 0
        assert made.acquisition.policy == ""
        made.stop()
        made.start()  # a restart goes on with the same
        until(lambda: made.intake.is_drained, "the end, after a restart")
        assert set(made.entries()) == {b"a", b"dir/b"}


def test_files_that_go_first_are_marked_as_they_come(tmp_path: Path) -> None:
    with Watched(tmp_path, first=("*.tif",)) as made:
        (made.directory / "a.tif").write_bytes(b"x")
        (made.directory / "b.dat").write_bytes(b"x")
        made.begun().awaits_count(2)
        with made.database.write() as tx:
            tx.acquisitions.set_first(made.uid, ("*.dat",))
            tx.about = Topic.ORDERS
        (made.directory / "c.tif").write_bytes(b"x")
        (made.directory / "d.dat").write_bytes(b"x")
        made.awaits_count(4)
        with made.database.engine.connect() as connection:
            rows = connection.execute(JournalRow.__table__.select()).all()
        assert {row.path for row in rows if row.priority == FIRST} == {b"a.tif", b"d.dat"}


def test_a_scan_finds_what_changed_in_a_directory_of_which_all_was_delivered(tmp_path: Path) -> None:
    rules = Rules(quiet_s=0.0, scan_interval_s=0.1, is_polled=True)
    with watched(tmp_path, rules) as seen:
        for name in "ab":
            (seen.directory / name).write_bytes(b"one")
        seen.awaits_count(2)
        assert seen.deliver() == 2
        scans = seen.intake.scans
        until(lambda: seen.intake.scans > scans + 2, "scans that find nothing new")
        (seen.directory / "b").write_bytes(b"two")
        (seen.directory / "c").write_bytes(b"one")
        seen.awaits(b"b", J.READY)
        seen.awaits(b"c", J.READY)
        assert seen.state(b"a") is J.AVAILABLE
