"""Files that jobs are wanted for, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from beamkeeper.db.base import new_uid
from beamkeeper.db.job_requests import Wanted
from beamkeeper.db.journal import Seen
from beamkeeper.domain.acquisition import JournalState
from beamkeeper.domain.files import FileKind, SourceIdentity
from beamkeeper.testing.beamline import Beamline, options


@pytest.fixture
def beamline(database_url: str, tmp_path: Path) -> Iterator[Beamline]:
    made = Beamline(database_url, tmp_path / "storage")
    yield made
    made.close()


def seen(beamline: Beamline, name: bytes, state: JournalState, **changed: object) -> Seen:
    identity = SourceIdentity(dev=1, ino=int.from_bytes(name), size=1, mtime_ns=1, ctime_ns=1)
    values = {"kind": FileKind.FILE, "identity": identity, "finished_at": beamline.clock.now, **changed}
    return Seen(name, state, **values)  # type: ignore[arg-type]


def test_files_that_are_finished_are_told_until_a_job_is_asked_for_and_a_version_once(beamline: Beamline) -> None:
    with beamline.database.write() as tx:
        mine = tx.acquisitions.add(beamline.experiment(), options(b"det/out")).uid
        other = tx.acquisitions.add(beamline.experiment(), options(b"det/other")).uid
        ready = [seen(beamline, name, JournalState.READY) for name in (b"b", b"a")]
        others = [
            seen(beamline, b"c", JournalState.CANDIDATE),
            seen(beamline, b"d", JournalState.READY, is_snapshot=True),
            seen(beamline, b"e", JournalState.READY, kind=FileKind.LINK, link_target=b"a"),
        ]
        tx.journal.see(mine, [*ready, *others])
        tx.journal.see(other, ready)
    with beamline.database.write() as tx:
        found = tx.job_requests.unasked(mine, 10, again=False)
        assert [file.path for file in found] == [b"b", b"a"]
        assert [file.path for file in tx.job_requests.unasked(mine, 1, again=False)] == [b"b"]
        wanted = [Wanted(file.version_uid, b"data/" + file.path, b"det/out/" + file.path) for file in found]
        tx.job_requests.add(mine, wanted[:1])
        assert [file.path for file in tx.job_requests.unasked(mine, 10, again=False)] == [b"a"]
        tx.job_requests.add(mine, [*wanted, Wanted(new_uid(), b"data/f", b"det/out/f")])
        assert tx.job_requests.unasked(mine, 10, again=False) == []
        assert len(tx.job_requests.unasked(other, 10, again=False)) == 2
        assert tx.job_requests.ungrouped() == {mine: 3}
        alone = tx.job_requests.alone(mine, 10)
        assert list(alone.values()) == [b"data/b", b"data/a", b"data/f"]
        run = new_uid()
        tx.job_requests.give(list(alone), run_uid=run)
        assert (tx.job_requests.alone(mine, 10), tx.job_requests.ungrouped()) == ({}, {})
        (request,) = tx.job_requests.due(10)
        assert (request.paths, request.sources, request.run_uid) == (
            [b"data/b", b"data/a", b"data/f"],
            [b"det/out/b", b"det/out/a", b"det/out/f"],
            run,
        )
        again = [Wanted(new_uid(), b"data/f", b"det/out/f", is_first=is_first) for is_first in (False, True)]
        new = Wanted(new_uid(), b"data/g", b"det/out/g", is_first=False)
        tx.job_requests.add(mine, [again[0], new])
        assert list(tx.job_requests.alone(mine, 10).values()) == [b"data/g"]
        tx.job_requests.add(mine, again[1:])
        assert list(tx.job_requests.alone(mine, 10).values()) == [b"data/g", b"data/f"]
        assert tx.job_requests.on_its_way_since(mine) == beamline.clock.now
