"""Further storage areas that are full, away or hang hold up none but themselves; SIGKILL at any step loses nothing."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from beamkeeper.config.failpoints import VARIABLE, ReplicaPoint
from beamkeeper.domain.files import ReplicaState
from beamkeeper.domain.replicas import AreaReplicas
from beamkeeper.domain.status import Service
from beamkeeper.domain.storage import AreaPause, NewStorageArea
from beamkeeper.testing.copies import Scene
from beamkeeper.testing.mounts import small_disk
from beamkeeper.testing.station import Station, experiment, station, until

V, WANTED, DROPPED = ReplicaState.VERIFIED, ReplicaState.WANTED, ReplicaState.DROPPED
MIB = 1024 * 1024


@contextmanager
def scene(tmp_path: Path, environ: Mapping[str, str] | None = None) -> Iterator[Scene]:
    """Run a station with areas `second` and `third`; `environ` is of its first start."""
    (source := tmp_path / "detector").mkdir()
    with station(tmp_path) as made:
        client = made.start(environ)
        for name in ("second", "third"):
            (path := tmp_path / name).mkdir(exist_ok=True)
            client.storage_areas.add(NewStorageArea(name=name, station_url=path.as_uri(), path=str(path)))
        yield Scene(made, client, experiment(client), source, tmp_path / "second")


def failing(of: Scene, name: str) -> AreaPause | None:
    return {pause.name: pause for pause in of.client.status(Service.STORAGE).paused}.get(name)


def waiting(of: Scene, name: str) -> AreaReplicas:
    found = {one.storage_area: one for one in of.client.replicas.by_area(of.of.uid, waiting_only=True)}
    return found.get(name, AreaReplicas(storage_area=name, is_first=False, states={}))


def test_a_second_area_that_is_full_or_gone_holds_up_neither_the_first_nor_a_third(tmp_path: Path) -> None:
    with small_disk(tmp_path / "second", "2m"), scene(tmp_path) as of:
        (filler := of.second / "filler").write_bytes(bytes(MIB * 3 // 2))
        wanted = of.write(*(f"{n}.tif" for n in range(4)), size=300_000)
        of.take("second", "third")  # it ends while copies wait
        pause = until(lambda: failing(of, "second"), "the pause")
        assert (pause.trouble, pause.files) == ("full", 4)
        assert "copies" in of.client.status(Service.CATALOG).queues
        assert waiting(of, "second").waiting == 4
        until(lambda: waiting(of, "third").waiting == 0, "the third area")
        assert {state for (_, area), state in of.states().items() if area != "second"} == {V}
        assert all(of.first(name).read_bytes() == content for name, content in wanted.items())
        assert os.listdir(of.second / str(of.of.directory) / ".dm/staging") == []

        filler.unlink()
        assert set(of.until_settled().values()) == {V}
        assert failing(of, "second") is None
        assert all(of.there(name).read_bytes() == content for name, content in wanted.items())

        # What is not mounted any more is not filled in its place.
        aside = of.second / "aside"
        shutil.move(of.second / str(of.of.directory), aside)
        more = of.write("more.tif")
        of.take("second")
        assert until(lambda: failing(of, "second"), "the pause").trouble == "unreachable"
        assert not (of.second / str(of.of.directory)).exists()
        shutil.move(aside, of.second / str(of.of.directory))
        assert set(of.until_settled().values()) == {V}
        assert of.there("more.tif").read_bytes() == more["more.tif"]


def test_a_second_area_that_hangs_holds_up_neither_the_first_nor_a_third(tmp_path: Path) -> None:
    with scene(tmp_path) as of:
        held = os.open(of.second, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(held, fcntl.LOCK_EX)  # who would make a directory there waits for it in the kernel
        of.write("a.tif")
        of.take("second")
        of.write("b.tif")
        of.take("third")
        until(lambda: of.states().get(("b.tif", "third")) is V, "the third area")
        assert of.states()["a.tif", "second"] is WANTED
        os.close(held)
        assert of.until_settled()["a.tif", "second"] is V


def restarted(of: Scene, made: Station, point: ReplicaPoint | None) -> None:
    """Wait until the services have killed themselves, and start them to do so again at another step, or to go on."""
    until(lambda: all(process.poll() is not None for process in made.processes), "the kill")
    made.kill()
    if point is None:
        of.client = made.start()
    else:
        made.launch(environ={VARIABLE: f"{point}:kill"})


def test_a_copy_survives_a_kill_at_each_of_its_steps(tmp_path: Path) -> None:
    points = (ReplicaPoint.REPLICA_STAGED, ReplicaPoint.REPLICA_NAMED, ReplicaPoint.REPLICA_SETTLING)
    with scene(tmp_path, {VARIABLE: f"{ReplicaPoint.REPLICA_HANDED_OUT}:kill"}) as of:
        wanted = of.write(*(f"{n}.tif" for n in range(40)))
        of.take()
        asked = of.client.replicas.add(of.of.uid, "second")
        for point in (*points, None):
            restarted(of, of.made, point)
        ended = of.wait(of.client.replicas.request(asked.uid))
        assert (ended.done, ended.failed) == (40, 0)
        assert set(of.states().values()) == {V}
        assert all(of.there(name).read_bytes() == content for name, content in wanted.items())
        assert os.listdir(of.second / str(of.of.directory) / ".dm/staging") == []
        assert len(of.history("0.tif").ledger) == 2  # the copy was told of once


@pytest.mark.long
def test_a_drop_survives_a_kill_at_each_of_its_steps(tmp_path: Path) -> None:
    with scene(tmp_path, {VARIABLE: f"{ReplicaPoint.REPLICA_DROPPING}:kill"}) as of:
        wanted = of.write("a.tif", "b.tif")
        of.take("second")
        of.until_settled()
        asked = of.client.replicas.drop(of.of.uid, "second")
        for point in (ReplicaPoint.REPLICA_NAMED, None):
            restarted(of, of.made, point)
        assert of.wait(of.client.replicas.request(asked.uid)).done == 2
        assert set(of.states(storage_area="second").values()) == {DROPPED}
        assert not any(of.there(name).exists() for name in wanted)
        assert all(of.first(name).read_bytes() == content for name, content in wanted.items())


def test_what_has_no_checksum_is_never_copied_and_holds_up_no_other(tmp_path: Path) -> None:
    with scene(tmp_path) as of:
        of.write("a.tif")
        of.take()
        of.forget_checksums()
        replicas, uid = of.client.replicas, of.of.uid
        assert of.wait(replicas.add(uid, "second")).failed == 1
        assert of.wait(replicas.drop(uid, "second")).done == 1
        of.write("b.tif")
        of.take("second")
        assert of.until_settled()["b.tif", "second"] is V


def test_copies_to_an_area_that_never_was_there_can_be_given_up(tmp_path: Path) -> None:
    with scene(tmp_path) as of:
        of.second.rmdir()
        of.write("a.tif")
        of.take("second")
        until(lambda: failing(of, "second"), "the pause")
        assert of.wait(of.client.replicas.drop(of.of.uid, "second")).done == 1
        assert of.states()["a.tif", "second"] is DROPPED
        of.second.mkdir()
        of.write("b.tif")
        of.take()
        assert of.wait(of.client.replicas.add(of.of.uid, "second", glob="data/b.tif")).done == 1
        assert not of.there("a.tif").exists()
        assert failing(of, "second") is None
