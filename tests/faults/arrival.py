"""F01 to F23: what may go wrong before a file is known to be finished."""

from __future__ import annotations

import os
import random
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from beamkeeper.config.failpoints import FailPoint
from beamkeeper.domain.acquisition import UNFINISHED, JournalState
from beamkeeper.domain.names import show_path
from beamkeeper.testing.checker import Finding
from beamkeeper.testing.station import popen, until
from beamkeeper.testing.truth import HOSTILE
from faults.lab import CannotInjectError, Trial, command, written
from faults.registry import fault

QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")


@contextmanager
def standing_still(trial: Trial) -> Iterator[None]:
    """Let the services stand still for a while."""
    pid = trial.lab.station.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def begin_with_short_queue(trial: Trial) -> None:
    """Start a DAQ whose watch has a queue of 64 changes; the kernel's own value is put back at once."""
    trial.lab.up()
    put_back = written(QUEUE, "64")
    try:
        trial.begin()
        until(lambda: trial.daq.started_at is not None, "the watch")
    finally:
        put_back()


@fault("F01", "the kernel's queue of changes runs over", needs_root=True)
def queue_overflow(trial: Trial) -> None:
    begin_with_short_queue(trial)
    with standing_still(trial):
        trial.write("rename", count=150, size=100)
    trial.await_available(150)


@fault("F02", "the queue runs over again while everything is scanned", needs_root=True)
def overflow_while_scanning(trial: Trial) -> None:
    begin_with_short_queue(trial)
    with trial.writing("rename", count=150, size=100) as process:
        while process.poll() is None:
            with standing_still(trial):
                time.sleep(0.1)
            time.sleep(0.05)
    trial.await_available(150)


@fault("F03", "the kernel's limit of watches is reached", has_own_station=True)
def watch_limit(trial: Trial) -> list[Finding]:
    enter = ("unshare", "--user", "--map-root-user")
    limit = "echo 3 > /proc/sys/user/max_inotify_watches"
    command([*enter, "sh", "-c", limit])
    spawn = partial(popen, wrap=[*enter, "sh", "-c", f'{limit}; exec "$@"', "sh"])
    with trial.lab.other_station(spawn=spawn):
        trial.begin()
        for i in range(30):
            trial.writer.plain(b"directory_%d/deep/frame.dat" % i, b"%d" % i)
        trial.await_available(30)
        return trial.finish()


@fault("F04", "directories and files in them are made faster than watches")
def new_directory_race(trial: Trial) -> None:
    trial.begin()
    for i in range(40):
        for name in (b"a", b"b"):
            trial.writer.plain(b"r%d/s/t/u/v/" % i + name, b"%d" % i, pieces=1)
    trial.await_available(80)


@fault("F05", "another host writes, and the kernel here says nothing", needs_root=True)
def remote_writer(trial: Trial) -> list[Finding]:
    lower, upper, work = (trial.directory / name for name in ("lower", "upper", "work"))
    for directory in (lower, upper, work):
        directory.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    command(["mount", "-t", "overlay", "overlay", "-o", options, str(trial.source)])
    try:
        trial.begin()
        until(lambda: trial.daq.started_at is not None, "the watch")
        for i in range(5):
            content = random.Random(i).randbytes(1000)
            trial.writer.say("closed", b"remote_%d.dat" % i, content)
            (upper / f"remote_{i}.dat").write_bytes(content)
        trial.await_available(5)
        return trial.finish()
    finally:
        command(["umount", "--lazy", str(trial.source)])


@fault("F06", "an inode is used again for another file of the same size")
def inode_reuse(trial: Trial) -> None:
    trial.begin()
    for i in range(5):
        path = trial.source / "same.dat"
        path.unlink(missing_ok=True)
        trial.writer.plain(b"same.dat", b"content %d" % i, pieces=1)
        until(lambda: digests(trial) == {b"same.dat"}, "the newest content")


def digests(trial: Trial) -> set[bytes]:
    """Return the paths whose newest version is what stands at the source."""
    found = set()
    for path in trial.source.iterdir():
        stored = trial.stored / "data" / path.name
        with suppress(FileNotFoundError):
            if stored.read_bytes() == path.read_bytes():
                found.add(os.fsencode(path.name))
    return found


