"""Wipes on a whole station: what is proven is deleted, just that, and one entry that is not proven forbids it all."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from beamkeeper.client import Client
from beamkeeper.config.failpoints import VARIABLE, WipePoint
from beamkeeper.domain.acquisition import Acquisition, JournalState, NewDaq, State
from beamkeeper.domain.errors import ConflictError, InvalidError, NotPermittedError, SourceError
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import FileQuery, ReplicaState
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewUser, Role
from beamkeeper.domain.wipes import EntryState, NewHold, NewWipe, Reason, Wipe, WipeState
from beamkeeper.testing.servers import PostgresServer, fresh_database
from beamkeeper.testing.station import Station, experiment, popen, station, until
from beamkeeper.testing.stored import writable

J = JournalState
PASSWORD = "correct horse"
FS_IOC_SETFLAGS, FS_IMMUTABLE_FL = 0x40086602, 0x10
SETTINGS = "[wipe]\nmin_age_hours = 0\npatience_s = 1.0\nmax_files = 1000\n"


@dataclass
class Scene:
    """An experiment with a detector's directory."""

    made: Station
    client: Client
    of: Experiment
    source: Path

    @property
    def root(self) -> Path:
        return self.made.storage / self.of.directory

    def write(self, *names: str, content: bytes = b"frame") -> list[Path]:
        written = []
        for name in names:
            path = self.source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content + name.encode())
            written.append(path)
        return written

    def start(self, directory: Path | None = None, **options: object) -> Acquisition:
        fields = {"experiment_uid": self.of.uid, **at(directory or self.source), **options}
        return self.client.daqs.start(NewDaq.model_validate(fields))

    def take(self, directory: Path | None = None, **options: object) -> Acquisition:
        """Deliver everything that is there, and end."""
        daq = self.start(directory, **options)
        self.client.daqs.stop(daq.uid)
        return self.client.daqs.wait(daq.uid, timeout_s=60)

    def plan(self, directory: Path | None = None, *, min_age_hours: float | None = None) -> Wipe:
        new = NewWipe.model_validate({**at(directory or self.source), "min_age_hours": min_age_hours})
        return self.client.wipes.wait(self.client.wipes.plan(new).uid)

    def run(self, plan: Wipe, *, remove_directories: bool = False) -> Wipe:
        asked = self.client.wipes.run(plan, remove_directories=remove_directories)
        return self.client.wipes.wait(asked.uid)

    def reasons(self, plan: Wipe) -> dict[str, str]:
        """Return why each entry is not proven, by its path below the directory."""
        found = self.client.wipes.entries(plan.uid, EntryState.NOT_PROVEN)
        top = os.fsencode(self.source)[1:]
        return {os.fsdecode(os.path.relpath(b"/" + e.relpath, b"/" + top)): e.reason for e in found}

    def stored(self, name: str) -> Path:
        return self.root / "data" / name


def at(directory: Path) -> dict[str, str | None]:
    return {"path_b64": path_fields(os.fsencode(directory)[1:])["path_b64"]}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Station, Client]]:
    with station(tmp_path_factory.mktemp("station"), settings=SETTINGS) as made:
        yield made, made.start()


@pytest.fixture
def scene(running: tuple[Station, Client], tmp_path: Path) -> Scene:
    source = tmp_path / "detector"
    source.mkdir()
    of = experiment(running[1], f"e{uuid4().hex[:12]}")
    return Scene(*running, of, source)


def is_safe(plan: Wipe) -> bool:
    assert plan.state is WipeState.PLANNED, plan
    return bool(plan.is_safe)


