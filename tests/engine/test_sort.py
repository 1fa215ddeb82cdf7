"""What of a directory is looked at again: nothing where it is calm, everything where that cannot be told."""

from __future__ import annotations

import errno
import os
from collections import deque
from pathlib import Path

from beamkeeper.domain.acquisition import JournalState, State
from beamkeeper.engine.finish import make_policy
from beamkeeper.engine.root import Root
from beamkeeper.engine.scan import Listing
from beamkeeper.engine.sort import Sorter
from beamkeeper.testing.intakes import Watched


def sorter_of(made: Watched) -> Sorter:
    a = made.acquisition
    root = Root(b"/" + a.relpath, None)
    root.look()
    policy = make_policy(a.finished, a.quiet_s, 2.0, file_system="ext4", kind=a.kind)
    return Sorter(a, made.database, root, policy, returned=deque(), wrote=lambda seen: None)


def scan(made: Watched, sorter: Sorter, *listings: Listing) -> None:
    """Take listings in as a scan does."""
    for listing in listings:
        if not sorter.is_calm(listing):
            with made.database.read() as tx:
                known = tx.journal.known_in(made.uid, listing.directory)
                control = tx.acquisitions.control(made.uid)
            sorter.compare(listing, known, control)
    sorter.flush()


def test_an_empty_directory_that_cannot_be_read_is_listed_until_it_can(tmp_path: Path) -> None:
    with Watched(tmp_path) as made:
        below = made.directory / "below"
        below.mkdir()
        sorter = sorter_of(made)
        top = Listing(b"", [(b"below", os.lstat(below))])
        empty, failing = Listing(b"below", []), Listing(b"below", [], OSError(errno.EIO, os.strerror(errno.EIO)))
        scan(made, sorter, top, empty)
        assert sorter.is_calm(top)
        assert sorter.is_calm(empty)
        scan(made, sorter, top, failing)
        scan(made, sorter, top, failing)
        assert made.state(b"below") is JournalState.QUARANTINED
        scan(made, sorter, top, empty)  # a disk that is there again changes no time of the directory
        assert made.state(b"below") is None


def test_what_comes_after_the_end_is_not_written_down(tmp_path: Path) -> None:
    with Watched(tmp_path) as made:
        early, late = made.directory / "early.dat", made.directory / "late.dat"
        early.write_bytes(b"in time")
        sorter = sorter_of(made)
        scan(made, sorter, Listing(b"", [(b"early.dat", os.lstat(early))]))
        assert made.state(b"early.dat") is not None
        with made.database.write() as tx:
            tx.acquisitions.mark_ended(made.uid, State.ABORTED)
        late.write_bytes(b"too late")  # its watch goes on for a moment
        scan(made, sorter, Listing(b"", [(b"early.dat", os.lstat(early)), (b"late.dat", os.lstat(late))]))
        assert made.state(b"late.dat") is None
