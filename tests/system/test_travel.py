"""Files travel from a directory to verified, catalogued storage: whole services as real processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import blake3
import h5py
import hdf5plugin
import numpy as np
import pytest

from beamkeeper.client import Client
from beamkeeper.client.arrays import Dataset
from beamkeeper.domain.acquisition import Acquisition, JournalState, NewDaq, NewUpload, State
from beamkeeper.domain.errors import OverlapError, SourceError
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import File, FileQuery
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.status import Service
from beamkeeper.testing.servers import PostgresServer, fresh_database
from beamkeeper.testing.station import Station, experiment, station, until

J = JournalState


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Station, Client]]:
    with station(tmp_path_factory.mktemp("station")) as made:
        yield made, made.start()


@pytest.fixture
def client(running: tuple[Station, Client]) -> Client:
    return running[1]


@pytest.fixture
def coffee(running: tuple[Station, Client]) -> Experiment:
    return experiment(running[1], f"e{uuid4().hex[:12]}")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "detector").mkdir()
    return tmp_path / "detector"


def at(directory: Path) -> dict[str, str | None]:
    return path_fields(os.fsencode(directory)[1:])


def start(client: Client, of: Experiment, directory: Path, **options: object) -> Acquisition:
    return client.daqs.start(NewDaq.model_validate({"experiment_uid": of.uid, **at(directory), **options}))


def finish(client: Client, daq: Acquisition) -> Acquisition:
    client.daqs.stop(daq.uid)
    return client.daqs.wait(daq.uid, timeout_s=60)


def catalogued(client: Client, of: Experiment) -> dict[bytes, File]:
    return {bytes(f.relpath): f for f in client.files.find(FileQuery(experiment_uid=of.uid))}


def stored(made: Station, of: Experiment) -> dict[bytes, bytes]:
    """The plain names of an experiment's data, with their bytes."""
    root = made.storage / of.directory
    found = {}
    for parent, _, names in os.walk(os.fsencode(root / "data")):
        for name in names:
            path = os.path.join(parent, name)
            content = os.readlink(path) if os.path.islink(path) else Path(os.fsdecode(path)).read_bytes()
            found[os.path.relpath(path, os.fsencode(root))] = content
    return found


def has_delivered(client: Client, daq: Acquisition, count: int) -> bool:
    return client.daqs.get(daq.uid).count(J.AVAILABLE) >= count


def digest(content: bytes) -> str:
    return blake3.blake3(content).hexdigest()


def test_what_a_detector_writes_ends_stored_verified_and_catalogued(
    running: tuple[Station, Client], coffee: Experiment, source: Path
) -> None:
    made, client = running
    wanted: dict[bytes, bytes] = {}
    (source / "before.dat").write_bytes(b"there already")
    wanted[b"data/before.dat"] = b"there already"
    daq = start(client, coffee, source)
    names = [b"frame.tif", b"a space.tif", b"line\nbreak", b"\xff\xfe latin", b"x" * 255, b"-rf", b"$(touch x)"]
    for i, name in enumerate(names):
        below = source / f"scan_{i}" / "deep"
        below.mkdir(parents=True)
        path = os.path.join(os.fsencode(below), name)
        content = os.urandom(1000 * i)
        with open(path, "wb") as frame:
            frame.write(content)
        wanted[b"data/scan_%d/deep/" % i + name] = content
    (source / "link").symlink_to("frame.tif")
    wanted[b"data/link"] = b"frame.tif"
    ended = finish(client, daq)
    assert (ended.state, ended.count(J.AVAILABLE)) == (State.DONE, len(wanted)), ended
    assert stored(made, coffee) == wanted
    files = catalogued(client, coffee)
    assert set(files) == set(wanted)
    for path, file in files.items():
        assert file.is_verified
        if file.kind == "file":
            assert (file.size, file.checksums[0].value) == (len(wanted[path]), digest(wanted[path]))