@fault("F07", "the directory is unmounted while it is watched", needs_root=True)
def unmounted(trial: Trial) -> list[Finding]:
    disk = trial.directory / "disk"
    disk.mkdir()
    mount = ["mount", "--bind", str(disk), str(trial.source)]
    command(mount)
    try:
        trial.begin()
        trial.writer.plain(b"before.dat", b"before")
        trial.writer.plain(b"held/open.dat", b"not finished")
        trial.await_available(2)
        command(["umount", "--lazy", str(trial.source)])
        time.sleep(1)
        assert trial.daq.count(JournalState.AVAILABLE) == 2
        assert not trial.daq.count(JournalState.VANISHED)
        command(mount)
        trial.writer.plain(b"after.dat", b"after")
        trial.await_available(3)
        return trial.finish()
    finally:
        command(["umount", "--lazy", str(trial.source)])


FLAT, DIRECTORIES = 20_000, 2_000
MOST_BYTES = 150 * 1024 * 1024


@fault("F08", "a directory has twenty thousand files, and there are two thousand directories")
def many_files(trial: Trial) -> None:
    trial.lab.up()
    before = own_bytes(trial.lab.station.pid)
    (trial.source / "flat").mkdir()
    flat = os.open(trial.source / "flat", os.O_RDONLY | os.O_DIRECTORY)
    for i in range(FLAT):
        os.close(os.open(f"{i:06}.dat", os.O_WRONLY | os.O_CREAT, dir_fd=flat))
    os.close(flat)
    for i in range(DIRECTORIES):
        (trial.source / "many" / f"{i % 100:02}" / f"{i:05}").mkdir(parents=True)
    trial.begin(with_existing=False)
    until(lambda: trial.daq.count(JournalState.SKIPPED) == FLAT, "all to be listed as there before", 300)
    trial.writer.renamed(b"flat/new.dat", b"new")
    trial.writer.renamed(b"many/99/01999/new.dat", b"new too")
    trial.await_available(2, timeout_s=300)
    after = own_bytes(trial.lab.station.pid)
    assert after - before < MOST_BYTES, f"the services have grown from {before} to {after} bytes"


