"""Reading arrays over HTTP: the real client on real services, files as they lie in the storage, and hostile ones."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path

import fabio.cbfimage
import fabio.edfimage
import h5py
import hdf5plugin
import httpx2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamkeeper.client import Client
from beamkeeper.client.arrays import ArrayFile, Dataset, Group
from beamkeeper.core.arrays import ArrayReaders, Opened
from beamkeeper.core.sessions import begin_session
from beamkeeper.domain.arrays import NodeQuery, TreeQuery, ValuesQuery
from beamkeeper.domain.errors import (
    ConflictError,
    DmError,
    InvalidError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    SettingsError,
    TooLargeError,
)
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.names import to_b64
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewGrant, NewUser, Role
from beamkeeper.testing.catalogue import new_file
from beamkeeper.testing.services import Running, running

REAL = Path(os.environ.get("BEAMKEEPER_REAL_DATA", Path(__file__).parents[3] / "shared/data/real"))
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"there are no real files in {REAL}")

NUMBERS = count()
FRAMES = np.arange(4 * 30 * 40, dtype="u2").reshape(4, 30, 40)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(Service.CATALOG, directory=tmp_path_factory.mktemp("site")) as beamline:
        yield beamline


class Place:
    """An experiment, its directory, and its files in the catalogue."""

    def __init__(self, site: Running) -> None:
        new = NewExperiment(name=f"e{next(NUMBERS)}", station=site.settings.station.name)
        self.site = site
        self.experiment: Experiment = site.client.experiments.create(new)
        self.root = site.area / self.experiment.directory
        self.data = self.root / "data"

    @property
    def client(self) -> Client:
        return self.site.client

    def register(self, path: str, *, number: int = 1) -> None:
        service = self.site.as_service()
        service.credentials.mirror = self.client.credentials.mirror
        service.files.register([new_file(f"data/{path}", experiment_uid=self.experiment.uid, number=number)])

    def open(self, path: str) -> ArrayFile:
        self.register(path)
        return self.client.files.open(f"data/{path}", experiment=self.experiment.name)

    def person(self, role: Role | None, *, is_bound: bool = False) -> Client:
        """Return somebody with this role, of the station or of the experiment."""
        user = self.client.users.create(NewUser(username=f"u{next(NUMBERS)}"))
        if role in (Role.STATION_MANAGER, Role.STATION_VIEWER, Role.ADMINISTRATOR):
            station = None if role is Role.ADMINISTRATOR else self.experiment.station_uid
            self.client.users.grant(NewGrant(username=user.username, role=role, station_uid=station))
        elif role is not None:
            self.client.experiments.add_user(self.experiment.uid, user.username, role)
        with self.site.database.write() as tx:
            bound = self.experiment if is_bound else None
            made = begin_session(tx, user, expires_at=tx.now + timedelta(days=1), experiment=bound)
        return self.site.as_(made.token)


@pytest.fixture
def place(site: Running) -> Place:
    return Place(site)


def dataset(file: Group, name: str) -> Dataset:
    found = file[name]
    assert isinstance(found, Dataset)
    return found


@pytest.fixture
def scan(place: Place) -> ArrayFile:
    with h5py.File(place.data / "scan.h5", "w") as file:
        file.attrs["creator"] = "detector"
        entry = file.create_group("entry")
        frames = entry.create_dataset("data", data=FRAMES, chunks=(1, 30, 40), **hdf5plugin.Bitshuffle())
        frames.attrs.update({"units": "counts", "offsets": np.array([1.5, np.nan])})
        entry["zipped"] = FRAMES[0]
        entry["title"] = "caf\u00e9"
        entry["names"] = ["a", "longer", ""]
        entry["fixed"] = np.array([b"ab", b"c"])
        entry["energy"] = 12.4
        entry["table"] = np.array([(1, 2.5, (1, 2))], dtype=[("n", "i4"), ("x", "f8"), ("v", "u1", (2,))])
        entry["flags"] = np.array([True, False])
        entry["empty"] = h5py.Empty("f8")
        entry["none"] = np.zeros((0, 3))
        entry["soft"] = h5py.SoftLink("/entry/data")
        entry["hard"] = entry
        entry["ragged"] = np.array([np.arange(2), np.arange(3)], dtype=object).astype(h5py.vlen_dtype("i4"))
    return place.open("scan.h5")


def test_a_file_is_like_one_of_h5py(scan: ArrayFile) -> None:
    assert scan.attrs["creator"] == "detector"
    assert list(scan) == ["entry"]
    entry = scan["entry"]
    assert isinstance(entry, Group)
    assert "data" in entry
    assert "other" not in entry
    frames = dataset(entry, "data")
    assert (frames.shape, frames.ndim, len(frames), frames.size) == ((4, 30, 40), 3, 4, 4800)
    assert frames.dtype == np.dtype("u2")
    assert (frames.chunks, frames.compression) == ((1, 30, 40), ("bitshuffle",))
    assert frames.attrs == {"units": "counts", "offsets": [1.5, None]}
    assert np.array_equal(frames[...], FRAMES)
    assert np.array_equal(frames[1:3, ::7, 5], FRAMES[1:3, ::7, 5])
    assert np.array_equal(frames[-1], FRAMES[-1])
    assert np.array_equal(np.asarray(frames), FRAMES)
    assert frames[2, 3, 4] == FRAMES[2, 3, 4]
    assert [frame.shape for frame in frames] == [(30, 40)] * 4
    assert dataset(scan, "/entry/energy")[()] == 12.4
    assert dataset(scan, "entry/title").asstr() == "caf\u00e9"
    assert dataset(scan, "entry/names")[1:].tolist() == [b"longer", b""]
    assert dataset(scan, "entry/fixed")[:].tolist() == [b"ab", b"c"]
    table = dataset(scan, "entry/table")
    assert table[0]["x"] == 2.5
    assert table.dtype["v"].shape == (2,)
    assert dataset(scan, "entry/flags")[:].tolist() == [True, False]
    assert dataset(scan, "entry/none")[...].shape == (0, 3)
    assert np.array_equal(dataset(scan, "entry/soft")[0], FRAMES[0])
    assert dataset(scan, "entry/hard/hard/energy")[()] == 12.4
    with pytest.raises(KeyError, match="nothing"):
        scan["entry/nothing"]
    with pytest.raises(InvalidError, match="not sent as an array"):
        dataset(scan, "entry/ragged")[...]
    with pytest.raises(InvalidError, match="cannot be sent"):
        scan.npy("/entry/ragged", "")
    with pytest.raises(InvalidError, match="has no values"):
        scan.npy("/entry/empty", "")


def test_a_tree_is_shown_with_one_question(scan: ArrayFile) -> None:
    found = scan.tree()
    names = [node.name for node in found.nodes]
    assert names[:3] == ["/", "/entry", "/entry/data"]
    assert "/entry/hard" in names
    assert not [name for name in names if name.startswith("/entry/hard/")], "a circle is entered once"
    assert not found.is_cut
    cut = scan.tree(limit=2)
    assert (len(cut.nodes), cut.is_cut) == (2, True)


def test_a_selection_larger_than_an_answer_comes_in_pieces(place: Place) -> None:
    with h5py.File(place.data / "large.h5", "w") as file:
        file.create_dataset("data", (70, 1024, 1024), "u1", chunks=(1, 1024, 1024))[69] = 7
    large = dataset(place.open("large.h5"), "data")
    with pytest.raises(TooLargeError, match="in pieces"):
        large.file.npy("/data", "")
    found = large[...]
    assert (found.shape, int(found.sum())) == ((70, 1024, 1024), 7 * 1024 * 1024)


def test_frames_of_tiff_are_read(place: Place) -> None:
    tifffile.imwrite(place.data / "stack.tif", FRAMES, compression="zlib", photometric="minisblack", metadata=None)
    stack = place.open("stack.tif")
    frames = dataset(stack, "data")
    assert (stack.format, frames.shape, str(frames.dtype)) == ("TIFF", (4, 30, 40), "uint16")
    assert np.array_equal(frames[1:4:2, 5:9, ::3], FRAMES[1:4:2, 5:9, ::3])
    assert np.array_equal(frames[2], FRAMES[2])
    assert frames[4:].shape == (0, 30, 40)
    assert [node.name for node in stack.tree().nodes] == ["/", "/data"]
    with pytest.raises(KeyError, match="pages are in /data"):
        stack["other"]


@pytest.mark.parametrize("kind", ["cbf", "edf"])
def test_frames_of_detectors_are_read(place: Place, kind: str) -> None:
    frame = FRAMES[1].astype("int32")
    image = {"cbf": fabio.cbfimage.CbfImage, "edf": fabio.edfimage.EdfImage}[kind]
    image(data=frame).write(str(place.data / f"frame.{kind}"))
    frames = dataset(place.open(f"frame.{kind}"), "data")
    assert frames.shape == (1, 30, 40)
    assert np.array_equal(frames[0, 5:9, ::3], frame[5:9, ::3])
    assert frames[1:].shape == (0, 30, 40)


def test_a_link_into_another_file_is_followed_by_the_client_within_the_experiment(place: Place) -> None:
    (place.data / "sub").mkdir()
    with h5py.File(place.data / "sub" / "part.h5", "w") as file:
        file["frames"] = FRAMES
    with h5py.File(place.data / "master.h5", "w") as file:
        file["data"] = h5py.ExternalLink("sub/part.h5", "/frames")
        file["away"] = h5py.ExternalLink("/etc/passwd", "/x")
        file["climbs"] = h5py.ExternalLink("../../../other.h5", "/x")
        file["gone"] = h5py.ExternalLink("gone.h5", "/x")
    place.register("sub/part.h5")
    master = place.open("master.h5")
    assert np.array_equal(dataset(master, "data")[1], FRAMES[1])
    for name in ("away", "climbs"):
        with pytest.raises(InvalidError, match="not in this experiment"):
            master[name]
    with pytest.raises(NotFoundError, match=r"data/gone\.h5"):
        master["gone"]
    with pytest.raises(InvalidError, match=r'open "sub/part\.h5" and ask for "/frames"'):
        master.npy("/data", "")


def test_nothing_outside_of_the_file_is_read(place: Place) -> None:
    """Virtual datasets, external storage and links would show whatever the storage service may read."""
    secret = place.site.area / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["value"] = np.arange(8)
    (place.site.area / "secret.raw").write_bytes(b"secret!!")
    with h5py.File(place.data / "f.h5", "w") as file:
        file.create_dataset("raw", (8,), "u1", external=[(str(place.site.area / "secret.raw"), 0, 8)])
        layout = h5py.VirtualLayout((8,), "i8")
        layout[:] = h5py.VirtualSource(str(secret), "value", shape=(8,))
        file.create_virtual_dataset("virtual", layout)
        file["link"] = h5py.ExternalLink(str(secret), "/value")
        file["soft"] = h5py.SoftLink("/link")
        file["circle"] = h5py.SoftLink("/circle")
        file["reference"] = np.array([file.ref], dtype=h5py.ref_dtype)
        file["named"] = np.dtype("f8")
        assert (file["raw"][0], file["virtual"][1], file["soft"][2]) == (ord("s"), 1, 2)
    opened = place.open("f.h5")
    for name in ("raw", "virtual", "link", "soft", "circle", "reference", "named"):
        with pytest.raises((InvalidError, NotFoundError)):
            opened.npy(f"/{name}", "")
    shown = opened.tree().model_dump_json()
    assert "secret!!" not in shown


def write_growing(path: Path, source: Path) -> None:
    """Write a virtual dataset that is as long as its source, which HDF5 opens to tell the shape."""
    with h5py.File(path, "w", libver="latest") as file:
        layout = h5py.VirtualLayout((4, 8), "i8", maxshape=(None, 8))
        part = h5py.VirtualSource(str(source), "d", shape=(4, 8), maxshape=(None, 8))
        layout[0 : h5py.h5s.UNLIMITED, :] = part[0 : h5py.h5s.UNLIMITED, :]
        file.create_virtual_dataset("growing", layout)


def test_the_shape_of_no_other_file_is_told(place: Place) -> None:
    os.mkfifo(place.site.area / f"{place.experiment.name}.fifo")  # who opens it waits for ever
    write_growing(place.data / "f.h5", place.site.area / f"{place.experiment.name}.fifo")
    opened = place.open("f.h5")
    assert dataset(opened, "growing").shape == ()
    assert [node.shape for node in opened.tree().nodes] == [None, None]
    with pytest.raises(InvalidError, match="is virtual"):
        opened.npy("/growing", "")


@pytest.mark.parametrize(
    "path",
    [
        "data/../../../secret.h5",
        "/etc/passwd",
        "data/out.h5",
        "data/directory/secret.h5",
        "data/pipe.h5",
        "data",
        "data/",
        ".dm/staging/x.h5",
        ".dm/versions/data/scan.h5/1",
        "system/x.h5",
        "data/gone.h5",
        "data/" + "x" * 300,
        "data/a\0b",
    ],
)
def test_what_is_not_a_file_of_the_experiment_is_not_opened(place: Place, path: str) -> None:
    with h5py.File(place.site.area / "secret.h5", "w") as file:
        file["value"] = 1
    (place.data / "out.h5").symlink_to(place.site.area / "secret.h5")
    (place.data / "directory").symlink_to(place.site.area)
    os.mkfifo(place.data / "pipe.h5")
    with h5py.File(place.root / ".dm" / "staging" / "x.h5", "w") as file:
        file["value"] = 1
    where = f"/api/v1/experiments/{place.experiment.uid}/arrays/node"
    with pytest.raises((InvalidError, NotFoundError)):
        place.client.http(Service.STORAGE).content(where, query={"path": path})


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"name": "entry"}, InvalidError),
        ({"name": "/../x"}, NotFoundError),
        ({"name": "/" + "x/" * 3000}, InvalidError),
        ({"select": "a"}, InvalidError),
        ({"select": "0,0,0,0"}, InvalidError),
        ({"select": "4"}, InvalidError),
        ({"select": "9" * 19}, InvalidError),
        ({"select": ":" + "9" * 1900}, InvalidError),
        ({"select": "::-1"}, InvalidError),
        ({"version": "0"}, InvalidError),
        ({"version": "99999999999999999999"}, InvalidError),
        ({"state": "../x"}, InvalidError),
        ({"state": "1-2-3"}, ConflictError),
        ({"other": "1"}, InvalidError),
        ({"path_b64": "!"}, InvalidError),
    ],
)
def test_questions_that_make_no_sense_are_refused(
    scan: ArrayFile, place: Place, query: dict[str, str], error: type[DmError]
) -> None:
    where = f"/api/v1/experiments/{place.experiment.uid}/arrays/values"
    asked = {"path_b64": to_b64(b"data/scan.h5"), "name": "/entry/data", **query}
    with pytest.raises(error):
        place.client.http(Service.STORAGE).content(where, query=asked)


def write_bomb(path: Path) -> None:
    """Write a file that names more than there can be: of one dataset the shape, of another the chunk."""
    with h5py.File(path, "w") as file:
        file.create_dataset("shape", (2**40, 2**20), "f8", chunks=(1, 1024))
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((2**31 // 8,))
        plan.set_deflate(1)
        space = h5py.h5s.create_simple((2**31 // 8,), (h5py.h5s.UNLIMITED,))
        made = h5py.h5d.create(file.id, b"chunk", h5py.h5t.NATIVE_DOUBLE, space, dcpl=plan)
        made.write_direct_chunk((0,), b"\x78\x9c" + b"\0" * 100)


def test_what_is_too_large_is_refused_and_costs_nothing(place: Place) -> None:
    write_bomb(place.data / "bomb.h5")
    bomb = place.open("bomb.h5")
    assert dataset(bomb, "shape").shape == (2**40, 2**20)
    assert dataset(bomb, "shape")[2**39, :3].tolist() == [0, 0, 0]
    with pytest.raises(TooLargeError):
        bomb.npy("/shape", "")
    with pytest.raises(InvalidError, match="cannot be read"):
        bomb.npy("/chunk", "0:1")


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\x89HDF\r\n\x1a\n cut", b"II*\0\x08\0\0\0\xff\xff", b"II+\0" + b"\xff" * 60]
)
def test_files_that_are_broken_or_of_other_formats_are_refused(place: Place, content: bytes) -> None:
    (place.data / "broken.h5").write_bytes(content)
    with pytest.raises(InvalidError, match=r"cannot be read|neither HDF5 nor TIFF"):
        place.open("broken.h5")


def test_damaged_files_never_harm_the_service(scan: ArrayFile, place: Place) -> None:
    whole = (place.data / "scan.h5").read_bytes()
    chance = np.random.default_rng(7)
    for number in range(12):
        damaged = bytearray(whole)
        at = int(chance.integers(0, len(whole) if number % 2 else 4096))
        damaged[at : at + 32] = chance.bytes(32)
        (place.data / "damaged.h5").write_bytes(damaged)
        try:
            file = (
                place.open("damaged.h5")
                if not number
                else place.client.files.open("data/damaged.h5", experiment=place.experiment.uid)
            )
            file.tree()
            file.npy("/entry/data", "0")
        except (InvalidError, NotFoundError):
            continue
    assert dataset(scan, "entry/energy")[()] == 12.4


def test_a_reader_that_dies_or_hangs_costs_that_answer_only(place: Place, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["x"] = 1
    readers = ArrayReaders(1, timeout_s=3.0)
    with (tmp_path / "f.h5").open("rb") as opened:
        asked = Opened(opened.fileno(), 1, "1-1-1")
        query = NodeQuery(path="data/f.h5")
        assert readers.node(asked, query).format == "HDF5"
        for number in (signal.SIGKILL, signal.SIGSTOP):
            (process,) = readers._all
            assert process.pid is not None
            os.kill(process.pid, signal.SIGSTOP)
            if number is signal.SIGKILL:
                os.kill(process.pid, number)
            if number is signal.SIGSTOP:
                with pytest.raises(InvalidError, match="took longer than 3 s"):
                    readers.node(asked, query)
            else:
                while process.pid is not None:
                    time.sleep(0.01)
            assert readers.node(asked, query).format == "HDF5"
    readers.close()


def test_older_versions_are_read_where_they_are_kept(place: Place) -> None:
    kept = place.root / ".dm" / "versions" / "data" / "f.h5"
    kept.mkdir(parents=True)
    for path, value in ((kept / "1", 1), (place.data / "f.h5", 2)):
        with h5py.File(path, "w") as file:
            file["x"] = value
    place.register("f.h5")
    file = place.client.files.lookup(place.experiment.uid, [b"data/f.h5"])[0]
    assert dataset(place.client.files.open(file, version=1), "x")[()] == 1
    assert dataset(place.client.files.open(file, version=2), "x")[()] == 2


def test_a_file_that_changed_under_the_reader_is_a_conflict(scan: ArrayFile, place: Place) -> None:
    frames = dataset(scan, "entry/data")
    assert frames[0, 0, 1] == 1
    (place.data / "scan.h5").rename(place.data / "old.h5")
    with h5py.File(place.data / "scan.h5", "w") as file:
        file["entry/data"] = FRAMES + 1
    with pytest.raises(ConflictError, match="open it again"):
        frames[0, 0, 1]


def test_texts_that_are_long_are_read_in_smaller_pieces(place: Place) -> None:
    texts = ["a" * 34_000_000, "b"]
    with h5py.File(place.data / "texts.h5", "w") as file:
        file["texts"] = texts
    found = dataset(place.open("texts.h5"), "texts")
    with pytest.raises(TooLargeError):
        found.file.npy("/texts", "")
    assert found.asstr().tolist() == texts  # type: ignore[union-attr]


def test_a_storage_that_is_not_there_is_unavailable(place: Place, scan: ArrayFile) -> None:
    away = place.root.with_name("away")
    place.root.rename(away)
    where = f"/api/v1/experiments/{place.experiment.uid}/arrays/node"
    status = httpx2.get(
        f"{place.site.urls[Service.STORAGE]}{where}",
        params={"path": "data/scan.h5"},
        headers=place.client.credentials.headers(),
        trust_env=False,
    ).status_code
    away.rename(place.root)
    assert status == 503
    assert scan.tree().nodes


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["data/scan.h5", "data", "data/x"]) | st.text(max_size=20),
    name=st.sampled_from(["/entry/data", "/entry/title", "/"]) | st.text(max_size=20),
    select=st.text(alphabet="0123456789:,.- ", max_size=12) | st.text(max_size=10),
)
def test_no_question_is_a_fault_of_the_service(
    scan: ArrayFile, place: Place, path: str, name: str, select: str
) -> None:
    where = f"/api/v1/experiments/{place.experiment.uid}/arrays/values"
    query = {"path": path, "name": name, "select": select}
    try:
        place.client.http(Service.STORAGE).content(where, query=query)
    except (InvalidError, NotFoundError, TooLargeError):
        return
    assert (path, name) in {("data/scan.h5", "/entry/data"), ("data/scan.h5", "/entry/title")}


def test_what_is_not_installed_is_named_with_what_to_do(
    scan: ArrayFile, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client without numpy, and the service without hdf5plugin."""
    frames = dataset(scan, "entry/data")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "numpy", None)
        with pytest.raises(SettingsError, match=r"beamkeeper\[arrays\]"):
            frames[0]
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['hdf5plugin'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    readers = ArrayReaders(1)
    with (place.data / "scan.h5").open("rb") as opened:
        query = ValuesQuery(path="data/scan.h5", name="/entry/data", select="0")
        with pytest.raises(InvalidError, match=r"bitshuffle, .* lacks: pip install 'beamkeeper\[formats\]'"):
            readers.values(Opened(opened.fileno(), 1, "1-1-1"), query)
    readers.close()


@needs_real_data
def test_a_real_image_of_aps_15_id_is_read(place: Place) -> None:
    shutil.copyfile(REAL / "aps/AgBehenate_228.hdf5", place.data / "image.hdf5")
    file = place.open("image.hdf5")
    image = dataset(file, "entry/data/data")
    with h5py.File(REAL / "aps/AgBehenate_228.hdf5") as real:
        assert np.array_equal(image[100:120, ::5], real["entry/data/data"][100:120, ::5])
    energy = dataset(file, "entry/instrument/monochromator/energy")
    assert float(energy[0]) == pytest.approx(16.9, abs=1e-3)
    assert energy.attrs["units"] == "keV"
    assert dataset(file, "entry/user1/name").asstr() is not None


def test_who_may_read_the_files_may_read_their_arrays_and_nobody_else(scan: ArrayFile, place: Place) -> None:
    choice = {"path": "data/scan.h5", "name": "/entry/energy"}
    strangers = (place.person(None), Place(place.site).person(Role.USER, is_bound=True))
    readers = [place.person(r) for r in (Role.USER, Role.MANAGER, Role.PI, Role.STATION_MANAGER, Role.ADMINISTRATOR)]
    readers += [place.person(Role.USER, is_bound=True), place.site.as_service()]
    viewer, nobody = place.person(Role.STATION_VIEWER), place.site.as_()

    def asked(client: Client) -> list[Callable[[], object]]:
        uid = place.experiment.uid
        return [
            lambda: client.arrays.node(uid, NodeQuery.model_validate(choice)),
            lambda: client.arrays.tree(uid, TreeQuery.model_validate(choice)),
            lambda: client.arrays.values(uid, ValuesQuery.model_validate(choice)),
        ]

    assert all(ask() for reader in readers for ask in asked(reader))
    for client, error in ((viewer, NotPermittedError), (nobody, NotAuthenticatedError)):
        for ask in asked(client):
            with pytest.raises(error):
                ask()
    for stranger in strangers:
        for ask in asked(stranger):
            with pytest.raises(NotFoundError, match="no experiment"):
                ask()
    place.client.experiments.delete(place.experiment.uid)
    for ask in asked(readers[0]):
        with pytest.raises(NotFoundError, match="no experiment"):
            ask()
