"""Manners at the source: the I/O class of threads that copy, limits by hour, and backing off while writes take long."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from beamkeeper.builtin.copying import CopyOptions, CopyTransfer
from beamkeeper.db.base import new_uid
from beamkeeper.domain.acquisition import JournalState
from beamkeeper.domain.limits import Limit, allowed_at
from beamkeeper.domain.storage import StorageArea
from beamkeeper.engine.manners import (
    LEAST_SHARE,
    PATIENCE,
    Limiter,
    Manners,
    Pace,
    WriteTime,
    disk_of,
    set_io_class,
    write_time,
)
from beamkeeper.engine.minding import MindLoop
from beamkeeper.engine.sending import Sender
from beamkeeper.plugins.api import Stop, TransferItem, TransferResult
from beamkeeper.testing.beamline import STATION, Beamline
from beamkeeper.testing.conformance import LocalPlace, Sources
from beamkeeper.testing.intakes import Watched

IOPRIO_GET = {"x86_64": 252, "aarch64": 31, "riscv64": 31, "ppc64le": 274, "s390x": 283}
NONE, BEST_EFFORT, IDLE = 0, 2, 3
DISK = os.makedev(8, 0)


@dataclass
class Clock:
    """Time that passes when somebody rests."""

    at: float = 0.0
    day: datetime = datetime(2026, 3, 2, 7, 59, tzinfo=UTC)
    rests: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.at

    def now(self) -> datetime:
        return self.day + timedelta(seconds=self.at)

    def rest(self, seconds: float) -> None:
        self.rests.append(seconds)
        self.at += seconds


def never() -> bool:
    return False


# The I/O class.


def io_class() -> int:
    number = IOPRIO_GET.get(os.uname().machine)
    if number is None:
        pytest.skip("the number of ioprio_get is not known on this machine")
    return int(ctypes.CDLL(None, use_errno=True).syscall(number, 1, 0)) >> 13


def in_thread(look: Callable[[], object]) -> object:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(look()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize(("asked", "found"), [("idle", IDLE), ("best-effort", BEST_EFFORT)])
def test_a_thread_and_those_that_it_starts_have_the_class(asked: str, found: int) -> None:
    before = io_class()

    def look() -> tuple[str, int, object]:
        return set_io_class(asked), io_class(), in_thread(io_class)

    assert in_thread(look) == ("", found, found)
    assert io_class() == before
    assert in_thread(lambda: (set_io_class("none"), io_class())) == ("", before)


def test_where_the_kernel_refuses_it_says_so_and_goes_on() -> None:
    def refuse(*_: int) -> int:
        ctypes.set_errno(errno.EPERM)
        return -1

    assert set_io_class("idle", call=refuse) == "the kernel refuses the I/O class idle: operation not permitted"
    assert set_io_class("idle", machine="vax") == "I/O classes are not known on vax"
    assert set_io_class("idle", is_64=False).startswith("I/O classes are not known on")


class Looking:
    """Copies, and remembers the I/O class of the threads that do."""

    def __init__(self) -> None:
        self.found: set[int] = set()
        self._copy = CopyTransfer(CopyOptions())

    def send(self, items: Sequence[TransferItem], staging: str, stop: Stop) -> Iterator[TransferResult]:
        def look(moved: int = 0, /) -> bool:
            self.found.add(io_class())
            return stop(moved)

        yield from self._copy.send(items, staging, look)

    def discard(self, staging: str) -> None:
        self._copy.discard(staging)


def area() -> StorageArea:
    now = datetime.now(UTC)
    return StorageArea(uid=new_uid(), name="hot", station_url="file:///x", path="/x", transfer="copy", created_at=now)


def be_idle() -> None:
    assert set_io_class("idle") == ""


def test_the_threads_that_copy_have_the_class(tmp_path: Path) -> None:
    looking, sources, place = Looking(), Sources(tmp_path / "source"), LocalPlace(tmp_path / "experiment")
    items = [sources.add(b"a", b"1"), sources.add(b"b", b"2")]
    sender = Sender(lambda name: looking, begin=be_idle)
    sender.send(area(), items, place.url("b1"), never)
    assert looking.found == {IDLE}
    assert io_class() != IDLE


def test_what_a_batch_reads_is_told_with_its_file_system(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    sources, place = Sources(tmp_path / "source"), LocalPlace(tmp_path / "experiment")
    item = sources.add(b"a", b"12345")
    sender = Sender(
        lambda name: CopyTransfer(CopyOptions()), hold=lambda moved, is_over, device: told.append((moved, device))
    )
    sender.send(area(), [item], place.url("b1"), never)
    assert told == [(5, os.stat(tmp_path).st_dev)]


# Limits by hour.


@pytest.mark.parametrize(
    ("text", "begins", "ends", "bytes_s"),
    [
        ("08:00-18:00 50MB", time(8), time(18), 50_000_000),
        ("22:30-06:00 1GB", time(22, 30), time(6), 10**9),
        ("00:00-24:00 1000", time(0), time(0), 1000),
        ("09:00-10:00  5kB", time(9), time(10), 5000),
    ],
)
def test_limits_are_read(text: str, begins: time, ends: time, bytes_s: int) -> None:
    assert Limit.of(text) == Limit(begins, ends, bytes_s)


@pytest.mark.parametrize(
    "text", ["", "8-18 50MB", "08:00-25:00 1", "08:00-24:30 1", "08:00-18:00 0", "08:00-18:00 fast"]
)
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"it should be|at least 1 byte"):
        Limit.of(text)


def test_the_lowest_limit_of_the_hour_holds_and_nights_go_through_midnight() -> None:
    limits = [Limit.of("08:00-18:00 50MB"), Limit.of("12:00-13:00 10MB"), Limit.of("22:00-06:00 5kB")]
    at = partial(allowed_at, limits)
    assert [at(time(7, 59)), at(time(8)), at(time(12, 30)), at(time(18))] == [None, 50 * 10**6, 10**7, None]
    assert [at(time(22)), at(time(0)), at(time(5, 59)), at(time(6))] == [5000, 5000, 5000, None]
    assert allowed_at([Limit.of("00:00-24:00 7")], time(23, 59, 59)) == 7


def limiter(clock: Clock, *limits: str) -> Limiter:
    return Limiter([Limit.of(text) for text in limits], now=clock.now, clock=clock, rest=clock.rest)


def test_bytes_pass_as_fast_as_the_hour_allows_and_no_faster() -> None:
    clock = Clock()
    of_day = limiter(clock, "08:00-18:00 1000")
    of_day.hold(50_000, never)
    assert clock.at == 0.0  # before eight
    clock.at = 60.0
    for _ in range(10):
        of_day.hold(500, never)
    assert clock.at == pytest.approx(65.0)
    clock.at = 1000.0  # what was not used meanwhile is not saved up
    of_day.hold(2000, never)
    assert clock.at == pytest.approx(1002.0)


def test_who_waits_goes_on_when_the_hour_of_the_limit_is_over_or_the_end_is_asked_for() -> None:
    clock = Clock(at=60.0)
    of_a_minute = limiter(clock, "08:00-08:01 1")
    of_a_minute.hold(10**9, never)
    assert clock.at == pytest.approx(120.0, abs=0.3)
    clock = Clock(at=60.0)
    limiter(clock, "08:00-18:00 1").hold(10**9, lambda: clock.at > 70)
    assert clock.at == pytest.approx(70.0, abs=0.3)


# Backing off.

TABLE = """\
   8       0 sda 100 0 800 50 2000 10 16000 9000 0 60 9050
   8       1 sda1 90 0 700 40 1999 10 15000 8000 0 50 8040
