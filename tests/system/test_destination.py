"""Storage areas that are full, hang or are lied about: their files wait or are sent again, and others go on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import Acquisition, JournalState, NewUpload, State
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.status import Service
from beamkeeper.domain.storage import AreaPause, NewStorageArea
from beamkeeper.testing.mounts import small_disk
from beamkeeper.testing.station import Station, station, until
from beamkeeper.testing.transfers import provide

J = JournalState
MIB = 1024 * 1024


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "detector").mkdir()
    return tmp_path / "detector"


def experiment_in(client: Client, name: str, path: Path, transfer: str = "copy") -> Experiment:
    """Make a storage area, and an experiment in it."""
    path.mkdir(exist_ok=True)
    new = NewStorageArea(name=name, station_url=path.as_uri(), path=str(path), transfer=transfer)
    area = client.storage_areas.add(new)
    return client.experiments.create(NewExperiment(name=name, station="TEST", storage_area_uid=area.uid))


def write(directory: Path, files: int, size: int) -> dict[bytes, bytes]:
    """Write some files, and return what is to be found of them in storage."""
    wanted = {}
    for number in range(files):
        content = os.urandom(size)
        (directory / f"{number}.dat").write_bytes(content)
        wanted[b"data/%d.dat" % number] = content
    return wanted


def upload(client: Client, of: Experiment, directory: Path) -> Acquisition:
    new = NewUpload(experiment_uid=of.uid, path_b64=path_fields(os.fsencode(directory)[1:])["path_b64"])
    return client.uploads.start(new)


def paused(client: Client, name: str) -> AreaPause | None:
    found = {pause.name: pause for pause in client.status(Service.ACQUISITION).paused}
    return found.get(name)


def stored(client: Client, of: Experiment, root: Path) -> dict[bytes, bytes]:
    """What the catalogue has of an experiment, with the bytes that stand in storage."""
    files = client.files.find(FileQuery(experiment_uid=of.uid))
    return {bytes(file.relpath): (root / of.directory / os.fsdecode(file.relpath)).read_bytes() for file in files}


def attempts(client: Client, item: Acquisition) -> set[int]:
    return {entry.attempts for entry in client.uploads.entries(item.uid)}


def test_a_full_storage_area_is_paused_and_goes_on_by_itself_once_there_is_room(tmp_path: Path, source: Path) -> None:
    small = tmp_path / "small"
    with small_disk(small, "4m"), station(tmp_path, settings="threads = 2\n") as made:
        client = made.start()
        of, other = experiment_in(client, "small", small), experiment_in(client, "roomy", tmp_path / "roomy")
        filler = [small / f"filler_{number}" for number in range(7)]
        for one in filler:
            one.write_bytes(bytes(MIB // 2))
        wanted = write(source, 4, 300_000)
        item = upload(client, of, source)
        pause = until(lambda: paused(client, "small"), "the pause")
        assert (pause.trouble, pause.files) == ("full", 4)
        until(lambda: "goes on with 1200000" in getattr(paused(client, "small"), "message", ""), "what it waits for")
        assert 'storage area "small" is full: paused since' in client.uploads.get(item.uid).message
        assert "4 files wait" in client.uploads.get(item.uid).message

        assert client.uploads.wait(upload(client, other, source).uid, timeout_s=30).state is State.DONE
        assert stored(client, other, tmp_path / "roomy") == wanted

        filler.pop().unlink()  # half of what is needed: it would only come and go
        until(lambda: "free" in getattr(paused(client, "small"), "message", ""), "another look")
        now = client.uploads.get(item.uid)
        assert (now.count(J.READY), now.count(J.AVAILABLE)) == (4, 0)
        assert stored(client, of, small) == {}

        for one in filler:
            one.unlink()
        ended = client.uploads.wait(item.uid, timeout_s=60)
        assert (ended.state, ended.count(J.AVAILABLE)) == (State.DONE, 4)
        assert attempts(client, ended) == {0}
        assert stored(client, of, small) == wanted
        assert paused(client, "small") is None
        assert not ended.message.startswith("storage area")


def test_a_storage_area_that_hangs_is_paused_and_no_other(tmp_path: Path, source: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    environ = provide(tmp_path / "plugins")
    settings = f'stall_s = 1\nthreads = 2\n[transfer.hanging]\ngate = "{gate}"\n'
    with station(tmp_path, settings=settings) as made:
        client = made.start(environ)
        of = experiment_in(client, "away", tmp_path / "away", "hanging")
        other = experiment_in(client, "there", tmp_path / "there")
        wanted = write(source, 3, 1000)
        item = upload(client, of, source)
        pause = until(lambda: paused(client, "away"), "the pause")
        assert (pause.trouble, pause.files) == ("hanging", 3)
        assert pause.message == 'storage area "away" has not answered for 1 s'
        assert client.uploads.wait(upload(client, other, source).uid, timeout_s=30).state is State.DONE
        assert paused(client, "there") is None
        assert client.uploads.get(item.uid).count(J.READY) == 3
        gate.unlink()
        ended = client.uploads.wait(item.uid, timeout_s=60)
        assert (ended.state, attempts(client, ended)) == (State.DONE, {0})
        assert stored(client, of, tmp_path / "away") == wanted


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Station, Client, Path]]:
    """A station whose transfers lie or say nothing while a file is there."""
    directory = tmp_path_factory.mktemp("faulty")
    environ, gate = provide(directory / "plugins"), directory / "gate"
    faults = (f'[transfer.{name}]\ngate = "{gate}"\n' for name in ("lying", "silent", "vanishing"))
    settings = "attempts = 2\n" + "".join(faults)
    with station(directory, settings=settings) as made:
        yield made, made.start(environ), gate


def test_what_a_transport_truncated_is_sent_again(
    faulty: tuple[Station, Client, Path], tmp_path: Path, source: Path
) -> None:
    _, client, gate = faulty
    of = experiment_in(client, "liar", tmp_path / "area", "lying")
    wanted = write(source, 3, 1000)
    gate.touch()
    item = upload(client, of, source)
    until(lambda: 1 in attempts(client, item), "the first try")
    gate.unlink()
    ended = client.uploads.wait(item.uid, timeout_s=60)
    assert ended.state is State.DONE
    assert stored(client, of, tmp_path / "area") == wanted


def test_a_transport_that_always_lies_ends_in_quarantine(
    faulty: tuple[Station, Client, Path], tmp_path: Path, source: Path
) -> None:
    _, client, gate = faulty
    of = experiment_in(client, "always", tmp_path / "area", "lying")
    wanted = write(source, 2, 1000)
    gate.touch()
    ended = client.uploads.wait(upload(client, of, source).uid, timeout_s=60)
    gate.unlink()
    entries = list(client.uploads.entries(ended.uid, J.QUARANTINED))
    assert ended.state is State.FAILED
    assert {(entry.reason_code, entry.attempts) for entry in entries} == {("damaged", 2)}
    assert {entry.reason for entry in entries} == {
        f'"data/{number}.dat" has other bytes in storage than were sent' for number in range(2)
    }
    assert stored(client, of, tmp_path / "area") == {}
    assert not list((tmp_path / "area" / of.directory / "data").iterdir())

    # Now that it works, one command tries them again: those that are meant, and nothing that came since.
    (source / "new.dat").write_bytes(b"new")
    picked = client.uploads.retry(ended.uid, "0.*")
    assert (picked.files, picked.acquisition.state) == (1, State.STOPPING)
    assert client.uploads.wait(ended.uid, timeout_s=60).state is State.FAILED
    assert set(stored(client, of, tmp_path / "area")) == {b"data/0.dat"}
    assert client.uploads.retry(ended.uid).files == 1
    again = client.uploads.wait(ended.uid, timeout_s=60)
    assert (again.state, again.message) == (State.DONE, "2 available")
    assert stored(client, of, tmp_path / "area") == wanted


def test_files_that_a_transport_says_nothing_of_are_sent_again(
    faulty: tuple[Station, Client, Path], tmp_path: Path, source: Path
) -> None:
    _, client, gate = faulty
    of = experiment_in(client, "silent", tmp_path / "area", "silent")
    wanted = write(source, 4, 1000)
    gate.touch()
    item = upload(client, of, source)
    until(partial(has_some, client, item), "half of the files")
    gate.unlink()
    ended = client.uploads.wait(item.uid, timeout_s=60)
    assert (ended.state, ended.count(J.AVAILABLE)) == (State.DONE, 4)
    assert stored(client, of, tmp_path / "area") == wanted


def test_files_whose_staging_directory_somebody_removed_are_sent_again(
    faulty: tuple[Station, Client, Path], tmp_path: Path, source: Path
) -> None:
    _, client, gate = faulty
    of = experiment_in(client, "vanishing", tmp_path / "area", "vanishing")
    wanted = write(source, 3, 1000)
    gate.touch()
    item = upload(client, of, source)
    until(lambda: 1 in attempts(client, item), "the first try")
    why = {entry.reason for entry in client.uploads.entries(item.uid)}
    assert '"data/0.dat" is not in its staging directory' in why
    assert stored(client, of, tmp_path / "area") == {}
    gate.unlink()
    ended = client.uploads.wait(item.uid, timeout_s=60)
    assert ended.state is State.DONE
    assert stored(client, of, tmp_path / "area") == wanted


def has_some(client: Client, item: Acquisition) -> bool:
    return client.uploads.get(item.uid).count(J.AVAILABLE) > 0
