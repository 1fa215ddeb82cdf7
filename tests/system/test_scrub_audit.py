"""Scrubs and audits on a whole station: what decayed is found and told of, and nothing is mended, moved or deleted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import NewDaq, State
from beamkeeper.domain.errors import NotPermittedError
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import FileHistory, FileQuery, ReadFrom, ReplicaState
from beamkeeper.domain.inspections import (
    Audit,
    Finding,
    FindingKind,
    InspectionState,
    NewAudit,
    NewScrub,
    Scrub,
)
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.users import NewUser, Role
from beamkeeper.testing.station import Station, experiment, station, until
from beamkeeper.testing.stored import writable

PASSWORD = "correct horse"
SETTINGS = "[wipe]\npatience_s = 1.0\n"


@dataclass
class Scene:
    """An experiment with what it has in the storage."""

    made: Station
    client: Client
    of: Experiment
    source: Path

    def write(self, *names: str, size: int = 100) -> None:
        for name in names:
            path = self.source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(size))

    def take(self, **options: object) -> None:
        fields = {"experiment_uid": self.of.uid, **path_fields(os.fsencode(self.source)[1:]), **options}
        daq = self.client.daqs.start(NewDaq.model_validate(fields))
        self.client.daqs.stop(daq.uid)
        assert self.client.daqs.wait(daq.uid, timeout_s=60).state is State.DONE

    def scrub(self, older_than_s: float = 0, **options: float) -> Scrub:
        new = NewScrub(experiment_uid=self.of.uid, older_than_s=older_than_s, **options)
        return self.client.scrubs.wait(self.client.scrubs.start(new).uid)

    def audit(self) -> Audit:
        return self.client.audits.wait(self.client.audits.start(NewAudit(experiment_uid=self.of.uid)).uid)

    def found(self, one: Scrub | Audit) -> dict[tuple[str | None, FindingKind], Finding]:
        of = self.client.scrubs if isinstance(one, Scrub) else self.client.audits
        return {(finding.path, finding.kind): finding for finding in of.findings(one.uid)}

    def stored(self, name: str) -> Path:
        return self.made.storage / self.of.directory / "data" / name

    def history(self, name: str) -> FileHistory:
        (file,) = self.client.files.lookup(self.of.uid, [b"data/" + os.fsencode(name)])
        return self.client.files.history(file.uid)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Station, Client]]:
    with station(tmp_path_factory.mktemp("station"), settings=SETTINGS) as made:
        yield made, made.start()


@pytest.fixture
def scene(running: tuple[Station, Client], tmp_path: Path) -> Scene:
    (source := tmp_path / "detector").mkdir()
    return Scene(*running, experiment(running[1], f"e{uuid4().hex[:12]}"), source)


def flip(path: Path) -> bytes:
    """Turn one bit over, as a failing disk does; returns what the file has now."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    writable(path).write_bytes(content)
    return bytes(content)


def test_a_flipped_bit_is_found_and_not_mended(scene: Scene) -> None:
    scene.write("a.tif", "scan/b.tif", "c.tif")
    os.symlink("a.tif", scene.source / "link")
    scene.take()
    flipped = flip(scene.stored("scan/b.tif"))
    done = scene.scrub()
    assert (done.state, done.files, done.matched, done.different) == (InspectionState.DONE, 4, 3, 1)
    ((key, finding),) = scene.found(done).items()
    assert key == ("data/scan/b.tif", FindingKind.DIFFERENT)
    assert finding.is_confirmed
    history = scene.history("scan/b.tif")
    assert (history.file.is_verified, history.replicas[0].state) == (False, ReplicaState.SUSPECT)
    assert [row.is_match for row in history.ledger] == [True, False, False]  # it is read a second time
    wrong = history.ledger[-1].checksum
    assert wrong is not None
    assert wrong.value != history.file.checksums[0].value
    assert "for " in history.ledger[-1].by
    assert scene.stored("scan/b.tif").read_bytes() == flipped
    good = scene.history("a.tif")
    assert (good.file.is_verified, [row.is_match for row in good.ledger]) == (True, [True, True])
    assert good.ledger[-1].read_from in (ReadFrom.DEVICE, ReadFrom.CACHE)  # the kernel has the last word