def test_what_files_say_is_catalogued_and_their_arrays_are_read_where_they_lie(
    client: Client, coffee: Experiment, source: Path
) -> None:
    frames = np.arange(3 * 20 * 30, dtype="u2").reshape(3, 20, 30)
    with h5py.File(source / "scan.h5", "w") as file:
        file["entry/monochromator/energy"] = 12.4
        file["entry/monochromator/energy"].attrs["units"] = "keV"
        file.create_dataset("entry/data", data=frames, chunks=(1, 20, 30), **hdf5plugin.Blosc())
    edf = b"{\nEDF_DataBlockID = 0.Image.Psd ;\nByteOrder = LowByteFirst ;\nDataType = UnsignedShort ;\n"
    edf += b"Dim_1 = 2 ;\nDim_2 = 1 ;\nEnergy = 8 keV ;\n"
    (source / "image.edf").write_bytes(edf.ljust(510) + b"}\n" + bytes(4))
    (source / "broken.mda").write_bytes(b"\x3f\xa6\x66\x66" + b"\xff" * 100)
    ended = finish(client, start(client, coffee, source))
    assert ended.count(J.AVAILABLE) == 3, ended
    found = {path: file.metadata for path, file in catalogued(client, coffee).items()}
    assert found[b"data/scan.h5"]["energy"] == {"value": 12.4, "unit": "keV"}
    assert found[b"data/image.edf"]["energy"] == {"value": 8, "unit": "keV"}
    assert str(found[b"data/broken.mda"]["extraction"]).startswith("{'error': 'MDA cannot be read")
    with client.files.open("data/scan.h5", experiment=coffee.name) as opened:
        data = opened["entry/data"]
        assert isinstance(data, Dataset)
        assert np.array_equal(data[1:, 3], frames[1:, 3])


def test_nothing_is_skipped_without_a_reason(client: Client, coffee: Experiment, source: Path) -> None:
    (source / "kept.tif").write_bytes(b"1")
    (source / ".hidden").write_bytes(b"2")
    (source / "not.log").write_bytes(b"3")
    (source / "unfinished.h5.tmp").write_bytes(b"4")
    os.mkfifo(source / "fifo")
    daq = start(client, coffee, source, with_hidden=False, exclude=["*.log"])
    ended = finish(client, daq)
    reasons = {entry.path: entry.reason_code for entry in client.daqs.entries(daq.uid, J.SKIPPED)}
    assert reasons == {
        ".hidden": "hidden",
        "not.log": "excluded",
        "unfinished.h5.tmp": "temporary-name",
        "fifo": "special",
    }
    assert (ended.state, ended.count(J.AVAILABLE)) == (State.DONE, 1)


def test_a_daq_that_ignores_existing_files_says_how_many(client: Client, coffee: Experiment, source: Path) -> None:
    for i in range(5):
        (source / f"old_{i}").write_bytes(b"old")
    daq = start(client, coffee, source, with_existing=False)
    until(lambda: client.daqs.get(daq.uid).state is State.RUNNING, "running")
    (source / "new").write_bytes(b"new")
    ended = finish(client, daq)
    assert {t.reason_code: t.files for t in ended.tallies} == {"existing": 5, "": 1}
    assert set(catalogued(client, coffee)) == {b"data/new"}


def test_appending_makes_a_version_and_keeps_the_old_one(
    running: tuple[Station, Client], coffee: Experiment, source: Path
) -> None:
    made, client = running
    log = source / "spec.log"
    log.write_bytes(b"one\n")
    daq = start(client, coffee, source)
    until(lambda: client.daqs.get(daq.uid).count(J.AVAILABLE) == 1, "the first version")
    with log.open("ab") as opened:
        opened.write(b"two\n")
    until(lambda: client.daqs.get(daq.uid).count(J.GROWING) == 1, "growth")  # a snapshot at most every ten minutes
    ended = finish(client, daq)
    assert (ended.state, ended.count(J.AVAILABLE)) == (State.DONE, 1)
    (file,) = catalogued(client, coffee).values()
    history = client.files.history(file.uid)
    assert [v.number for v in sorted(history.versions, key=lambda v: v.number)] == [1, 2]
    assert (file.version, file.checksums[0].value) == (2, digest(b"one\ntwo\n"))
    kept = made.storage / coffee.directory / ".dm" / "versions" / "data" / "spec.log" / "1"
    assert kept.read_bytes() == b"one\n"


