"""Metadata on arrival: what files say of themselves, and that no file can harm more than its own metadata."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from pydantic import JsonValue

from beamkeeper.builtin.metadata import MetadataProcessor
from beamkeeper.builtin.worker import ExtractionWorker
from beamkeeper.domain.errors import SettingsError, UnavailableError
from beamkeeper.domain.files import FileKind
from beamkeeper.plugins.api import PROCESSORS, StoredFile
from beamkeeper.plugins.extractors import Recognised
from beamkeeper.plugins.load import build
from beamkeeper.testing.stored import processor_context, stored_file

REAL = Path(os.environ.get("BEAMKEEPER_REAL_DATA", Path(__file__).parents[3] / "shared/data/real"))
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"there are no real files in {REAL}")

Make = Callable[..., MetadataProcessor]


@pytest.fixture
def make() -> Iterator[Make]:
    """Build processors by their entry point; their processes end with the test."""
    made: list[MetadataProcessor] = []

    def build_one(**options: object) -> MetadataProcessor:
        made.append(build(PROCESSORS, "metadata", options))
        return made[-1]

    yield build_one
    for processor in made:
        processor.worker.close()
        processor.helpers.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[MetadataProcessor]:
    """A processor for tests that do nothing to its process."""
    processor = build(PROCESSORS, "metadata", {})
    yield processor
    processor.worker.close()


def found(processor: MetadataProcessor, path: Path | StoredFile) -> Mapping[str, Any]:
    """Return the metadata of one file, which must not have failed."""
    file = stored_file(path) if isinstance(path, Path) else path
    (answer,) = processor.process([file], processor_context())
    assert answer.error == ""
    assert answer.version_uid == file.new.version_uid
    json.dumps(answer.metadata, allow_nan=False).encode("utf-8")
    return answer.metadata


def reason(processor: MetadataProcessor, path: Path) -> str:
    """Return why there are no metadata of a file."""
    metadata = found(processor, path)
    assert list(metadata) == ["extraction"]
    return str(metadata["extraction"]["error"])


@needs_real_data
def test_an_image_of_aps_15_id_tells_its_energy_user_and_proposal(shared: MetadataProcessor) -> None:
    metadata = found(shared, REAL / "aps/AgBehenate_228.hdf5")
    assert metadata["format"] == "NeXus"
    assert metadata["energy"]["value"] == pytest.approx(16.9, abs=0.001)
    assert metadata["energy"]["unit"] == "keV"
    assert metadata["wavelength"] == {"value": pytest.approx(0.7336, abs=0.0001), "unit": "A"}
    assert (metadata["user"], metadata["proposal"], metadata["cycle"]) == ("Dale Schaefer", "GUP26110", "2011-10")
    assert (metadata["definition"], metadata["instrument"]) == ("NXsas", "USAXS")
    assert metadata["sample"] == {"name": "Glassy carbon C6 fixed"}
    assert (metadata["detectors"], metadata["distance"]) == (["Pilatus 100K"], {"value": 513.8, "unit": None})
    assert "derived" not in metadata, "what the file says goes before what follows from it"
    assert metadata["datasets"] == [{"path": "/entry/data/data", "shape": [195, 487], "dtype": "int32"}]
    assert "start_time" not in metadata, "an empty text says nothing"


@needs_real_data
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "aps/ID34_not_complete.h5",
            {"source": "APS", "beamline": "34ID-E", "energy": {"value": pytest.approx(24.74, abs=0.001), "unit": None}},
        ),
        ("aps/nexus-example.hdf5", {"title": "NeXus NXsas example", "start_time": "2016-06-23T12:02:31-06:00"}),
        (
            "dls/Therm_6_2.nxs",
            {
                "instrument": "I04",
                "detectors": ["Eiger 16M"],
                "wavelength": {"value": pytest.approx(0.98027, abs=1e-5), "unit": "angstrom"},
                "energy": {"value": pytest.approx(12.648, abs=1e-3), "unit": "keV"},
                "exposure_time": {"value": 0.008, "unit": None},
                "external_files": ["Therm_6_2_000001.h5"],
            },
        ),
        ("dls/p45-1168.nxs", {"detectors": ["mic"], "external_files": ["p45-1168-mic.hdf5"]}),
        (
            "ipns/lrcs3701.nx5",
            {"instrument": "LRMECS", "user": "EAG/RO", "energy": {"value": 130.0, "unit": "meV"}},
        ),
        (
            "sls/Focus_2021-03-16_051.hdf5",
            {"definition": "NXstxm", "energy": {"value": pytest.approx(715.009, abs=0.001), "unit": "eV"}},
        ),
    ],
)
def test_real_nexus_files_of_four_facilities_are_read(
    shared: MetadataProcessor, name: str, expected: Mapping[str, object]
) -> None:
    metadata = found(shared, REAL / name)
    assert {key: metadata[key] for key in expected} == expected
    assert metadata["format"] == "NeXus"
    assert "extraction" not in metadata


def test_extractors_that_are_not_wanted_are_not_used(tmp_path: Path, make: Make) -> None:
    processor = make(without=["text"])
    (tmp_path / "log.txt").write_text("energy: 12")
    assert found(processor, tmp_path / "log.txt") == {}
    assert processor.worker.pid is None, "no process is started for it"


def write_nexus(path: Path, **entry: object) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("entry")
        group.attrs["NX_class"] = "NXentry"
        for name, value in entry.items():
            group[name] = value


def test_the_rings_energy_is_not_the_beams(tmp_path: Path, shared: MetadataProcessor) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["entry/instrument/source/energy"] = 7.0
        file["entry/instrument/source/energy"].attrs["units"] = "GeV"
    assert "energy" not in found(shared, tmp_path / "f.h5")
    with h5py.File(tmp_path / "f.h5", "a") as file:
        file["entry/instrument/monochromator/energy"] = np.array([[8.05]], dtype="f4")
        file["entry/instrument/monochromator/energy"].attrs["units"] = np.array(["keV"], dtype="S3")
    assert found(shared, tmp_path / "f.h5")["energy"] == {"value": pytest.approx(8.05), "unit": "keV"}


def test_values_are_made_safe_to_keep(tmp_path: Path, shared: MetadataProcessor) -> None:
    write_nexus(
        tmp_path / "f.nxs", title=np.bytes_(b"10 \xb5m\x00 pinhole"), start_time="x" * 100_000, energy=float("nan")
    )
    metadata = found(shared, tmp_path / "f.nxs")
    assert metadata == {
        "format": "NeXus",
        "title": "10 \u00b5m\x00 pinhole".replace("\x00", ""),
        "start_time": "x" * 2000,
    }


def test_a_file_cannot_show_another_file(tmp_path: Path, shared: MetadataProcessor) -> None:
    """External links, external storage and virtual datasets would read whatever the service may read."""
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["value"] = np.bytes_(b"secret!!")
    (tmp_path / "secret.txt").write_bytes(b"secret!!")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        entry = file.create_group("entry")
        entry["definition"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/value")
        entry["start_time"] = h5py.SoftLink("/entry/definition")
        entry.create_dataset("title", (1,), "S8", external=[(str(tmp_path / "secret.txt"), 0, 8)])
        layout = h5py.VirtualLayout((1,), "S8")
        layout[0] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "value", shape=())
        entry.create_virtual_dataset("end_time", layout)
        assert (entry["title"][0], entry["definition"][()]) == (b"secret!!", b"secret!!")
    metadata = found(shared, tmp_path / "f.h5")
    assert "secret!!" not in str(metadata)
    assert metadata == {"format": "HDF5", "external_files": [str(tmp_path / "secret.h5")]}


def test_the_files_that_a_virtual_dataset_is_made_of_are_named(tmp_path: Path, shared: MetadataProcessor) -> None:
    with h5py.File(tmp_path / "f.h5", "w", libver="latest") as file:
        layout = h5py.VirtualLayout((3, 8), "u2")
        for number in range(3):
            layout[number] = h5py.VirtualSource(f"part_{number}.h5" if number else ".", "data", shape=(8,))
        file.create_virtual_dataset("entry/data", layout)
    assert found(shared, tmp_path / "f.h5")["external_files"] == ["part_1.h5", "part_2.h5"]


def test_a_file_does_not_make_us_open_another_for_its_shape(tmp_path: Path, shared: MetadataProcessor) -> None:
    os.mkfifo(tmp_path / "fifo")  # who opens it waits for ever
    with h5py.File(tmp_path / "f.h5", "w", libver="latest") as file:
        layout = h5py.VirtualLayout((4, 8), "i8", maxshape=(None, 8))
        part = h5py.VirtualSource(str(tmp_path / "fifo"), "d", shape=(4, 8), maxshape=(None, 8))
        layout[0 : h5py.h5s.UNLIMITED, :] = part[0 : h5py.h5s.UNLIMITED, :]
        file.create_virtual_dataset("growing", layout)
    assert found(shared, tmp_path / "f.h5") == {"format": "HDF5", "external_files": [str(tmp_path / "fifo")]}


def test_more_files_than_can_be_named_are_counted(tmp_path: Path, shared: MetadataProcessor) -> None:
    with h5py.File(tmp_path / "f.h5", "w", libver="latest") as file:
        for number in range(1500):
            file[f"entry/data_{number:06}"] = h5py.ExternalLink(f"scan_{number:06}_data.h5", "/data")
    metadata = found(shared, tmp_path / "f.h5")
    assert len(metadata["external_files"]) + metadata["external_files_unread"] == 1500
    assert len(metadata["external_files"]) > 1000


def test_a_huge_file_is_read_in_part_and_its_upper_levels_first(tmp_path: Path, shared: MetadataProcessor) -> None:
    with h5py.File(tmp_path / "f.h5", "w", libver="latest") as file:
        file["entry/zz_title"] = h5py.SoftLink("/entry/title")
        for number in range(4000):
            file.create_group(f"a{number % 4}/g{number}/below")
        file["entry/title"] = "found"
        file["entry/data"] = np.zeros((3, 500))
        file["entry/loop"] = file["entry"]
    metadata = found(shared, tmp_path / "f.h5")
    assert metadata["title"] == "found"
    assert metadata["datasets"] == [{"path": "/entry/data", "shape": [3, 500], "dtype": "float64"}]


def test_a_snapshot_of_a_file_that_is_written_with_swmr_is_read(tmp_path: Path, shared: MetadataProcessor) -> None:
    with h5py.File(tmp_path / "live.h5", "w", libver="latest") as file:
        file["entry/title"] = "growing"
        frames = file.create_dataset("entry/data", (0, 10, 10), "u2", maxshape=(None, 10, 10), chunks=(1, 10, 10))
        frames.attrs["signal"] = 1
        file.swmr_mode = True
        frames.resize(5, axis=0)
        frames.flush()
        (tmp_path / "snapshot.h5").write_bytes((tmp_path / "live.h5").read_bytes())
        for path in (tmp_path / "live.h5", tmp_path / "snapshot.h5"):
            metadata = found(shared, path)
            assert metadata["title"] == "growing"
            assert metadata["datasets"] == [{"path": "/entry/data", "shape": [5, 10, 10], "dtype": "uint16"}]


@pytest.mark.parametrize("name", ["f.h5", "f.nxs", "f.tif", "F.TIFF"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "empty"), (b"\0" * 5000, "cannot be read"), (b"\x89HDF\r\n\x1a\n cut", "cannot be read")],
)
def test_a_broken_file_gives_the_reason(
    tmp_path: Path, shared: MetadataProcessor, name: str, content: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert expected in reason(shared, tmp_path / name)


def test_a_damaged_part_costs_that_part_only(tmp_path: Path, shared: MetadataProcessor) -> None:
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file["entry/title"] = "still here"
        file["entry/sample/name"] = "lost"
        where = h5py.h5o.get_info(file["entry/sample/name"].id).addr
    content = bytearray((tmp_path / "whole.h5").read_bytes())
    content[where : where + 64] = b"\xff" * 64
    (tmp_path / "damaged.h5").write_bytes(content)
    metadata = found(shared, tmp_path / "damaged.h5")
    assert metadata["title"] == "still here"
    assert metadata["extraction"]["error"] == "1 objects in the file cannot be read"


def test_a_tiff_of_areadetector_tells_its_frame_and_attributes(tmp_path: Path, shared: MetadataProcessor) -> None:
    path = tmp_path / "frame.tif"
    tifffile.imwrite(
        path,
        np.zeros((64, 48), dtype="u2"),
        description="Exposure: 0.1\nGain = 4\nComment: two words\nno pair here",
        software="EPICS areaDetector",
        datetime="2026:03:01 12:00:00",
        metadata=None,
        extratags=[
            (65001, "I", 1, 77, True),
            (65010, "s", 0, "Energy:11.2", True),
            (65011, "s", 0, "SampleName:Ag:Behenate", True),
        ],
    )
    metadata = found(shared, path)
    assert metadata == {
        "format": "TIFF",
        "shape": [64, 48],
        "dtype": "uint16",
        "pages": 1,
        "description": "Exposure: 0.1\nGain = 4\nComment: two words\nno pair here",
        "software": "EPICS areaDetector",
        "datetime": "2026:03:01 12:00:00",
        "energy": {"value": 11.2, "unit": None},
        "exposure_time": {"value": 0.1, "unit": None},
        "sample": {"name": "Ag:Behenate"},
        "attributes": {
            "Exposure": 0.1,
            "Gain": 4,
            "Comment": "two words",
            "NDUniqueId": 77,
            "Energy": 11.2,
            "SampleName": "Ag:Behenate",
        },
    }


def test_a_stack_of_images_tells_its_pages(tmp_path: Path, shared: MetadataProcessor) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((5, 8, 9), dtype="f4"), bigtiff=True)
    metadata = found(shared, tmp_path / "stack.tif")
    assert (metadata["shape"], metadata["pages"], metadata["dtype"]) == ([8, 9], 5, "float32")
    assert "attributes" not in metadata, "a description that is JSON has no pairs"


def test_names_that_are_not_text_are_read(tmp_path: Path, shared: MetadataProcessor) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n$(id)")
    write_nexus(Path(odd + ".h5"), title="t")
    tifffile.imwrite(odd + ".tif", np.zeros((4, 4)))
    assert found(shared, Path(odd + ".h5"))["format"] == "NeXus"
    assert found(shared, Path(odd + ".tif"))["format"] == "TIFF"


def test_links_files_elsewhere_and_other_formats_are_passed_over(tmp_path: Path, make: Make) -> None:
    processor = make()
    (tmp_path / "log.bin").write_text("energy: 12")
    (tmp_path / "link.h5").symlink_to("/nowhere")
    os.mkfifo(tmp_path / "pipe.h5")
    assert found(processor, tmp_path / "log.bin") == {}
    assert found(processor, tmp_path / "pipe.h5") == {}
    assert found(processor, stored_file(tmp_path / "link.h5", kind=FileKind.LINK)) == {}
    assert found(processor, stored_file(tmp_path / "gone.h5", is_local=False)) == {}
    assert processor.worker.pid is None


def test_what_people_gave_is_never_overwritten(tmp_path: Path, shared: MetadataProcessor) -> None:
    write_nexus(tmp_path / "f.nxs", title="the file's", definition="NXsas")
    given: dict[str, JsonValue] = {"title": "mine", "sample": {"name": "x"}}
    assert found(shared, stored_file(tmp_path / "f.nxs", metadata=given)) == {"format": "NeXus", "definition": "NXsas"}


def test_a_file_that_is_gone_gives_the_reason(tmp_path: Path, shared: MetadataProcessor) -> None:
    assert "No such file" in reason(shared, tmp_path / "gone.h5")


def test_many_at_once_say_what_each_says_alone(tmp_path: Path, make: Make) -> None:
    processor = make()
    names = [b"\xff.txt", *(f"{number:03d}.{end}".encode() for number in range(30) for end in ("txt", "tif", "dat"))]
    paths = [Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))) for name in names]
    for path in paths:
        path.write_bytes(b"energy: 12.4\n1 2 3\n" if path.suffix == ".txt" else b"\0noise")
    paths[4].unlink()
    files = [stored_file(path) for path in paths]
    together = [answer.metadata for answer in processor.process(files, processor_context())]
    assert together == [found(processor, file) for file in files]
    assert together[0]["energy"] == {"value": 12.4, "unit": None}
    assert "error" in str(together[2]["extraction"])
    assert together[3] == {}


def test_a_stop_ends_the_batch(tmp_path: Path, shared: MetadataProcessor) -> None:
    (tmp_path / "f.txt").touch()
    with pytest.raises(UnavailableError, match="taken again later"):
        shared.process([stored_file(tmp_path / "f.txt")], processor_context(stop=lambda: True))


def wait_until(claim: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    """Wait until a claim is true; fail where it never is."""
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_reader_that_dies_between_files_is_started_again(tmp_path: Path, make: Make) -> None:
    processor = make()
    write_nexus(tmp_path / "f.nxs", title="t")
    assert found(processor, tmp_path / "f.nxs")["title"] == "t"
    pid = processor.worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: processor.worker.pid is None)
    assert found(processor, tmp_path / "f.nxs")["title"] == "t"


def test_a_reader_that_dies_on_a_file_costs_that_file_only(tmp_path: Path, make: Make) -> None:
    processor = make()
    write_nexus(tmp_path / "f.nxs", title="t")
    found(processor, tmp_path / "f.nxs")
    pid = processor.worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # it holds the file, and is killed there
    killer = threading.Timer(0.2, os.kill, (pid, signal.SIGKILL))
    killer.start()
    assert (
        reason(processor, tmp_path / "f.nxs") == "HDF5 cannot be read: the reading process ended on this file: SIGKILL"
    )
    killer.join()
    assert found(processor, tmp_path / "f.nxs")["title"] == "t"


def test_a_reader_that_hangs_is_killed_and_replaced(tmp_path: Path, make: Make) -> None:
    processor = make(timeout_s=3)
    write_nexus(tmp_path / "f.nxs", title="t")
    found(processor, tmp_path / "f.nxs")
    pid = processor.worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    assert reason(processor, tmp_path / "f.nxs") == "HDF5 cannot be read: reading the file took longer than 3 s"
    assert not is_alive(pid)
    assert found(processor, tmp_path / "f.nxs")["title"] == "t"


def deflated_zeros(mib: int) -> bytes:
    """Return what zlib would make of many zeros, without compressing them all."""
    squeeze = zlib.compressobj(wbits=-15)
    block = squeeze.compress(bytes(1024**2)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    adler32 = (mib * 1024**2 % 65521) << 16 | 1
    return b"\x78\x9c" + block * mib + b"\x03\x00" + adler32.to_bytes(4, "big")


def test_a_file_that_wants_too_much_memory_costs_that_part_only(tmp_path: Path) -> None:
    """The one value is in a chunk of 1 GiB, which the library must have in memory to give it."""
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file["entry/definition"] = "NXbomb"
        chunk = (1024**3 // 64,)
        title = file.create_dataset("entry/title", (1,), "S64", maxshape=(None,), chunks=chunk, compression="gzip")
        title.id.write_direct_chunk((0,), deflated_zeros(1024))
    worker = ExtractionWorker(timeout_s=60, idle_s=60, max_answer_bytes=10_000, memory_bytes=768 * 1024**2)
    metadata = worker.extract(Recognised("hdf5", "HDF5"), os.fsencode(tmp_path / "bomb.h5"))
    assert metadata["extraction"] == {"error": "1 objects in the file cannot be read"}
    assert metadata["definition"] == "NXbomb"
    worker.close()


def test_an_idle_reader_ends(tmp_path: Path, make: Make) -> None:
    processor = make(idle_s=0.2)
    write_nexus(tmp_path / "f.nxs", title="t")
    found(processor, tmp_path / "f.nxs")
    wait_until(lambda: processor.worker.pid is None)
    assert found(processor, tmp_path / "f.nxs")["title"] == "t"


@pytest.mark.parametrize("end", ["sys.exit()", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_the_reader_ends_with_the_service(tmp_path: Path, end: str) -> None:
    write_nexus(tmp_path / "f.nxs", title="t")
    code = f"""