def test_a_copy_that_is_gone_or_short_is_suspect_until_it_is_right_again(scene: Scene) -> None:
    scene.write("gone.tif", "short.tif", "good.tif")
    scene.take()
    gone, short = scene.stored("gone.tif"), scene.stored("short.tif")
    kept = {path: path.read_bytes() for path in (gone, short)}
    gone.unlink()
    os.truncate(writable(short), 10)
    done = scene.scrub()
    assert (done.matched, done.different, done.missing, done.bad) == (1, 1, 1, 2)
    assert set(scene.found(done)) == {
        ("data/gone.tif", FindingKind.MISSING),
        ("data/short.tif", FindingKind.DIFFERENT),
    }
    row = scene.history("gone.tif").ledger[-1]
    assert (row.is_match, row.checksum, row.message) == (False, None, "it is not there")
    for path, content in kept.items():
        path.write_bytes(content)
    again = scene.scrub()
    assert (again.matched, again.bad) == (3, 0)
    assert scene.history("gone.tif").file.is_verified


def test_older_versions_are_read_too(scene: Scene) -> None:
    for _ in range(2):
        scene.write("a.tif")
        scene.take()
    flip(scene.made.storage / scene.of.directory / ".dm" / "versions" / "data" / "a.tif" / "1")
    done = scene.scrub()
    assert (done.files, done.matched, done.different) == (2, 1, 1)
    (finding,) = scene.found(done).values()
    assert (finding.path, finding.number) == ("data/a.tif", 1)
    assert scene.history("a.tif").file.is_verified


def test_what_was_read_lately_is_left_alone(scene: Scene) -> None:
    scene.write("a.tif", "b.tif")
    scene.take()
    assert scene.scrub(older_than_s=3600).files == 0
    time.sleep(0.01)
    assert scene.scrub(older_than_s=0).files == 2


def test_reading_keeps_to_the_rate_and_can_be_stopped(scene: Scene) -> None:
    scene.write("a.tif", "b.tif", size=500_000)
    scene.take()
    began = time.monotonic()
    assert scene.scrub(rate_bytes_s=1_000_000).files == 2
    assert time.monotonic() - began >= 1.0
    new = NewScrub(experiment_uid=scene.of.uid, older_than_s=0, rate_bytes_s=1)
    slow = scene.client.scrubs.start(new)
    until(lambda: scene.client.scrubs.get(slow.uid).files == 2, "both files")
    scene.client.scrubs.stop(slow.uid)
    stopped = scene.client.scrubs.wait(slow.uid)
    assert (stopped.state, stopped.message) == (InspectionState.STOPPED, "it was stopped")


def test_a_scrub_goes_on_after_a_kill(tmp_path: Path) -> None:
    (source := tmp_path / "detector").mkdir()
    with station(tmp_path, settings=SETTINGS) as made:
        client = made.start()
        scene = Scene(made, client, experiment(client), source)
        scene.write(*(f"{i:03}.tif" for i in range(300)), size=1000)
        scene.take()
        flip(scene.stored("299.tif"))
        # The first page of 200 files takes its 2 s: it is killed in that pause, after what it read is in the ledger.
        started = client.scrubs.start(NewScrub(older_than_s=0, rate_bytes_s=100_000))
        until(lambda: client.scrubs.get(started.uid).files, "some files")
        made.kill()
        scene.client = made.start()
        done = scene.client.scrubs.wait(started.uid)
        assert (done.state, done.different) == (InspectionState.DONE, 1), done
        assert done.files == 300
        files = scene.client.files.find(FileQuery(experiment_uid=scene.of.uid, limit=1000))
        assert [file.path for file in files if not file.is_verified] == ["data/299.tif"]


def test_a_scrub_that_finds_too_much_stops_by_itself(scene: Scene, mounted: Callable[[Path], None]) -> None:
    scene.write(*(f"scan/{i:03}.tif" for i in range(250)), size=10)
    scene.take()
    mounted(scene.stored("scan"))
    stopped = scene.scrub()
    assert stopped.state is InspectionState.STOPPED
    assert "mounted" in stopped.message


def test_an_audit_of_what_is_as_it_should_be_finds_nothing(scene: Scene) -> None:
    scene.write(*(f"scan_{i % 3}/{i:04}.tif" for i in range(1200)), size=10)
    os.symlink("nowhere", scene.source / "link")
    scene.take()
    (scene.made.storage / scene.of.directory / "analysis" / "theirs.txt").write_bytes(b"people's")
    done = scene.audit()
    assert (done.state, done.catalogued, done.listed) == (InspectionState.DONE, 1201, 1201)
    assert (done.dark, done.lost, done.confirmed, done.limit) == (0, 0, 0, 100)