def test_a_new_time_alone_makes_no_version(client: Client, coffee: Experiment, source: Path) -> None:
    (source / "a.tif").write_bytes(b"same")
    daq = start(client, coffee, source)
    until(lambda: client.daqs.get(daq.uid).count(J.AVAILABLE) == 1, "the file")
    os.utime(source / "a.tif", (1, 1))
    assert finish(client, daq).count(J.AVAILABLE) == 1
    (file,) = catalogued(client, coffee).values()
    assert file.version == 1


def test_an_upload_skips_what_is_stored_and_unchanged(client: Client, coffee: Experiment, source: Path) -> None:
    for i in range(20):
        (source / f"{i}.dat").write_bytes(b"%d" % i)
    new = NewUpload.model_validate({"experiment_uid": coffee.uid, **at(source)})
    first = client.uploads.wait(client.uploads.start(new).uid, timeout_s=60)
    assert (first.state, first.count(J.AVAILABLE)) == (State.DONE, 20)
    (source / "20.dat").write_bytes(b"20")
    second = client.uploads.wait(client.uploads.start(new).uid, timeout_s=60)
    assert {(t.state, t.reason_code): t.files for t in second.tallies} == {
        (J.AVAILABLE, ""): 1,
        (J.SKIPPED, "unchanged"): 20,
    }


def test_an_upload_of_nothing_is_refused_at_once(client: Client, coffee: Experiment, source: Path) -> None:
    for directory in (source, source / "missing"):
        with pytest.raises(SourceError):
            client.uploads.start(NewUpload.model_validate({"experiment_uid": coffee.uid, **at(directory)}))


def test_a_daq_waits_for_its_directory_and_shows_that_it_waits(
    client: Client, coffee: Experiment, source: Path
) -> None:
    daq = start(client, coffee, source / "later", wait=True)
    until(lambda: "waits for its directory" in client.daqs.get(daq.uid).message, "the message")
    assert client.daqs.get(daq.uid).state is State.PENDING
    (source / "later").mkdir()
    (source / "later" / "a.tif").write_bytes(b"frame")
    until(lambda: client.daqs.get(daq.uid).count(J.AVAILABLE) == 1, "the frame")
    assert finish(client, daq).state is State.DONE


def test_a_second_daq_is_refused_and_may_take_over(client: Client, coffee: Experiment, source: Path) -> None:
    other = experiment(client, f"{coffee.name}-next")
    (source / "first.tif").write_bytes(b"first")
    old = start(client, coffee, source)
    until(lambda: client.daqs.get(old.uid).count(J.AVAILABLE) == 1, "the first file")
    (source / "below").mkdir()
    with pytest.raises(OverlapError, match=coffee.name):
        start(client, other, source / "below")
    new = start(client, other, source, take_over=True)
    (source / "second.tif").write_bytes(b"second")
    assert client.daqs.wait(old.uid, timeout_s=60).state is State.DONE
    until(lambda: client.daqs.get(new.uid).count(J.AVAILABLE) == 1, "the second file")
    finish(client, new)
    assert set(catalogued(client, coffee)) == {b"data/first.tif"}
    assert set(catalogued(client, other)) == {b"data/second.tif"}