import os, signal, sys
from beamkeeper.plugins.extractors import Recognised
from beamkeeper.builtin.worker import ExtractionWorker
worker = ExtractionWorker(timeout_s=30, idle_s=300, max_answer_bytes=10000)
print(worker.extract(Recognised("hdf5", "HDF5"), os.fsencode(sys.argv[1]))["title"], worker.pid, flush=True)
{end}
"""
    argv = [sys.executable, "-c", code, str(tmp_path / "f.nxs")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    title, pid = done.stdout.split()
    assert title == "t"
    wait_until(lambda: not is_alive(int(pid)))


def test_several_threads_share_one_reader(tmp_path: Path, make: Make) -> None:
    processor = make()
    for number in range(12):
        write_nexus(tmp_path / f"{number}.nxs", title=f"title {number}")
    titles: dict[int, object] = {}

    def work(first: int) -> None:
        for number in range(first, 12, 4):
            titles[number] = found(processor, tmp_path / f"{number}.nxs")["title"]

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert titles == {number: f"title {number}" for number in range(12)}


def test_an_answer_beyond_the_limit_is_refused(tmp_path: Path, make: Make) -> None:
    processor = make(max_output_bytes=1024)
    write_nexus(tmp_path / "f.nxs", title="t" * 1500)
    assert reason(processor, tmp_path / "f.nxs") == "HDF5 cannot be read: the answer is larger than 1024 bytes"
    write_nexus(tmp_path / "f.nxs", title="short")
    assert found(processor, tmp_path / "f.nxs")["title"] == "short"


def test_a_secret_of_the_service_does_not_reach_the_reader(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEAMKEEPER_STORAGE_KEY", "hunter2")
    processor = make()
    write_nexus(tmp_path / "f.nxs", title="t")
    found(processor, tmp_path / "f.nxs")
    assert b"hunter2" not in Path(f"/proc/{processor.worker.pid}/environ").read_bytes()
    assert isinstance(processor.worker, ExtractionWorker)


def program(tmp_path: Path, body: str) -> Path:
    """Write a beamline's own program."""
    path = tmp_path / "program"
    path.write_text(f"#!{sys.executable}\nimport json, os, subprocess, sys, time\n{body}\n")
    path.chmod(0o700)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "-rf $(id) image.raw"
    path.write_bytes(b"raw")
    return path