def test_only_what_two_audits_find_is_confirmed(scene: Scene) -> None:
    scene.write("a.tif", "scan/b.tif", "c.tif")
    scene.take()
    scene.stored("scan/b.tif").unlink()
    scene.stored("dark.tif").write_bytes(b"nobody knows")
    os.mkfifo(scene.stored("fifo"))
    names = {
        ("data/scan/b.tif", FindingKind.LOST),
        ("data/dark.tif", FindingKind.DARK),
        ("data/fifo", FindingKind.DARK),
    }
    first = scene.audit()
    assert (first.state, first.dark, first.lost, first.confirmed) == (InspectionState.DONE, 2, 1, 0)
    assert {key: finding.is_confirmed for key, finding in scene.found(first).items()} == dict.fromkeys(names, False)
    scene.stored("fifo").unlink()
    second = scene.audit()
    assert (second.dark, second.lost, second.confirmed) == (1, 1, 2)
    assert all(finding.is_confirmed for finding in scene.found(second).values())
    assert not any(finding.is_confirmed for finding in scene.found(first).values())
    # Neither deleted, nor moved, nor mended.
    assert scene.stored("dark.tif").read_bytes() == b"nobody knows"
    assert not scene.stored("scan/b.tif").exists()
    assert [row.is_match for row in scene.history("scan/b.tif").ledger] == [True]
    scene.stored("dark.tif").unlink()
    third = scene.audit()
    assert (third.dark, third.lost, third.confirmed) == (0, 1, 1)


def test_hidden_files_are_neither_dark_nor_lost(scene: Scene) -> None:
    scene.write("a.tif", "b.tif")
    scene.take()
    scene.client.files.delete(FileQuery(experiment_uid=scene.of.uid, glob="data/a.tif"), 1)
    done = scene.audit()
    assert (done.state, done.dark, done.lost) == (InspectionState.DONE, 0, 0)


def test_f37_a_third_of_the_storage_that_is_hidden_stops_the_audit(
    scene: Scene, mounted: Callable[[Path], None]
) -> None:
    scene.write(*(f"scan_{i % 10}/{i:04}.tif" for i in range(1000)), size=10)
    scene.take()
    summary = scene.client.files.summary(scene.of.uid)
    for number in (0, 4, 9):
        mounted(scene.stored(f"scan_{number}"))
    for _ in range(2):
        stopped = scene.audit()
        assert (stopped.state, stopped.confirmed) == (InspectionState.STOPPED, 0)
        assert "more than 100 names do not match" in stopped.message
        assert not any(finding.is_confirmed for finding in scene.found(stopped).values())
    assert scene.client.files.summary(scene.of.uid) == summary
    assert scene.history("scan_0/0000.tif").replicas[0].state is ReplicaState.VERIFIED


def test_a_stopped_audit_confirms_nothing_afterwards(scene: Scene) -> None:
    """What an audit that was stopped has found does not count as the first of two."""
    scene.write(*(f"scan/{i:03}.tif" for i in range(150)), "a.tif", size=10)
    scene.take()
    scene.stored("dark.tif").write_bytes(b"dark")
    away = scene.stored("scan")
    away.rename(away.with_name("elsewhere"))
    assert scene.audit().state is InspectionState.STOPPED
    away.with_name("elsewhere").rename(away)
    done = scene.audit()
    assert (done.state, done.dark, done.confirmed) == (InspectionState.DONE, 1, 0)


def test_a_storage_that_is_not_there_is_no_loss(scene: Scene) -> None:
    scene.write("a.tif")
    scene.take()
    root = scene.made.storage / scene.of.directory
    root.rename(root.with_name("away"))
    failed = scene.audit()
    root.with_name("away").rename(root)
    assert (failed.state, failed.lost) == (InspectionState.FAILED, 0)
    assert "is the storage mounted" in failed.message


def test_they_are_for_managers_of_the_station(scene: Scene) -> None:
    username = f"pi{scene.of.number}"
    scene.client.users.create(NewUser.model_validate({"username": username, "password": PASSWORD}))
    scene.client.experiments.add_user(scene.of.uid, username, Role.PI)
    with Client(scene.client.url, username=username, password=PASSWORD, logins=scene.made.logins) as pi:
        pi.credentials.mirror = scene.client.credentials.mirror
        with pytest.raises(NotPermittedError):
            pi.scrubs.start(NewScrub(experiment_uid=scene.of.uid))
        with pytest.raises(NotPermittedError):
            pi.audits.start(NewAudit(experiment_uid=scene.of.uid))
