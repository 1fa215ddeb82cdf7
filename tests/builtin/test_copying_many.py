"""Many small files are copied by helper processes: with the same answers, and whatever becomes of the helpers."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from blake3 import blake3

from beamkeeper.builtin.copying import HELPED_FILES, CopyOptions, CopyTransfer
from beamkeeper.config import failpoints
from beamkeeper.domain.errors import DestinationError, SourceError
from beamkeeper.plugins.api import TransferItem
from beamkeeper.testing.conformance import LocalPlace, Sources, never, send_all, source_code

MANY = 3 * HELPED_FILES


@pytest.fixture
def place(tmp_path: Path) -> LocalPlace:
    return LocalPlace(tmp_path / "experiment")


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    (tmp_path / "source").mkdir()
    return Sources(tmp_path / "source")


def make(sources: Sources, count: int = MANY) -> dict[TransferItem, bytes]:
    contents = {b"\xff %d/%04d" % (number % 3, number): os.urandom(100 * number % 5000) for number in range(count)}
    return {sources.add(path, content): content for path, content in contents.items()}


def children() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def check(place: LocalPlace, items: dict[TransferItem, bytes], transfer: CopyTransfer) -> None:
    results = send_all(transfer, list(items), place.url("b1"))
    for item, content in items.items():
        result = results[item.version_uid]
        assert (result.error, result.size) == (None, len(content))
        assert [(c.algorithm, c.value) for c in result.checksums] == [("blake3", blake3(content).hexdigest())]
        assert place.read("b1", item.path) == content


def test_many_small_files_are_copied_by_helpers_that_are_kept_for_the_next(place: LocalPlace, sources: Sources) -> None:
    transfer, before = CopyTransfer(CopyOptions(threads=2)), children()
    items = make(sources)
    check(place, items, transfer)
    helpers = children() - before
    assert len(helpers) == 2
    check(place, items, transfer)  # what is there from before is replaced
    assert children() - before == helpers
    transfer.helpers.close()
    assert children() - before == set()


def test_files_are_copied_all_the_same_where_every_helper_is_killed(place: LocalPlace, sources: Sources) -> None:
    transfer, before = CopyTransfer(CopyOptions(threads=2)), children()
    items, seen = make(sources), 0

    def stop(moved: int = 0, /) -> bool:
        nonlocal seen
        for pid in children() - before:
            os.kill(pid, signal.SIGKILL)
            seen += 1
        return False

    results = {result.version_uid: result for result in transfer.send(list(items), place.url("b1"), stop)}
    assert seen >= 1
    assert [results[item.version_uid].error for item in items] == [None] * MANY
    assert all(place.read("b1", item.path) == content for item, content in items.items())


def test_helpers_that_died_while_idle_are_replaced(place: LocalPlace, sources: Sources) -> None:
    transfer, before = CopyTransfer(CopyOptions(threads=1)), children()
    items = make(sources, HELPED_FILES)
    check(place, items, transfer)
    (pid,) = children() - before
    os.kill(pid, signal.SIGKILL)
    check(place, items, transfer)
    assert pid not in children()
    transfer.helpers.close()


def test_faults_of_single_files_are_theirs_alone(place: LocalPlace, sources: Sources) -> None:
    transfer = CopyTransfer(CopyOptions(threads=2))
    items = list(make(sources))
    with open(items[1].source, "ab") as file:
        file.write(b"more")
    os.unlink(items[2].source)
    results = send_all(transfer, items, place.url("b1"))
    assert source_code(results[items[1].version_uid]) == "changed"
    assert source_code(results[items[2].version_uid]) == "vanished"
    assert isinstance(results[items[2].version_uid].error, SourceError)
    assert sum(result.error is None for result in results.values()) == MANY - 2
    transfer.helpers.close()


def test_a_stop_ends_the_helpers_after_a_few_files(place: LocalPlace, sources: Sources) -> None:
    transfer = CopyTransfer(CopyOptions(threads=1))
    items = make(sources, 5 * HELPED_FILES)
    results = list(transfer.send(list(items), place.url("b1"), lambda moved=0: True))
    assert len(results) < len(items)
    assert all(result.error is None for result in results)
    transfer.helpers.close()


def test_a_destination_that_fails_as_a_whole_ends_the_batch(tmp_path: Path, sources: Sources) -> None:
    place, transfer = LocalPlace(tmp_path / "experiment"), CopyTransfer(CopyOptions(threads=2))
    items, before = list(make(sources)), children()
    sending = transfer.send(items, place.url("b1"), never)
    next(sending)
    sending.close()
    transfer.helpers.close()
    assert children() <= before, "helpers of other tests may have ended meanwhile"
    (tmp_path / "experiment" / ".dm" / "staging").rename(tmp_path / "elsewhere")
    (tmp_path / "experiment" / ".dm").rmdir()
    (tmp_path / "experiment").rmdir()
    with pytest.raises(DestinationError):
        send_all(transfer, items, place.url("b1"))


def test_with_a_fail_point_everything_stays_in_the_process(place: LocalPlace, sources: Sources) -> None:
    before, items = children(), make(sources, HELPED_FILES)
    failpoints.arm("reaping:raise")
    try:
        check(place, items, CopyTransfer(CopyOptions()))
    finally:
        failpoints.arm("")
    assert children() <= before, "helpers of other tests may have ended meanwhile"


STARTS_ONE = """
import os, sys, time
from pathlib import Path
from beamkeeper.plugins.helpers import Helpers

order = {"staging": sys.argv[1], "algorithms": ["blake3"], "chunk_bytes": 1, "buffer_bytes": 4096, "items": []}
helpers = Helpers("beamkeeper.builtin.pieces")
list(helpers.work([order], lambda moved: False))
print(Path(f"/proc/self/task/{os.getpid()}/children").read_text(), flush=True)
time.sleep(60)
"""


def test_a_helper_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", STARTS_ONE, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        helper = int(parent.stdout.readline())
        opened = os.pidfd_open(helper)
        parent.kill()
    assert select.select([opened], [], [], 30)[0]  # it has ended
    os.close(opened)