def test_an_own_program_may_print_lines(tmp_path: Path, make: Make, image: Path) -> None:
    body = "print('file:', os.path.basename(sys.argv[1]))\nprint('energy: 16.9\\nframes=12\\ncount: 1e3\\n\\nnonsense')"
    processor = make(executable=str(program(tmp_path, body)))
    assert found(processor, image) == {"file": "-rf $(id) image.raw", "energy": 16.9, "frames": 12, "count": 1000.0}


def test_an_own_program_may_print_json(tmp_path: Path, make: Make, image: Path) -> None:
    printed = (
        r'{"energy": {"value": 16.9, "unit": "keV"}, "bad": NaN, "big": 9007199254740993, "text": "a\u0000\ud800b"}'
    )
    body = f"print({printed!r})"
    assert found(make(executable=str(program(tmp_path, body))), image) == {
        "energy": {"value": 16.9, "unit": "keV"},
        "bad": None,
        "big": "9007199254740993",
        "text": "a?b",
    }


def test_an_own_program_has_no_more_memory_than_it_may(tmp_path: Path, make: Make, image: Path) -> None:
    body = "time.sleep(0.2)\ntry:\n    bytearray(1024**3)\nexcept MemoryError:\n    sys.exit('out of memory')"
    processor = make(executable=str(program(tmp_path, body)), memory_bytes=512 * 1024**2)
    assert "ended with status 1: out of memory" in reason(processor, image)