def test_bytes_that_the_catalogue_does_not_know_are_never_replaced(
    running: tuple[Station, Client], coffee: Experiment, source: Path
) -> None:
    made, client = running
    foreign = made.storage / coffee.directory / "data" / "a.tif"
    foreign.write_bytes(b"somebody's")
    foreign.with_name("same.tif").write_bytes(b"the same")
    (source / "a.tif").write_bytes(b"the detector's")
    (source / "same.tif").write_bytes(b"the same")
    ended = finish(client, start(client, coffee, source))
    (entry,) = client.daqs.entries(ended.uid, J.QUARANTINED)
    assert (ended.state, entry.reason_code) == (State.FAILED, "conflict")
    assert entry.reason == '"data/a.tif" holds bytes that the catalogue does not know: they are left as they are'
    assert foreign.read_bytes() == b"somebody's"
    assert [entry.path for entry in client.daqs.entries(ended.uid, J.AVAILABLE)] == ["same.tif"]


def test_another_sources_different_bytes_are_a_conflict(client: Client, coffee: Experiment, source: Path) -> None:
    for name, content in (("one", b"1"), ("two", b"2")):
        (source / name).mkdir()
        (source / name / "same.tif").write_bytes(content)
    (source / "two" / "other.tif").write_bytes(b"3")
    assert finish(client, start(client, coffee, source / "one")).state is State.DONE
    ended = finish(client, start(client, coffee, source / "two"))
    (entry,) = client.daqs.entries(ended.uid, J.QUARANTINED)
    assert (ended.state, entry.path, entry.reason_code) == (State.FAILED, "same.tif", "conflict")
    assert catalogued(client, coffee)[b"data/same.tif"].checksums[0].value == digest(b"1")


def test_stopping_now_leaves_the_rest_to_a_later_daq(client: Client, coffee: Experiment, source: Path) -> None:
    (source / "a.tif").write_bytes(b"a")
    daq = start(client, coffee, source, quiet_s=600)
    until(lambda: client.daqs.get(daq.uid).count(J.CANDIDATE) == 1, "the candidate")
    client.daqs.stop(daq.uid, now=True)
    assert client.daqs.wait(daq.uid, timeout_s=60).state is State.ABORTED
    assert not catalogued(client, coffee)
    assert finish(client, start(client, coffee, source)).count(J.AVAILABLE) == 1


def test_a_daq_ends_after_its_run_time(client: Client, coffee: Experiment, source: Path) -> None:
    (source / "a.tif").write_bytes(b"a")
    daq = start(client, coffee, source, max_run_time_s=0.5)
    ended = client.daqs.wait(daq.uid, timeout_s=60)
    assert (ended.state, ended.count(J.AVAILABLE)) == (State.DONE, 1)


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def test_killing_everything_again_and_again_loses_and_repeats_nothing(
    kind: str, tmp_path: Path, source: Path, request: pytest.FixtureRequest
) -> None:
    databases: dict[Service, str] = {}
    if kind == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        databases = {service: fresh_database(server) for service in Service}
    wanted = {}
    with station(tmp_path, databases, "batch_files = 7\n") as made:
        client = made.start()
        of = experiment(client)
        daq = start(client, of, source)
        for round_ in range(4):
            for i in range(40):
                path = source / f"{round_}_{i}.tif"
                path.write_bytes(os.urandom(20_000))
                wanted[b"data/" + os.fsencode(path.name)] = path.read_bytes()
            until(partial(has_delivered, client, daq, 40 * round_ + 10), "some files")
            made.kill(signal.SIGKILL)
            client = made.start()
        ended = finish(client, daq)
        assert (ended.state, ended.count(J.AVAILABLE)) == (State.DONE, len(wanted)), ended
        assert stored(made, of) == wanted
        files = list(client.files.find(FileQuery(experiment_uid=of.uid)))
        assert len(files) == len(wanted)
        for file in files:
            assert (file.version, file.checksums[0].value) == (1, digest(wanted[bytes(file.relpath)]))
        assert client.files.summary(of.uid).versions == len(wanted)
        staging = made.storage / of.directory / ".dm" / "staging"
        assert not list(staging.iterdir())