def test_what_was_delivered_is_safe_to_wipe_and_is_wiped_exactly(scene: Scene) -> None:
    scene.write("a.tif", "scan/b.tif", "scan/deep/c.tif")
    os.symlink("a.tif", scene.source / "link")
    (outside := scene.source.parent / "outside").mkdir()
    (outside / "other.tif").write_bytes(b"not in the directory")
    assert scene.take().state is State.DONE
    plan = scene.plan()
    assert is_safe(plan), scene.reasons(plan)
    assert (plan.proven_files, plan.not_proven, plan.not_seen_open, plan.directories) == (4, (), 0, 3)
    done = scene.run(plan)
    assert (done.state, done.deleted_files, done.deleted_bytes, done.kept) == (WipeState.DONE, 4, plan.proven_bytes, ())
    assert sorted(path.name for path in scene.source.rglob("*")) == ["deep", "scan"]
    assert (outside / "other.tif").exists()
    entries = list(scene.client.wipes.entries(plan.uid))
    assert {entry.state for entry in entries} == {EntryState.DELETED}
    for entry in entries:
        assert entry.by
        assert entry.at is not None
        assert entry.deleted_at is not None
        assert entry.at <= entry.deleted_at
        assert entry.version_uid is not None
        assert entry.replica_uid is not None
        assert entry.identity is not None
    for name in ("a.tif", "scan/b.tif", "scan/deep/c.tif"):
        assert scene.stored(name).read_bytes() == b"frame" + name.encode()
    summary = scene.client.files.summary(scene.of.uid)
    assert (summary.files, summary.deleted) == (4, 0)


def test_one_file_that_nobody_has_seen_forbids_it(scene: Scene) -> None:
    scene.write("a.tif", "scan/b.tif")
    scene.take()
    scene.write("scan/new.tif")
    plan = scene.plan()
    assert not is_safe(plan)
    assert scene.reasons(plan) == {"scan/new.tif": Reason.NEVER_SEEN}
    assert [(t.reason, t.files, t.bytes) for t in plan.not_proven] == [("never-seen", 1, 17)]
    assert plan.proven_files == 2
    with pytest.raises(ConflictError, match="not safe"):
        scene.client.wipes.run(plan)


def test_what_was_not_taken_forbids_it_with_the_reason(scene: Scene) -> None:
    scene.write("kept.tif", ".hidden", "not.log", "half.h5.tmp", "not.dat")
    os.mkfifo(scene.source / "fifo")
    scene.take(with_hidden=False, exclude=["*.log"], include=["*.tif", "*.log", "*.tmp", ".hidden"])
    plan = scene.plan()
    assert not is_safe(plan)
    assert scene.reasons(plan) == {
        ".hidden": "hidden",
        "not.log": "excluded",
        "half.h5.tmp": "temporary-name",
        "not.dat": "not-included",
        "fifo": Reason.SPECIAL,
    }


def test_a_file_that_grows_or_is_on_its_way_forbids_it(scene: Scene) -> None:
    scene.write("done.tif")
    with (scene.source / "open.dat").open("wb", buffering=0) as writer:
        writer.write(b"1")
        daq = scene.start()
        until(lambda: scene.client.daqs.get(daq.uid).count(J.GROWING) == 1, "growth")
        until(lambda: scene.client.daqs.get(daq.uid).count(J.AVAILABLE) == 1, "the other")
        plan = scene.plan()
        assert not is_safe(plan)
        assert scene.reasons(plan) == {"open.dat": Reason.GROWING}
    scene.client.daqs.stop(daq.uid)
    assert scene.client.daqs.wait(daq.uid, timeout_s=60).state is State.DONE
    assert is_safe(scene.plan())
    scene.write("later/waits.tif")
    waiting = scene.start(scene.source / "later", quiet_s=600)
    until(lambda: scene.client.daqs.get(waiting.uid).count(J.CANDIDATE) == 1, "the candidate")
    assert scene.reasons(scene.plan()) == {"later/waits.tif": Reason.ON_ITS_WAY}
    scene.client.daqs.stop(waiting.uid, now=True)


def test_a_quarantined_file_forbids_it(scene: Scene) -> None:
    scene.stored("a.tif").write_bytes(b"somebody's")
    scene.write("a.tif")
    assert scene.take().state is State.FAILED
    assert scene.reasons(scene.plan()) == {"a.tif": Reason.QUARANTINED}