def test_an_own_program_has_the_last_word_over_the_file(tmp_path: Path, make: Make) -> None:
    write_nexus(tmp_path / "f.nxs", title="the file's", definition="NXsas")
    processor = make(executable=str(program(tmp_path, "print('title: the program')")))
    assert found(processor, tmp_path / "f.nxs") == {"format": "NeXus", "title": "the program", "definition": "NXsas"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("sys.exit('no such detector')", "ended with status 1: no such detector"),
        ("print('{broken')", "its output is not JSON"),
        ("print('{\"a\":' * 10000)", "its output is not JSON"),
        ("print('x: ' + 'y' * 100000)", "it printed too much"),
        ("os.kill(os.getpid(), 9)", "ended with status -9: it printed no reason"),
    ],
)
def test_an_own_program_that_fails_gives_the_reason(
    tmp_path: Path, make: Make, image: Path, body: str, expected: str
) -> None:
    assert expected in reason(make(executable=str(program(tmp_path, body)), max_output_bytes=60_000), image)


@pytest.mark.parametrize(
    "body", ["time.sleep(100)", "while True: sys.stderr.write('x' * 1000)", "os.close(1); os.close(2); time.sleep(100)"]
)
def test_an_own_program_that_does_not_end_is_ended(tmp_path: Path, make: Make, image: Path, body: str) -> None:
    assert "it took too long" in reason(make(executable=str(program(tmp_path, body)), timeout_s=0.3), image)


