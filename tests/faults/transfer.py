"""F24 to F42: what may go wrong between a finished file and its row in the catalogue."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import signal
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from beamkeeper.config.failpoints import FailPoint
from beamkeeper.domain.acquisition import JournalState
from beamkeeper.domain.inspections import InspectionState, NewAudit, NewScrub
from beamkeeper.domain.status import Service
from beamkeeper.testing.checker import Finding
from beamkeeper.testing.servers import ServerNotAvailableError, fresh_database, postgres
from beamkeeper.testing.station import until
from faults.kills import armed
from faults.lab import CannotInjectError, Trial, command
from faults.proxy import Proxy
from faults.registry import fault

FS_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2


@contextmanager
def storage_on(trial: Trial, *mount: str) -> Iterator[Path]:
    """Give a station whose storage is a file system of its own."""
    with trial.lab.other_station() as station:
        station.storage.mkdir(parents=True)
        command(["mount", *mount, str(station.storage)])
        try:
            yield station.storage
        finally:
            trial.lab.down()
            command(["umount", "--lazy", str(station.storage)])


@contextmanager
def stopped_at(trial: Trial, point: FailPoint, time_: int = 1) -> Iterator[None]:
    """Let the services stand still at a fail point while the block lasts."""
    pid = trial.lab.await_stop(point)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def begin_to_stop(trial: Trial, point: FailPoint, *names: bytes) -> None:
    """Start a DAQ, and write files so that the services stop at a fail point."""
    trial.begin()
    trial.lab.down()
    for name in names:
        trial.writer.renamed(name, random.Random(name).randbytes(30_000))
    trial.lab.launch(armed(point, "stop"))


def staged(trial: Trial) -> list[Path]:
    """Return the files in staging."""
    return [path for path in (trial.stored / ".dm" / "staging").rglob("*") if path.is_file()]


def shim(trial: Trial) -> None:
    """Make sure that the C library can be made to fail."""
    trial.lab.up()
    if not trial.shim.is_loaded(trial.lab.station.pid):
        raise CannotInjectError("there is no C compiler")


@fault("F24", "the storage runs full", needs_root=True, has_own_station=True)
def full(trial: Trial) -> list[Finding]:
    with storage_on(trial, "-t", "tmpfs", "-o", "size=2m", "tmpfs") as storage:
        trial.begin()
        filler = storage / "filler"
        filler.write_bytes(bytes(1_900_000))
        for i in range(4):
            trial.writer.renamed(b"%d.dat" % i, random.Random(i).randbytes(200_000))
        until(lambda: trial.daq.count(JournalState.READY, JournalState.STAGED) == 4, "all wait")
        time.sleep(1)
        assert not trial.daq.count(JournalState.AVAILABLE, JournalState.QUARANTINED)
        filler.unlink()
        trial.await_available(4)
        return trial.finish()


@fault("F25", "the storage has no inode left", needs_root=True, has_own_station=True)
def no_inodes(trial: Trial) -> list[Finding]:
    with storage_on(trial, "-t", "tmpfs", "-o", "size=20m,nr_inodes=60", "tmpfs") as storage:
        trial.begin()
        made: list[Path] = []
        with suppress(OSError):
            for i in range(60):
                (storage / f"filler_{i}").touch()
                made.append(storage / f"filler_{i}")
        assert len(made) < 60
        trial.writer.renamed(b"a.dat", b"a")
        until(lambda: trial.daq.count(JournalState.READY) == 1, "it waits")
        time.sleep(0.5)
        assert not trial.daq.count(JournalState.AVAILABLE, JournalState.QUARANTINED)
        for path in made:
            path.unlink()
        trial.await_available(1)
        return trial.finish()


@fault("F26", "a rename is refused for want of quota; the storage becomes read-only", needs_root=True)
def read_only(trial: Trial) -> list[Finding]:
    with storage_on(trial, "-t", "tmpfs", "-o", "size=20m", "tmpfs") as storage:
        trial.begin()
        if trial.shim.is_loaded(trial.lab.station.pid):
            trial.shim.fail_renames(1, errno.EDQUOT)
            trial.writer.renamed(b"quota.dat", b"quota")
            trial.await_available(1)
        command(["mount", "-o", "remount,ro", str(storage)])
        trial.writer.renamed(b"read-only.dat", b"read-only")
        until(lambda: trial.daq.count(JournalState.READY) == 1, "it waits")
        command(["mount", "-o", "remount,rw", str(storage)])
        until(lambda: trial.daq.count(JournalState.READY) == 0, "it went on")
        return trial.finish()


@fault("F27", "bytes cannot be made durable, and the next try says that they are", has_own_station=True)
def lying_sync(trial: Trial) -> list[Finding]:
    with trial.lab.other_station(settings="batch_files = 32\n"):
        shim(trial)
        trial.begin()
        available = 0
        for files in (1, 20):  # an fsync of the file, and a syncfs for many
            trial.lab.down()
            for i in range(files):
                trial.writer.renamed(b"%d/%d.dat" % (files, i), os.urandom(20_000))
            trial.shim.fail_syncs(1)
            trial.lab.up()
            available += files
            trial.await_available(available)
            assert trial.shim.left == 0, "no sync failed"
        assert trial.shim.refsyncs == 0, "a file was synced again after its sync had failed"
        return trial.finish()


@fault("F28", "writes write less than they were given, and are interrupted")
def short_writes(trial: Trial) -> None:
    shim(trial)
    trial.begin()
    trial.shim.write_short()
    for i in range(5):
        trial.writer.renamed(b"%d.dat" % i, os.urandom(1_000_000 + i))
    trial.await_available(5)


def _flip(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        byte = os.pread(descriptor, 1, 1000)
        os.pwrite(descriptor, bytes([byte[0] ^ 1]), 1000)
    finally:
        os.close(descriptor)


@fault("F29", "a bit flips in storage before it is read back")
def bit_flip(trial: Trial) -> None:
    begin_to_stop(trial, FailPoint.PUBLISH_SYNCED, b"a.dat", b"b.dat")
    with stopped_at(trial, FailPoint.PUBLISH_SYNCED):
        _flip(staged(trial)[0])
    trial.await_available(2)


@fault("F32", "the power is cut", needs_root=True, has_own_station=True)
def power_cut(trial: Trial) -> list[Finding]:
    image, points = trial.directory / "disk.img", list(FailPoint)[4:]
    point = points[trial.seed % len(points)]
    with image.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    command(["mkfs.ext4", "-q", "-F", str(image)])
    with storage_on(trial, "-o", "loop", str(image)) as storage:
        trial.begin()
        trial.writer.renamed(b"again.dat", b"first")
        trial.await_available(1)
        trial.lab.down()
        os.sync()
        for i in range(5):
            trial.writer.renamed(b"%d.dat" % i, os.urandom(10_000))
        trial.writer.renamed(b"again.dat", b"second")
        trial.lab.launch(armed(point, "stop"))
        until(lambda: trial.lab.is_standing_still or None, f"the stop at {point}")
        descriptor = os.open(storage, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        except OSError as error:
            raise CannotInjectError(f"FS_IOC_SHUTDOWN: {error.strerror}") from error
        finally:
            os.close(descriptor)
        trial.lab.down()
        command(["umount", str(storage)])
        _mount_anew(image, storage)
        trial.lab.up()
        return trial.settle()


def _mount_anew(image: Path, storage: Path) -> None:
    """Mount an image by a loop device of its own: `-o loop` would take the one that is there.

    Where another mount namespace still has the file system that was shut down, that one would come back, which answers
    with EIO to everything.
    """
    device = command(["losetup", "--find", "--show", str(image)]).strip()
    try:
        command(["mount", device, str(storage)])
    finally:
        command(["losetup", "--detach", device])  # as soon as nothing has it mounted any more


@fault("F33", "the answer to a COMMIT is lost", has_own_station=True)
def lost_commit(trial: Trial) -> list[Finding]:
    try:
        server = trial.enter(postgres())
    except ServerNotAvailableError as error:
        raise CannotInjectError(str(error)) from error
    with Proxy(server.port) as proxy:
        databases = {
            service: fresh_database(server).replace(f":{server.port}/", f":{proxy.port}/") for service in Service
        }
        with trial.lab.other_station(databases=databases):
            trial.begin()
            for i in range(2):
                proxy.swallow_commits = 1
                trial.writer.renamed(b"%d.dat" % i, os.urandom(1000))
                trial.await_available(i + 1)
                assert proxy.swallow_commits == 0, "no COMMIT went through"
            return trial.finish()


@fault("F34", "a worker is taken for dead, and works on", has_own_station=True)
def split_brain(trial: Trial) -> list[Finding]:
    with trial.lab.other_station() as station:
        trial.begin()
        trial.lab.down()
        for i in range(4):
            trial.writer.renamed(b"%d.dat" % i, os.urandom(20_000))
        trial.lab.launch_apart(f"{FailPoint.STAGED_WRITING}:sleep=4")
        until(lambda: len(staged(trial)) == 4, "the first worker's copies")
        with closing(sqlite3.connect(station.data / "acquisition.db", timeout=30)) as connection:
            connection.execute("update workers set boot_id = 'another boot'")
            connection.commit()
        client = trial.lab.second_acquisition()
        until(lambda: client.daqs.get(trial.daq_uid).count(JournalState.AVAILABLE) == 4, "the second worker")
        trial.lab.join()
        time.sleep(3)
        return trial.finish()


Change = Callable[[Path], None]


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _shrink(path: Path) -> None:
    os.truncate(path, 1000)


def _replace(path: Path) -> None:
    path.with_name("new.part").write_bytes(b"another inode" * 1000)
    path.with_name("new.part").rename(path)


def _rewrite(path: Path) -> None:
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@fault("F35", "a file grows, shrinks, is replaced or rewritten while it is copied")
def changes_while_copied(trial: Trial) -> None:
    change = (_grow, _shrink, _replace, _rewrite)[trial.seed % 4]
    begin_to_stop(trial, FailPoint.COPIED, b"a.dat")
    with stopped_at(trial, FailPoint.COPIED):
        change(trial.source / "a.dat")
        trial.writer.say("closed", b"a.dat", (trial.source / "a.dat").read_bytes())
    until(lambda: trial.daq.count(JournalState.AVAILABLE) == 1, "the newest state")


@fault("F36", "a file is deleted before it is taken, and while it is copied")
def deleted(trial: Trial) -> None:
    begin_to_stop(trial, FailPoint.CLAIMED, b"a.dat", b"b.dat")
    with stopped_at(trial, FailPoint.CLAIMED):
        trial.writer.removed(b"a.dat")
    until(lambda: trial.daq.count(JournalState.AVAILABLE, JournalState.VANISHED) == 2, "both")


@fault("F37", "a third of the storage is hidden while it is audited and read again", needs_root=True)
def mass_loss(trial: Trial) -> list[Finding]:
    trial.begin()
    for i in range(400):
        trial.writer.renamed(b"scan_%d/%03d.dat" % (i % 10, i), b"%d" % i)
    trial.await_available(400)
    before = trial.client.files.summary(trial.experiment.uid)
    hidden = [trial.stored / "data" / f"scan_{number}" for number in (1, 4, 7)]
    for directory in hidden:
        command(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)])
    try:
        for _ in range(2):  # two findings one after the other are what would count
            audit = trial.client.audits.wait(
                trial.client.audits.start(NewAudit(experiment_uid=trial.experiment.uid)).uid
            )
            assert (audit.state, audit.confirmed) == (InspectionState.STOPPED, 0), audit
        scrub = NewScrub(experiment_uid=trial.experiment.uid, older_than_s=0)
        read = trial.client.scrubs.wait(trial.client.scrubs.start(scrub).uid)
        assert read.state is InspectionState.STOPPED, read
    finally:
        for directory in hidden:
            command(["umount", "--lazy", str(directory)])
    # What was read as missing is suspect until it is read as right again.
    again = trial.client.scrubs.wait(trial.client.scrubs.start(scrub).uid)
    assert (again.state, again.bad) == (InspectionState.DONE, 0), again
    assert trial.client.files.summary(trial.experiment.uid) == before
    return trial.finish()


@fault("F38", "the storage hangs", has_own_station=True)
def storage_hangs(trial: Trial) -> list[Finding]:
    with trial.lab.other_station():
        trial.begin()
        trial.lab.down()
        storage = trial.lab.launch_split()
        trial.writer.renamed(b"before.dat", b"before")
        trial.await_available(1)
        os.kill(storage, signal.SIGSTOP)
        trial.writer.renamed(b"meanwhile.dat", b"meanwhile")
        time.sleep(2)
        os.kill(storage, signal.SIGCONT)
        trial.await_available(2)
        return trial.finish()


@fault("F39", "the network is cut, comes and goes, and is slow", has_own_station=True)
def network(trial: Trial) -> list[Finding]:
    with trial.lab.other_station() as station, Proxy(station.port(Service.STORAGE)) as proxy:
        trial.begin()
        trial.lab.down()
        trial.lab.launch_split(storage_port=proxy.port)
        with trial.writing("rename", count=60, size=20_000, pause=0.03) as process:
            for _ in range(3):
                proxy.cut()
                time.sleep(0.3)
                proxy.mend()
                proxy.bytes_a_second = 32_000
                time.sleep(0.5)
            proxy.mend()
            process.wait(timeout=30)
        trial.await_available(60)
        return trial.finish()


@fault("F40", "the transport says that all is well, and has truncated a file")
def lying_transport(trial: Trial) -> None:
    begin_to_stop(trial, FailPoint.STAGED_WRITING, b"a.dat", b"b.dat")
    with stopped_at(trial, FailPoint.STAGED_WRITING):
        os.truncate(staged(trial)[0], 20_000)
    trial.await_available(2)


@fault("F41", "files are sparse, empty and large")
def sparse(trial: Trial) -> None:
    size = (200 * 1024 * 1024, 8 * 1024**3 + 1)[trial.seed % 2]
    trial.begin()
    trial.writer.renamed(b"empty.dat", b"")
    with (trial.source / "sparse.dat.part").open("wb") as file:
        for offset in (0, size // 2, size - len(b"an island")):
            file.seek(offset)
            file.write(b"an island")
    (trial.source / "sparse.dat.part").rename(trial.source / "sparse.dat")
    trial.await_available(2, timeout_s=300)
    assert (trial.stored / "data" / "sparse.dat").stat().st_size == size
    assert (trial.stored / "data" / "sparse.dat").stat().st_blocks * 512 < 10 * 1024 * 1024


@fault("F42", "the name is taken in storage, by the same bytes and by others")
def name_taken(trial: Trial) -> None:
    trial.begin()
    data = trial.stored / "data"
    data.mkdir(exist_ok=True)
    for name in ("same.dat", "other.dat"):
        (data / name).write_bytes(b"the same")
    trial.foreign.add(b"data/other.dat")
    trial.writer.renamed(b"same.dat", b"the same")
    trial.writer.renamed(b"other.dat", b"other bytes")
    trial.await_state("other.dat", "quarantined conflict")
    trial.await_available(1)
    assert (data / "other.dat").read_bytes() == b"the same"
