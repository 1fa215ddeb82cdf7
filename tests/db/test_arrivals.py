"""What is not delivered, counted by directory, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from beamkeeper.core import arrivals as core
from beamkeeper.db.base import new_uid
from beamkeeper.db.journal import Seen
from beamkeeper.domain.acquisition import UNCHANGED, JournalState
from beamkeeper.domain.errors import InvalidError, NotFoundError
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.files import SourceIdentity
from beamkeeper.domain.ledger import DirectoryTally
from beamkeeper.domain.users import Role
from beamkeeper.testing.beamline import Beamline, options

J = JournalState


@pytest.fixture
def beamline(database_url: str, tmp_path: Path) -> Iterator[Beamline]:
    with closing(Beamline(database_url, tmp_path)) as made:
        yield made


def acquire(beamline: Beamline, experiment: str = "coffee", **changes: Any) -> UUID:
    of = beamline.experiment(experiment)
    with beamline.database.write() as tx:
        return tx.acquisitions.add(of, options(**changes)).uid


def see(beamline: Beamline, acquisition: UUID, state: JournalState, *paths: bytes, code: str = "") -> None:
    identity = SourceIdentity(dev=1, ino=1, size=10, mtime_ns=1, ctime_ns=1)
    with beamline.database.write() as tx:
        tx.journal.see(acquisition, [Seen(path, state, identity=identity, reason_code=code) for path in paths])


def deliver(beamline: Beamline, acquisition: UUID, *paths: bytes) -> None:
    see(beamline, acquisition, J.READY, *paths)
    with beamline.database.write() as tx:
        batch = tx.journal.claim(new_uid(), files=100, size=10**9)
        assert batch is not None
        tx.journal.step(batch, J.AVAILABLE, {f.id: {"available_at": tx.now} for f in batch.files}, free=True)


def tallies(beamline: Beamline, experiment: str = "coffee", rows: int = 1000) -> list[DirectoryTally]:
    found: list[DirectoryTally] = []
    after: str | None = None
    with beamline.database.read() as tx:
        while True:
            page = tx.arrivals.directories(beamline.experiment(experiment).uid, after, rows)
            found += page.items
            if (after := page.next) is None:
                return found


def counts(beamline: Beamline, experiment: str = "coffee", rows: int = 1000) -> list[tuple[str | None, str, str, int]]:
    return [(t.path, t.state, t.reason_code, t.files) for t in tallies(beamline, experiment, rows)]


def test_what_is_not_delivered_is_counted_by_directory_of_the_experiment(beamline: Beamline) -> None:
    daq = acquire(beamline, destination="raw")
    see(beamline, daq, J.CANDIDATE, b"top", b"scan/1", b"scan/2")
    see(beamline, daq, J.GROWING, b"scan/3")
    see(beamline, daq, J.QUARANTINED, b"scan/4", code="unreadable")
    see(beamline, daq, J.SKIPPED, b"scan/.5", code="hidden")
    deliver(beamline, daq, b"scan/6", b"done/7")
    put = acquire(beamline, tree=Tree.ANALYSIS, path=b"put")
    see(beamline, put, J.VANISHED, b"scan/8")
    see(beamline, acquire(beamline, "tea", path=b"tea"), J.CANDIDATE, b"scan/9")
    wanted = [
        ("data/raw", "candidate", "", 1),
        ("data/raw/scan", "candidate", "", 2),
        ("data/raw/scan", "growing", "", 1),
        ("data/raw/scan", "quarantined", "unreadable", 1),
        ("data/raw/scan", "skipped", "hidden", 1),
        ("analysis/scan", "vanished", "", 1),
    ]
    for rows in (1, 2, 3, 1000):
        assert counts(beamline, rows=rows) == wanted
    assert {tally.bytes for tally in tallies(beamline)} == {10, 20}
    assert counts(beamline, "tea") == [("data/scan", "candidate", "", 1)]


def test_a_file_that_changed_after_it_was_stored_says_so(beamline: Beamline) -> None:
    daq = acquire(beamline)
    deliver(beamline, daq, b"a")
    see(beamline, daq, J.GROWING, b"a", b"b")
    assert [(t.was_available, t.files) for t in tallies(beamline)] == [(False, 1), (True, 1)]


def test_a_later_pass_says_what_holds_now(beamline: Beamline) -> None:
    first = acquire(beamline)
    see(beamline, first, J.QUARANTINED, b"a", b"b", b"c")
    second = acquire(beamline)
    deliver(beamline, second, b"a")
    see(beamline, second, J.SKIPPED, b"b", code=UNCHANGED)
    see(beamline, second, J.SKIPPED, b"c", code="excluded")
    assert counts(beamline) == [("data", "quarantined", "", 1), ("data", "skipped", "excluded", 1)]
    elsewhere = acquire(beamline, destination="other", path=b"x")
    deliver(beamline, elsewhere, b"c")
    assert len(counts(beamline)) == 2


def test_what_was_skipped_and_is_stored_all_the_same_is_not_counted(beamline: Beamline) -> None:
    first = acquire(beamline)
    deliver(beamline, first, b"a")
    second = acquire(beamline)
    see(beamline, second, J.SKIPPED, b"a", b"b", code="existing")
    assert counts(beamline) == [("data", "skipped", "existing", 1)]


def test_a_cursor_that_is_none_is_refused(beamline: Beamline) -> None:
    with beamline.database.read() as tx, pytest.raises(InvalidError):
        tx.arrivals.directories(beamline.experiment().uid, "bm9uZQ")


def test_counts_are_for_who_may_see_the_acquisitions(beamline: Beamline) -> None:
    see(beamline, acquire(beamline), J.CANDIDATE, b"a")
    uid = beamline.experiment().uid
    beamline.experiment("tea")
    with beamline.database.read() as tx:
        for role in Role:
            assert len(core.directories(tx, beamline.caller(role), uid).items) == 1
        with pytest.raises(NotFoundError):
            core.directories(tx, beamline.caller(Role.PI, "tea"), uid)