def test_an_own_program_that_takes_too_long_is_killed_with_its_children(
    tmp_path: Path, make: Make, image: Path
) -> None:
    pids = tmp_path / "pids"
    body = f"""
child = subprocess.Popen(["sleep", "100"])
with open({str(pids)!r}, "w") as file:
    file.write(f"{{os.getpid()}} {{child.pid}}")
time.sleep(100)
"""
    processor = make(executable=str(program(tmp_path, body)), timeout_s=2.0)
    assert "it took too long" in reason(processor, image)
    for pid in pids.read_text().split():
        wait_until(lambda pid=pid: not is_alive(int(pid)))  # type: ignore[misc]


def test_an_own_program_gets_nothing_of_the_services_environment(
    tmp_path: Path, make: Make, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEAMKEEPER_STORAGE_KEY", "hunter2")
    processor = make(executable=str(program(tmp_path, "print(json.dumps({'names': sorted(os.environ)}))")))
    assert set(found(processor, image)["names"]) <= {"HOME", "LANG", "LC_CTYPE", "PATH"}


@pytest.mark.parametrize("name", ["missing", "directory", "not-executable", "relative"])
def test_a_program_that_cannot_be_run_is_refused_at_the_start(tmp_path: Path, make: Make, name: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "not-executable").touch(0o600)
    executable = "program" if name == "relative" else str(tmp_path / name)
    with pytest.raises(SettingsError, match='setting "executable" is wrong'):
        make(executable=executable)


def test_an_unknown_setting_is_named(make: Make) -> None:
    with pytest.raises(SettingsError, match='setting "timeout" is wrong'):
        make(timeout=3)