"""


def test_the_kernels_table_is_read(tmp_path: Path) -> None:
    (tmp_path / "diskstats").write_text(TABLE)
    table = str(tmp_path / "diskstats")
    assert write_time(os.makedev(8, 1), table) == WriteTime(1999, 8000)
    assert write_time(os.makedev(8, 2), table) is None
    assert write_time(os.makedev(8, 1), str(tmp_path / "none")) is None
    (tmp_path / "diskstats").write_text("   8       1 sda1 90\n")
    assert write_time(os.makedev(8, 1), table) is None


def test_a_directory_that_is_on_no_disk_has_none(tmp_path: Path) -> None:
    assert disk_of(b"/proc") is None
    assert disk_of(os.fsencode(tmp_path / "none")) is None
    if (disk := disk_of(os.fsencode(tmp_path))) is not None:
        assert write_time(disk) is not None


def looked(pace: Pace, ms: float, *, moved: int = 1, writes: int = 100) -> float:
    pace.look(WriteTime(1000, 5000), WriteTime(1000 + writes, 5000 + int(ms * writes)), moved)
    return pace.share


def test_copying_slows_down_when_writes_take_longer_and_comes_back() -> None:
    pace = Pace(rise=2.0)
    assert looked(pace, 10, moved=0) == 1.0  # so long they take without us
    assert looked(pace, 24) == 1.0
    assert looked(pace, 26) == 0.5
    assert looked(pace, 26) == LEAST_SHARE
    assert looked(pace, 26) == LEAST_SHARE
    assert looked(pace, 20) == pytest.approx(0.375)
    assert [looked(pace, 20) for _ in range(3)][-1] == 1.0
    assert looked(pace, 500, writes=3) == 1.0  # too few to tell


def test_a_disk_that_is_slow_by_itself_is_found_out_by_holding_still_for_a_moment() -> None:
    pace = Pace(rise=2.0)
    shares = [looked(pace, 80) for _ in range(PATIENCE)]
    assert shares[-1] == 0.0
    assert looked(pace, 60) == LEAST_SHARE  # it is not us
    assert pace.calm_ms == 60
    assert [looked(pace, 80) for _ in range(4)][-1] == 1.0


def manners(clock: Clock) -> Manners:
    return Manners(limiter(clock), rise=2.0, clock=clock, rest=clock.rest)


def test_a_thread_rests_as_long_as_its_share_asks_for() -> None:
    clock = Clock()
    kept = manners(clock)
    kept.look(DISK, WriteTime(0, 0), WriteTime(100, 100_000))  # while nothing was copied
    kept.hold(1000, never, DISK)
    kept.look(DISK, WriteTime(0, 0), WriteTime(100, 300_000))
    assert kept.share(DISK) == 0.5
    clock.at += 3.0  # a piece takes so long
    kept.hold(1000, never, DISK)
    assert sum(clock.rests) == pytest.approx(2.0)  # and no longer than this
    clock.at += 0.1
    kept.hold(1000, never, DISK)
    assert sum(clock.rests) == pytest.approx(2.1)
    kept.hold(1000, never, os.makedev(8, 16))  # another disk
    kept.leave(DISK)
    clock.at += 1.0
    kept.hold(1000, never, DISK)
    assert sum(clock.rests) == pytest.approx(2.1)
    assert kept.share(DISK) == 1.0


def test_who_holds_still_for_a_moment_goes_on_by_itself() -> None:
    clock = Clock()

    def rest(seconds: float) -> None:
        clock.rest(seconds)
        if clock.at > 0.9:  # a look, a second later
            kept.look(DISK, WriteTime(0, 0), WriteTime(100, 6000))

    kept = Manners(limiter(clock), rise=2.0, clock=clock, rest=rest)
    kept.look(DISK, WriteTime(0, 0), WriteTime(100, 1000))
    for _ in range(PATIENCE):
        kept.hold(1, never, DISK)
        kept.look(DISK, WriteTime(0, 0), WriteTime(100, 8000))
    assert kept.share(DISK) == 0.0
    kept.hold(1, never, DISK)
    assert kept.share(DISK) == LEAST_SHARE
    assert sum(clock.rests) == pytest.approx(1.0)


def test_a_directory_is_known_to_be_written_while_files_in_it_change(tmp_path: Path) -> None:
    with Watched(tmp_path) as made:
        made.begun()
        assert made.intake.written is None
        (made.directory / "a").write_bytes(b"x")
        made.awaits(b"a", JournalState.READY)
        place = os.path.realpath(os.fsencode(made.directory))
        assert made.intake.written == (os.stat(place).st_dev, place)


def test_it_looks_only_while_something_writes_and_at_what_can_be_measured(tmp_path: Path) -> None:
    clock = Clock()
    kept, written = manners(clock), {DISK: b"det", 7: b"net"}
    beamline = Beamline(f"sqlite:///{tmp_path / 'journal.db'}", tmp_path / "storage")
    counts = iter([WriteTime(0, 0), WriteTime(100, 1000), WriteTime(200, 31_000)])
    loop = MindLoop(
        beamline.database,
        kept,
        STATION,
        written=written.items,
        is_minding=True,
        report=list[str]().append,
        measure=lambda disk: next(counts),
        find_disk=lambda path: DISK if path == b"det" else None,
    )
    loop.step()
    loop.step()
    kept.hold(1000, never, DISK)
    loop.step()
    assert (kept.share(DISK), kept.share(7)) == (0.5, 1.0)
    written.clear()
    loop.step()
    assert kept.share(DISK) == 1.0
    beamline.close()


def test_a_disk_that_we_write_to_ourselves_tells_nothing_of_the_writer(tmp_path: Path) -> None:
    """Our own syncs are the slow writes there: copying less would only have them come later."""
    clock = Clock()
    kept = manners(clock)
    beamline = Beamline(f"sqlite:///{tmp_path / 'journal.db'}", tmp_path / "storage")
    counts = iter([WriteTime(0, 0), WriteTime(100, 1000), WriteTime(200, 31_000)])
    loop = MindLoop(
        beamline.database,
        kept,
        STATION,
        written={DISK: b"det"}.items,
        is_minding=True,
        report=list[str]().append,
        measure=lambda disk: next(counts),
        find_disk=lambda path: DISK if path == b"det" or os.fsencode(tmp_path / "storage") in path else None,
    )
    for _ in range(2):
        loop.step()
    kept.hold(1000, never, DISK)
    loop.step()
    assert kept.share(DISK) == 1.0
    assert len(list(counts)) == 3
    beamline.close()


def test_limits_go_by_the_clock_of_the_station(tmp_path: Path) -> None:
    beamline = Beamline(f"sqlite:///{tmp_path / 'journal.db'}", tmp_path / "storage")
    kept = manners(Clock())
    loop = MindLoop(
        beamline.database, kept, STATION, written=dict[int, bytes]().items, is_minding=True, report=list[str]().append
    )
    loop.step()
    assert kept.limiter.now().tzinfo == ZoneInfo(beamline.station.timezone)
    beamline.close()