def own_bytes(pid: int) -> int:
    """Return how much memory a process has, and its part of what it shares with others."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


@fault("F09", "the thread that reads the changes dies")
def watch_dies(trial: Trial) -> None:
    trial.begin(f"{FailPoint.WATCH_READING}:3:raise")
    trial.write("plain", count=20, size=1000)
    trial.await_available(20)


@fault("F10", "a writer is killed in the middle of a file")
def writer_killed(trial: Trial) -> None:
    trial.begin()
    with trial.writing("slow", count=1, size=100_000, hold=30) as process:
        until(lambda: list(trial.source.rglob("*.dat")), "the beginning of the file")
        time.sleep(0.3)
        assert not trial.daq.count(JournalState.AVAILABLE)
        process.kill()
        process.wait()
    with trial.writing("hdf5", count=1, size=50_000, hold=30) as process:
        until(lambda: is_growing(trial, "hdf5_"), "growth")
        process.kill()
        process.wait()
    (left,) = trial.source.rglob("hdf5_*.dat")
    trial.await_state(str(left.relative_to(trial.source)), "available")
    (entry,) = (e for e in trial.client.daqs.entries(trial.daq_uid) if e.path and "hdf5_" in e.path)
    assert entry.is_snapshot, "what a killed writer left counts as whole"
    assert sum(tally.files for tally in trial.daq.tallies if tally.reason_code == UNFINISHED) == 1


def is_growing(trial: Trial, part: str) -> bool:
    """Whether a file with this in its path grows, as far as the journal knows."""
    return any(part in path and state.startswith("growing") for path, state in trial.states().items())


@fault("F11", "a writer stands still for longer than the quiet period")
def writer_stalls(trial: Trial) -> None:
    trial.begin()
    with trial.writing("slow", count=1, size=100_000, hold=0.5) as process:
        until(lambda: list(trial.source.rglob("*.dat")), "the beginning of the file")
        os.kill(process.pid, signal.SIGSTOP)
        until(lambda: trial.daq.count(JournalState.GROWING), "growth")
        time.sleep(0.5)
        assert trial.daq.count(JournalState.GROWING) == 1
        os.kill(process.pid, signal.SIGCONT)
        process.wait(timeout=30)
    trial.await_available(1)


@fault("F12", "two writers have a file open, and the first closes it")
def two_writers(trial: Trial) -> None:
    trial.begin()
    path = trial.source / "two.dat"
    with path.open("wb", buffering=0) as last:
        with path.open("ab", buffering=0) as first:
            first.write(b"first")
        until(lambda: trial.daq.count(JournalState.GROWING), "growth")
        last.seek(5)
        last.write(b" and last")
    trial.writer.say("closed", b"two.dat", b"first and last")
    trial.await_available(1)


@fault("F13", "an HDF5 file is written in SWMR mode")
def swmr(trial: Trial) -> None:
    import h5py

    trial.begin()
    path = trial.source / "swmr.h5"
    with h5py.File(path, "w", libver="latest") as file:
        data = file.create_dataset("data", shape=(0,), maxshape=(None,), chunks=(100,), dtype="i4")
        file.swmr_mode = True
        for i in range(10):
            data.resize((100 * (i + 1),))
            data[-100:] = i
            began = time.monotonic()
            data.flush()
            assert time.monotonic() - began < 2.0, "the writer was held up"
            time.sleep(0.05)
        until(lambda: trial.daq.count(JournalState.GROWING), "growth")
        assert not trial.daq.count(JournalState.AVAILABLE)
    trial.writer.say("closed", b"swmr.h5", path.read_bytes())
    trial.await_available(1)


@fault("F14", "the writer of an old HDF5 file is killed")
def old_hdf5(trial: Trial) -> None:
    trial.begin()
    trial.writer.hdf5(b"old.h5", b"x" * 5000, libver="earliest")
    (trial.source / "killed.h5").write_bytes((trial.source / "old.h5").read_bytes()[:-1000])
    trial.await_state("old.h5", "available")
    assert not trial.states().get("killed.h5", "").startswith("available")


@fault("F15", "a run is aborted: a master file links to data files that never come, or come late")
def aborted_run(trial: Trial) -> None:
    trial.begin()
    for name, count in ((b"whole", 2), (b"late", 3), (b"aborted", 4)):
        write_master(trial, name, count)
        for i in range(1, count + 1 if name == b"whole" else count):
            trial.writer.hdf5(b"%s_data_%06d.h5" % (name, i), b"frames %d" % i)
    trial.await_available(3 + 2 + 2 + 3)
    found = until(lambda: masters_when(trial, {"late_master.h5": 1, "aborted_master.h5": 1}), "what is missing")
    assert found["aborted_master.h5"] == (1, ("data/aborted_data_000004.h5",)), found
    trial.writer.hdf5(b"late_data_000003.h5", b"frames 3")
    until(lambda: masters_when(trial, {"aborted_master.h5": 1}), "the late one to be complete")


def write_master(trial: Trial, name: bytes, count: int) -> None:
    """Write a master file as Eiger detectors do: with links to as many data files, which need not be there."""
    import h5py

    path = name + b"_master.h5"
    trial.writer.say("opened", path)
    with h5py.File(trial.writer.at(path), "w", libver="latest") as file:
        group = file.create_group("entry/data")
        for i in range(1, count + 1):
            group[f"data_{i:06d}"] = h5py.ExternalLink(f"{name.decode()}_data_{i:06d}.h5", "/entry/data")
    trial.writer.say("closed", path, (trial.source / os.fsdecode(path)).read_bytes())


def masters_when(trial: Trial, missing: dict[str, int]) -> dict[str, tuple[int, tuple[str, ...]]] | None:
    """Return what the incomplete master files miss, once just these miss as much as this."""
    listed = list(trial.client.daqs.masters(trial.daq_uid, is_complete=False))
    found = {show_path(m.relpath).rpartition("/")[2]: (m.missing, tuple(m.first_missing)) for m in listed}
    return found if {name: count for name, (count, _) in found.items()} == missing else None


@fault("F16", "a stored file is appended to, rewritten in the same size, and given its old time back")
def changed_after(trial: Trial) -> None:
    trial.begin()
    for name in (b"log", b"same", b"time"):
        trial.writer.plain(name, b"first state")
    trial.await_available(3)
    before = (trial.source / "time").stat()
    trial.writer.appended(b"log", b" and more")
    trial.writer.plain(b"same", b"other state")
    trial.writer.plain(b"time", b"third state")
    os.utime(trial.source / "time", ns=(before.st_atime_ns, before.st_mtime_ns))


@fault("F17", "names are hostile")
def hostile_names(trial: Trial) -> None:
    trial.begin()
    trial.write("hostile", count=15, size=50)
    trial.await_available(15 + len(HOSTILE))


@fault("F18", "a name has 255 bytes; a path of more than 4096 is at least listed with its reason")
def long_paths(trial: Trial) -> None:
    trial.begin()
    trial.writer.plain(b"n" * 255, b"a long name")
    trial.writer.plain(b"/".join([b"d" * 200] * 15) + b"/deep.dat", b"deep")
    here = os.open(trial.source, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(21):
        with suppress(FileExistsError):
            os.mkdir(b"d" * 200, dir_fd=here)
        below = os.open(b"d" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    with open(os.open(b"deepest.dat", os.O_WRONLY | os.O_CREAT, dir_fd=here), "wb") as file:
        file.write(b"deeper than the kernel takes in one piece")
    os.close(here)
    trial.await_available(2)
    until(lambda: _is_listed_or_stored(trial), "the deepest file, or why it is not there")


def _is_listed_or_stored(trial: Trial) -> bool:
    return trial.daq.count(JournalState.AVAILABLE) == 3 or trial.daq.count(JournalState.QUARANTINED) > 0


@fault("F19", "names differ in case, or in how an accent is written")
def twins(trial: Trial) -> None:
    trial.begin()
    for name in ("Case", "case", "\u00e9", "e\u0301"):
        trial.writer.plain(name.encode(), name.encode())
    trial.await_available(4)


@fault("F20", "links lead out, in circles or nowhere; there are pipes, sockets and devices")
def special_files(trial: Trial) -> None:
    (trial.source / "out").symlink_to("/etc/passwd")
    (trial.source / "circle").symlink_to("circle")
    (trial.source / "nowhere").symlink_to("is/not/there")
    (trial.source / "directory").symlink_to("..")
    os.mkfifo(trial.source / "pipe")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(trial.source / "socket"))
    if os.geteuid() == 0:
        with suppress(PermissionError):
            os.mknod(trial.source / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    trial.begin()
    trial.writer.plain(b"file.dat", b"a plain file")
    trial.await_available(5)
    assert trial.states()["pipe"] == trial.states()["socket"] == "skipped special"


@fault("F21", "a file and a directory may not be read, and later they may", has_own_station=True)
def unreadable(trial: Trial) -> list[Finding]:
    wrap = []
    if os.geteuid() == 0:  # whom nothing is forbidden otherwise
        wrap = ["setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"]
        command([*wrap, "true"])
    with trial.lab.other_station(spawn=partial(popen, wrap=wrap)):
        trial.writer.plain(b"closed.dat", b"1")
        trial.writer.plain(b"below/b.dat", b"2")
        os.chmod(trial.source / "closed.dat", 0)
        os.chmod(trial.source / "below", 0)
        trial.begin()
        trial.await_state("closed.dat", "quarantined unreadable")
        trial.await_state("below", "quarantined unreadable")
        os.chmod(trial.source / "closed.dat", 0o600)
        os.chmod(trial.source / "below", 0o700)
        trial.await_available(2)
        return trial.finish()


@fault("F22", "the clock is wrong, and moves; files are from 1970 and from the future")
def clock(trial: Trial) -> None:
    trial.begin()
    if not trial.shim.is_loaded(trial.lab.station.pid):
        raise CannotInjectError("there is no C compiler")
    trial.is_clock_true = False
    for i, (moved, stamp) in enumerate(((3 * 3600, 0), (-2 * 3600, 4_000_000_000), (0, 1))):
        trial.shim.move_clock(moved)
        content = b"%d" % i
        trial.writer.say("closed", b"%d.dat" % i, content)
        (trial.source / f"{i}.new.part").write_bytes(content)
        os.utime(trial.source / f"{i}.new.part", (stamp, stamp))
        (trial.source / f"{i}.new.part").rename(trial.source / f"{i}.dat")
        time.sleep(0.3)
    trial.await_available(3)


@fault("F23", "an older file, with its old time, is moved over a name that is known")
def preserved_times(trial: Trial) -> None:
    trial.begin()
    trial.writer.plain(b"moved.dat", b"first")
    trial.writer.plain(b"copied.dat", b"first")
    trial.await_available(2)
    for name in ("moved.dat", "copied.dat"):
        old = trial.directory / name
        old.write_bytes(b"older")
        os.utime(old, (1_000_000_000, 1_000_000_000))
        trial.writer.say("closed", name.encode(), b"older")
    (trial.directory / "moved.dat").rename(trial.source / "moved.dat")
    subprocess.run(["cp", "-p", str(trial.directory / "copied.dat"), str(trial.source / "copied.dat")], check=True)
    until(lambda: digests(trial) >= {b"moved.dat"}, "the older content")