def test_a_file_that_is_newer_than_the_stored_version_forbids_it(scene: Scene) -> None:
    (path,) = scene.write("a.tif")
    scene.take()
    before = path.stat()
    path.write_bytes(b"g" + path.read_bytes()[1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    plan = scene.plan()
    assert not is_safe(plan)
    assert scene.reasons(plan) == {"a.tif": Reason.CHANGED}


def test_another_inode_with_the_same_bytes_is_read_again_and_proven(scene: Scene) -> None:
    (path,) = scene.write("a.tif")
    scene.take()
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    plan = scene.plan()
    assert is_safe(plan), scene.reasons(plan)
    assert scene.run(plan).deleted_files == 1


def test_a_link_is_proven_by_its_target(scene: Scene) -> None:
    link = scene.source / "link"
    link.symlink_to("one")
    scene.take()
    assert is_safe(scene.plan())
    link.unlink()
    link.symlink_to("two")
    assert scene.reasons(scene.plan()) == {"link": Reason.CHANGED}
    link.unlink()
    link.write_bytes(b"a file now")
    assert scene.reasons(scene.plan()) == {"link": Reason.CHANGED}


def test_a_young_file_forbids_it(scene: Scene) -> None:
    scene.write("a.tif")
    scene.take()
    plan = scene.plan(min_age_hours=24)
    assert not is_safe(plan)
    assert (scene.reasons(plan), plan.min_age_hours) == ({"a.tif": Reason.TOO_YOUNG}, 24)
    os.utime(scene.source / "a.tif", (1, 1))  # an old time alone makes nothing old
    assert scene.reasons(scene.plan(min_age_hours=24)) == {"a.tif": Reason.TOO_YOUNG}
    assert is_safe(scene.plan(min_age_hours=0))


def test_a_snapshot_is_hashed_again_even_where_nothing_seems_to_have_changed(scene: Scene) -> None:
    """A TIFF file whose writer died before its end: what is written through a map need not change a file's times."""
    scene.write("left.tif", content=b"II*\0\xff\xff\xff\0")
    scene.take(quiet_s=0.1)
    (file,) = scene.client.files.find(FileQuery(experiment_uid=scene.of.uid))
    assert file.is_snapshot
    plan = scene.plan()
    assert is_safe(plan), scene.reasons(plan)
    with closing(sqlite3.connect(scene.made.data / "catalog.db", timeout=30)) as catalogue:
        versions = "select id from versions where uid in (?, ?)"
        named = (str(file.version_uid), file.version_uid.hex)
        catalogue.execute(f"update checksums set value = ? where version_id in ({versions})", ("0" * 64, *named))  # noqa: S608
        catalogue.commit()
    assert scene.reasons(scene.plan()) == {"left.tif": Reason.CHANGED}


def test_what_cannot_be_read_any_more_forbids_it(tmp_path: Path) -> None:
    wrap: list[str] = []
    if os.geteuid() == 0:  # whom nothing is forbidden otherwise
        wrap = ["setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"]
    (source := tmp_path / "detector").mkdir()
    with station(tmp_path, settings=SETTINGS, spawn=partial(popen, wrap=wrap)) as made:
        client = made.start()
        scene = Scene(made, client, experiment(client), source)
        a, b, c, _ = scene.write("a.tif", "closed/b.tif", "shut/c.tif", "good.tif")
        scene.take()
        assert is_safe(scene.plan())
        barred = {a: 0, b.parent: 0, c.parent: 0o600}  # one may list the last, and not look at what is in it
        for path, mode in barred.items():
            path.chmod(mode)
        plan = scene.plan()
        reasons = scene.reasons(plan)
        for path in barred:
            path.chmod(0o700)
        assert not is_safe(plan)
        assert reasons == dict.fromkeys(("a.tif", "closed", "shut/c.tif"), Reason.UNREADABLE)
        assert plan.proven_files == 1


@pytest.mark.parametrize("mode", ["rb", "r+b"])
def test_a_file_that_is_held_open_forbids_it(scene: Scene, mode: str) -> None:
    (path,) = scene.write("a.tif")
    scene.take()
    with path.open(mode):
        plan = scene.plan()
        assert not is_safe(plan)
        assert scene.reasons(plan) == {"a.tif": Reason.OPEN}
    assert is_safe(scene.plan())


def test_a_hold_forbids_it_until_it_is_removed(scene: Scene) -> None:
    scene.write("a.tif", "scan/b.tif", "scan2/c.tif")
    scene.take()
    (scene.source.parent / "alias").symlink_to(scene.source / "scan")
    hold = scene.client.holds.add(NewHold.model_validate({**at(scene.source.parent / "alias"), "why": "mine"}))
    plan = scene.plan()
    assert not is_safe(plan)
    assert scene.reasons(plan) == {"scan/b.tif": Reason.HELD}
    above = scene.client.holds.add(NewHold.model_validate(at(scene.source.parent)))
    assert set(scene.reasons(scene.plan()).values()) == {Reason.HELD}
    for one in (hold, above):
        scene.client.holds.remove(one.uid)
    assert is_safe(scene.plan())


def test_a_copy_that_is_gone_or_has_another_size_forbids_it(scene: Scene) -> None:
    scene.write("a.tif", "b.tif", "c.tif")
    scene.take()
    scene.stored("a.tif").unlink()
    os.truncate(writable(scene.stored("b.tif")), 3)
    plan = scene.plan()
    assert not is_safe(plan)
    assert scene.reasons(plan) == {"a.tif": Reason.NOT_IN_STORAGE, "b.tif": Reason.NOT_IN_STORAGE}


def test_a_copy_that_was_read_long_ago_is_read_again_and_the_ledger_says_so(tmp_path: Path) -> None:
    with station(tmp_path, settings=SETTINGS + "within_days = 0.00001\n") as made:
        client = made.start()
        (source := tmp_path / "detector").mkdir()
        scene = Scene(made, client, experiment(client), source)
        scene.write("a.tif", "b.tif")
        scene.take()
        time.sleep(1)
        plan = scene.plan()
        assert is_safe(plan), scene.reasons(plan)
        (a, b) = client.files.find(FileQuery(experiment_uid=scene.of.uid))
        assert [row.is_match for row in client.files.history(a.uid).ledger] == [True, True]
        stored = scene.stored("b.tif")
        content = stored.read_bytes()
        writable(stored).write_bytes(content[:-1] + b"!")
        time.sleep(1)
        plan = scene.plan()
        assert not is_safe(plan)
        assert scene.reasons(plan) == {"b.tif": Reason.NOT_IN_STORAGE}
        assert client.files.history(b.uid).replicas[0].state is ReplicaState.SUSPECT
        stored.write_bytes(content)
        assert scene.reasons(scene.plan()) == {"b.tif": Reason.SUSPECT}


def test_a_copy_that_can_only_be_read_from_a_cache_forbids_it(tmp_path: Path) -> None:
    memory = Path("/dev/shm")  # noqa: S108 - a file system in memory
    memory = memory / f"beamkeeper-{os.getpid()}-{tmp_path.name}"
    try:
        with station(tmp_path, settings=SETTINGS) as made:
            toml = made.data / "beamkeeper.toml"
            toml.write_text(toml.read_text().replace("[storage]", f'[storage]\narea_path = "{memory}"'))
            client = made.start()
            (source := tmp_path / "detector").mkdir()
            scene = Scene(made, client, experiment(client), source)
            scene.write("a.tif")
            scene.take()
            assert scene.reasons(scene.plan()) == {"a.tif": Reason.NOT_FROM_DEVICE}
    finally:
        shutil.rmtree(memory, ignore_errors=True)


def test_a_file_that_is_deleted_from_the_catalogue_forbids_it(scene: Scene) -> None:
    scene.write("a.tif", "b.tif")
    scene.take()
    query = FileQuery(experiment_uid=scene.of.uid, glob="data/a.tif")
    scene.client.files.delete(query, 1)
    assert scene.reasons(scene.plan()) == {"a.tif": Reason.DELETED}


def test_a_file_of_another_source_proves_nothing(scene: Scene) -> None:
    for name in ("one", "two"):
        scene.write(f"{name}/same.tif", content=b"")
        (scene.source / name / "same.tif").write_bytes(b"the same bytes")
        scene.take(scene.source / name)
    assert is_safe(scene.plan(scene.source / "one"))
    plan = scene.plan(scene.source / "two")
    assert not is_safe(plan)
    assert set(scene.reasons(plan).values()) == {Reason.OTHER_SOURCE}


def test_another_mount_below_forbids_it(scene: Scene, mounted: Callable[[Path], None]) -> None:
    scene.write("a.tif")
    scene.take()
    (scene.source / "mount").mkdir()
    mounted(scene.source / "mount")
    plan = scene.plan()
    assert not is_safe(plan)
    assert scene.reasons(plan) == {"mount": Reason.OTHER_DEVICE}


def test_an_empty_directory_is_no_yes(scene: Scene) -> None:
    plan = scene.plan()
    assert not is_safe(plan)
    assert "no file in it" in plan.message


def test_the_complete_list_comes_by_pages(scene: Scene) -> None:
    scene.write(*(f"scan/{i:04}.tif" for i in range(1100)))
    plan = scene.plan()
    assert (plan.not_proven_files, len(scene.reasons(plan))) == (1100, 1100)
    assert len(list(scene.client.wipes.entries(plan.uid, EntryState.PROVEN))) == 0


def test_more_files_than_a_run_may_delete_are_refused(scene: Scene) -> None:
    scene.write(*(f"scan/{i:04}.tif" for i in range(1001)))
    scene.take()
    plan = scene.plan()
    assert is_safe(plan)
    with pytest.raises(ConflictError, match="at most 1000"):
        scene.client.wipes.run(plan)
    assert len(list(scene.source.rglob("*.tif"))) == 1001


def test_a_plan_says_what_it_was_agreed_to(scene: Scene) -> None:
    scene.write("a.tif")
    scene.take()
    plan = scene.plan()
    with pytest.raises(ConflictError, match="look at it again"):
        scene.client.wipes.run(plan.model_copy(update={"proven_files": 2}))
    done = scene.run(plan)
    assert scene.client.wipes.run(plan) == done


def test_what_appears_between_plan_and_run_keeps_everything(scene: Scene) -> None:
    scene.write("a.tif", "b.tif")
    scene.take()
    plan = scene.plan()
    scene.write("late.tif")
    scene.take()  # it is delivered, and proven: only the plan does not have it
    refused = scene.run(plan)
    assert (refused.state, refused.deleted_files) == (WipeState.REFUSED, 0)
    assert "not safe any more" in refused.message
    assert scene.reasons(refused) == {"late.tif": Reason.NOT_IN_PLAN}
    assert len(list(scene.source.iterdir())) == 3


def test_what_is_replaced_between_plan_and_run_keeps_everything(scene: Scene) -> None:
    a, b = scene.write("a.tif", "b.tif")
    scene.take()
    plan = scene.plan()
    (scene.source / "new").write_bytes(b"other bytes")
    (scene.source / "new").rename(a)
    refused = scene.run(plan)
    assert (refused.state, refused.deleted_files) == (WipeState.REFUSED, 0)
    assert scene.reasons(refused) == {"a.tif": Reason.CHANGED}
    assert a.read_bytes() == b"other bytes"
    assert b.exists()


@contextmanager
def immutable(directory: Path) -> Iterator[None]:
    """Let nobody delete anything in a directory: root too."""
    descriptor = os.open(directory, os.O_RDONLY)

    def set_flags(flags: int) -> None:
        if os.geteuid() == 0:
            fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("l", flags))
        else:
            directory.chmod(0o755 if flags == 0 else 0o555)

    try:
        set_flags(FS_IMMUTABLE_FL)
        yield
    finally:
        set_flags(0)
        os.close(descriptor)


def test_what_we_may_not_delete_is_listed_for_its_owner(scene: Scene) -> None:
    scene.write("ours/a.tif", "theirs/b.tif", "theirs/line\nbreak.tif")
    scene.take()
    plan = scene.plan()
    with immutable(scene.source / "theirs"):
        done = scene.run(plan)
    assert (done.state, done.deleted_files, done.kept_files) == (WipeState.DONE, 1, 2)
    assert [tally.reason for tally in done.kept] == [Reason.NOT_PERMITTED]
    listed = Path(done.list_file)
    assert listed.parent == scene.made.data / "wipes"
    assert listed.stat().st_mode & 0o777 == 0o600
    names = listed.read_bytes().split(b"\0")
    assert sorted(names) == sorted([b"", *(os.fsencode(p) for p in (scene.source / "theirs").iterdir())])
    assert not (scene.source / "ours" / "a.tif").exists()


def test_empty_directories_go_where_asked_and_a_watched_one_stays(scene: Scene) -> None:
    scene.write("watched/deep/a.tif", "scan/deep/b.tif", "scan/other/c.tif")
    (scene.source / "was-empty").mkdir()
    scene.take()
    daq = scene.start(scene.source / "watched")
    until(lambda: scene.client.daqs.get(daq.uid).state is State.RUNNING, "the DAQ")
    until(lambda: scene.client.daqs.get(daq.uid).tallies, "its files")
    until(lambda: is_safe(scene.plan()), "all to be delivered")
    done = scene.run(scene.plan(), remove_directories=True)
    assert (done.state, done.deleted_files, done.removed_directories) == (WipeState.DONE, 3, 4)
    assert sorted(os.path.relpath(p, scene.source) for p in scene.source.rglob("*")) == ["was-empty", "watched"]
    assert scene.client.daqs.get(daq.uid).state is State.RUNNING
    scene.client.daqs.stop(daq.uid)
    assert scene.client.daqs.wait(daq.uid, timeout_s=60).state is State.DONE


def test_the_watched_directory_itself_stays_and_is_watched_on(scene: Scene) -> None:
    scene.write("scan/a.tif")
    daq = scene.start()
    until(lambda: scene.client.daqs.get(daq.uid).count(J.AVAILABLE) == 1, "the file")
    done = scene.run(scene.plan(), remove_directories=True)
    assert (done.state, done.deleted_files, done.removed_directories) == (WipeState.DONE, 1, 1)
    assert list(scene.source.iterdir()) == []
    scene.write("scan/a.tif", content=b"after the wipe")
    until(lambda: scene.client.daqs.get(daq.uid).count(J.READY, J.STAGED, J.STORED, J.CANDIDATE) == 0, "no rest")
    scene.client.daqs.stop(daq.uid)
    assert scene.client.daqs.wait(daq.uid, timeout_s=60).state is State.DONE
    assert scene.stored("scan/a.tif").read_bytes() == b"after the wipescan/a.tif"
    (file,) = scene.client.files.find(FileQuery(experiment_uid=scene.of.uid))
    assert file.version == 2  # that its source went changed nothing in storage


def test_only_the_source_is_wiped_and_only_by_managers(scene: Scene) -> None:
    for directory in (scene.made.storage, scene.root / "data", scene.made.data, scene.made.directory):
        with pytest.raises(InvalidError, match="only directories at the source"):
            scene.plan(directory)
    (link := scene.source / "link").symlink_to(scene.root / "data")
    with pytest.raises(InvalidError):
        scene.plan(link)
    with pytest.raises(SourceError):
        scene.plan(scene.source / "none")
    (scene.source / "file").write_bytes(b"")
    with pytest.raises(SourceError, match="is no directory"):
        scene.plan(scene.source / "file")
    scene.client.users.create(NewUser.model_validate({"username": f"pi{scene.of.number}", "password": PASSWORD}))
    scene.client.experiments.add_user(scene.of.uid, f"pi{scene.of.number}", Role.PI)
    with Client(scene.client.url, username=f"pi{scene.of.number}", password=PASSWORD, logins=scene.made.logins) as pi:
        pi.credentials.mirror = scene.client.credentials.mirror
        with pytest.raises(NotPermittedError):
            pi.wipes.plan(NewWipe.model_validate(at(scene.source)))
        hold = pi.holds.add(NewHold.model_validate(at(scene.source)))
        assert [one.uid for one in pi.holds.list()] == [hold.uid]
        pi.holds.remove(hold.uid)


def test_nothing_is_planned_while_the_storage_fails(scene: Scene) -> None:
    scene.write("a.tif")
    scene.take()
    away = scene.root.with_name("away")
    scene.root.rename(away)
    refused = scene.plan()
    away.rename(scene.root)
    assert (refused.state, refused.is_safe) == (WipeState.REFUSED, None)
    assert "cut off" in refused.message
    assert is_safe(scene.plan())


def test_nothing_is_deleted_when_the_storage_went_after_the_plan(scene: Scene) -> None:
    scene.write("a.tif", "b.tif")
    scene.take()
    plan = scene.plan()
    away = scene.root.with_name("gone")
    scene.root.rename(away)
    refused = scene.run(plan)
    away.rename(scene.root)
    assert (refused.state, refused.deleted_files) == (WipeState.REFUSED, 0)
    assert "cut off" in refused.message
    assert len(list(scene.source.iterdir())) == 2


def test_nothing_is_planned_while_cut_off_from_the_site(tmp_path: Path) -> None:
    with station(tmp_path, settings=SETTINGS + "heard_within_s = 6.0\n") as made:
        site = made.launch(Service.STORAGE)
        until((made.data / "first-session.json").exists, "the site")
        made.launch(Service.CATALOG, Service.ACQUISITION)
        client = made.client()
        (source := tmp_path / "detector").mkdir()
        scene = Scene(made, client, experiment(client), source)
        scene.write("a.tif")
        scene.take()
        assert is_safe(scene.plan())
        os.killpg(site.pid, signal.SIGSTOP)
        # It says nothing, and is not asked: that nothing was heard of it for so long is enough.
        until(lambda: (client.status(Service.ACQUISITION).mirror_behind_s or 0) > 6, "silence")
        refused = scene.plan()
        assert (refused.state, refused.is_safe) == (WipeState.REFUSED, None), refused
        assert "cut off: the site was not heard of" in refused.message
        os.killpg(site.pid, signal.SIGCONT)
        until(lambda: (client.status(Service.ACQUISITION).mirror_behind_s or 9) < 2, "news")
        os.killpg(site.pid, signal.SIGKILL)
        refused = scene.plan()
        assert (refused.state, refused.is_safe) == (WipeState.REFUSED, None), refused
        assert "cut off" in refused.message


def drop(path: Path, content: bytes) -> None:
    """Put other bytes in a file's place, as a detector does that writes the same name again."""
    (new := path.with_name(path.name + ".new")).write_bytes(content)
    new.rename(path)


@pytest.mark.parametrize(
    ("kind", "points"),
    [
        ("sqlite", [WipePoint.WIPE_DELETED]),
        pytest.param("sqlite", list(WipePoint), marks=pytest.mark.long),
        pytest.param("postgresql", [WipePoint.WIPE_DELETED], marks=pytest.mark.long),
    ],
    ids=["sqlite", "sqlite, each", "postgresql"],
)
def test_killed_at_any_point_a_run_goes_on_and_deletes_just_what_was_proven(
    kind: str, points: list[WipePoint], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    databases: dict[Service, str] = {}
    if kind == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        databases = {service: fresh_database(server) for service in Service}
    (source := tmp_path / "detector").mkdir()
    with station(tmp_path, databases, SETTINGS) as made:
        client = made.start()
        scene = Scene(made, client, experiment(client), source)
        for point in points:
            names = [f"{point}/{point}-{i:03}.tif" for i in range(250)]
            scene.write(*names)
            scene.take(source / point)
            plan = scene.plan(source / point)
            assert is_safe(plan)
            made.kill()
            scene.client = made.start({VARIABLE: f"{point}:kill"})
            scene.client.wipes.run(plan)
            until(partial(has_ended, made), "the kill")
            made.kill()
            scene.client = made.start()
            done = scene.client.wipes.wait(plan.uid)
            assert (done.state, done.deleted_files, done.kept) == (WipeState.DONE, 250, ()), (point, done)
            entries = list(scene.client.wipes.entries(plan.uid))
            assert len(entries) == 250
            assert all(entry.state is EntryState.DELETED and entry.by and entry.deleted_at for entry in entries)
            assert list((source / point).iterdir()) == []
            assert all(scene.stored(Path(name).name).exists() for name in names)


def has_ended(made: Station) -> bool:
    return made.processes[0].poll() is not None


def test_a_file_that_is_replaced_after_it_was_proven_is_kept(tmp_path: Path) -> None:
    """The last look is right before the unlink: what came between the proof and it is somebody's data."""
    (source := tmp_path / "detector").mkdir()
    with station(tmp_path, settings=SETTINGS) as made:
        client = made.start({VARIABLE: f"{WipePoint.WIPE_MARKED}:stop"})
        scene = Scene(made, client, experiment(client), source)
        replaced, rewritten, linked, opened, gone, other = scene.write("a", "b", "c", "d", "e", "f")
        scene.take()
        plan = scene.plan()
        client.wipes.run(plan)
        until(lambda: _is_stopped(made.pid), "the stop")
        drop(replaced, b"new bytes")
        rewritten.write_bytes(b"B" + rewritten.read_bytes()[1:])
        linked.unlink()
        linked.symlink_to(other)
        gone.unlink()
        with opened.open("rb"):
            os.killpg(made.pid, signal.SIGCONT)
            done = client.wipes.wait(plan.uid)
        assert (done.state, done.deleted_files) == (WipeState.DONE, 1)
        kept = {Path(os.fsdecode(e.relpath)).name: e.reason for e in client.wipes.entries(plan.uid, EntryState.KEPT)}
        changed = Reason.CHANGED
        assert kept == {"a": changed, "b": changed, "c": changed, "d": Reason.OPEN, "e": Reason.GONE}
        assert replaced.read_bytes() == b"new bytes"
        assert sorted(path.name for path in source.iterdir()) == ["a", "b", "c", "d"]


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"T", b"t")
