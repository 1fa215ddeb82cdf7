"""Every shipped extractor: what it finds in whole files, and that it passes the suite that all extractors must."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fabio
import h5py
import numpy as np
import pytest
import tifffile

from beamkeeper.builtin.worker import ExtractionWorker
from beamkeeper.plugins.extractors import EXTRACTORS, ExtractionError, Format, Recognised, recognise, shipped
from beamkeeper.plugins.load import installed
from beamkeeper.testing.extraction import ExtractorConformance, Sample

REAL = Path(os.environ.get("BEAMKEEPER_REAL_DATA", Path(__file__).parents[3] / "shared/data/real"))
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"there are no real files in {REAL}")

KEV = {"value": 12.4, "unit": "keV"}


class TestHDF5(ExtractorConformance):
    name = "hdf5"

    @pytest.fixture(scope="class")
    @classmethod
    def samples(cls, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Sample]:
        path = tmp_path_factory.mktemp("hdf5") / "scan.nxs"
        with h5py.File(path, "w", userblock_size=512) as file:
            for group, nexus in (("entry", "NXentry"), ("entry/instrument", "NXinstrument")):
                file.create_group(group).attrs["NX_class"] = nexus
            file["entry/instrument/detector/count_time"] = 0.5
            file["entry/instrument/detector/count_time"].attrs["units"] = "s"
            file["entry/instrument/source/probe"] = "x-ray"
            file["entry/instrument/beam/incident_wavelength"] = 1.0
            file["entry/instrument/beam/incident_wavelength"].attrs["units"] = "angstrom"
            file["entry/data"] = np.zeros((3, 4, 50), "u2")
        wave, energy = {"value": 1.0, "unit": "angstrom"}, {"value": 12.3984198, "unit": "keV"}
        expected = {"format": "NeXus", "wavelength": wave, "energy": energy, "derived": ["energy"]}
        return [Sample(path, {**expected, "exposure_time": {"value": 0.5, "unit": "s"}})]


class TestTIFF(ExtractorConformance):
    name = "tiff"

    @pytest.fixture(scope="class")
    @classmethod
    def samples(cls, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Sample]:
        directory = tmp_path_factory.mktemp("tiff")
        tifffile.imwrite(directory / "a.tif", np.zeros((4, 6), "u2"), description="Energy (keV): 12.4", metadata=None)
        pilatus = (
            "# Pixel_size 172e-6 m x 172e-6 m\n# 2010/Nov/29 16:13:40.235\n# Exposure_time 0.5 s\n# Wavelength 1 A"
        )
        tifffile.imwrite(directory / "b.tiff", np.zeros((4, 6), "i4"), description=pilatus, metadata=None)
        half = {"value": 0.5, "unit": "s"}
        return [
            Sample(directory / "a.tif", {"format": "TIFF", "shape": [4, 6], "energy": KEV}),
            Sample(directory / "b.tiff", {"start_time": "2010-11-29T16:13:40.235", "exposure_time": half}),
        ]


PILATUS = "\r\n".join(
    (
        "# Detector: PILATUS 2M, S/N 24-0107",
        "# 2010-Nov-29T16:13:40.235",
        "# Exposure_time 0.098 s",
        "# Wavelength 0.9762 A",
        "# Detector_distance 0.2 m",
        "# Beam_xy (1231.50, 1263.50) pixels",
    )
)


class TestCBF(ExtractorConformance):
    name = "cbf"

    @pytest.fixture(scope="class")
    @classmethod
    def samples(cls, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Sample]:
        path = tmp_path_factory.mktemp("cbf") / "a.cbf"
        contents = {"_array_data.header_convention": "PILATUS_1.2", "_array_data.header_contents": PILATUS}
        fabio.cbfimage.CbfImage(data=np.zeros((5, 7), "i4"), header=contents).write(str(path))
        cbf = {
            "format": "CBF",
            "shape": [5, 7],
            "dtype": "int32",
            "detectors": ["PILATUS 2M, S/N 24-0107"],
            "start_time": "2010-11-29T16:13:40.235",
            "exposure_time": {"value": 0.098, "unit": "s"},
            "wavelength": {"value": 0.9762, "unit": "A"},
            "energy": {"value": 12.7006964, "unit": "keV"},
            "distance": {"value": 0.2, "unit": "m"},
        }
        return [Sample(path, cbf)]


def marccd(path: Path) -> None:
    """Write a TIFF with the header that MarCCD puts between its own and the pixels."""
    header = bytearray(3072)
    header[4:7] = b"MMX"
    struct.pack_into("<I", header, 28, 1234)
    struct.pack_into("<II", header, 80, 4, 3)
    content = bytearray(4096 + 24)
    content[:8] = b"II*\0\x08\0\0\0"
    tags = ((256, 4), (257, 3), (258, 16), (273, 4096), (277, 1), (278, 3), (279, 24))
    struct.pack_into("<H", content, 8, len(tags))
    for number, (tag, value) in enumerate(tags):
        struct.pack_into("<HHII", content, 10 + 12 * number, tag, 4, 1, value)
    content[1024:4096] = header
    path.write_bytes(content)


class TestImages(ExtractorConformance):
    name = "images"

    @pytest.fixture(scope="class")
    @classmethod
    def samples(cls, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Sample]:
        directory = tmp_path_factory.mktemp("images")
        header: dict[str, Any] = {"title": "AgBeh", "Energy": "12.4 keV", "WaveLength": "1e-10", "SampleName": "Ag"}
        fabio.edfimage.EdfImage(data=np.zeros((5, 7), "u2"), header=header).write(str(directory / "a.edf"))
        adsc = "{\nHEADER_BYTES=  512;\nDIM=2;\nTYPE=unsigned_short;\nSIZE1=4;\nSIZE2=3;\nWAVELENGTH=0.9;\nTIME=2;\n}\n"
        (directory / "a.img").write_bytes(adsc.encode().ljust(512) + bytes(24))
        marccd(directory / "a.mccd")
        size = {"shape": [5, 7], "frames": 1}
        wave, sample = {"value": 1e-10, "unit": "m"}, {"name": "Ag"}
        edf = {
            "format": "EDF",
            "title": "AgBeh",
            "energy": KEV,
            "wavelength": wave,
            "sample": sample,
            "dtype": "uint16",
        }
        time = {"value": 2, "unit": "s"}
        return [
            Sample(directory / "a.edf", {**edf, **size}),
            Sample(directory / "a.img", {"format": "ADSC", "shape": [3, 4], "exposure_time": time}),
            Sample(directory / "a.mccd", {"format": "MarCCD", "shape": [3, 4]}),
        ]


SPEC = """#F /home/user/si.dat
#E 1109700000
#D Tue Mar 01 12:00:00 2005
#C silicon 111  User = specadm
#O0 Two Theta     Theta  Energy
#o0 tth th en

#S 1  ascan  th 1 2 1 0.5
#D Tue Mar 01 12:00:10 2005
#T 0.5  (Seconds)
#P0 20.5 10.25 12.4
#N 3
#L Theta  Ion Chamber  Detector
1 100 5
2 101 6

#S 2  loopscan 2 1
#D Tue Mar 01 12:05:00 2005
#P0 1 2 3
#L Time  Detector
0 5
"""


class TestSpec(ExtractorConformance):
    name = "spec"

    @pytest.fixture(scope="class")
    @classmethod
    def samples(cls, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Sample]:
        path = tmp_path_factory.mktemp("spec") / "si.dat"
        path.write_text(SPEC)
        scans = [{"number": 1, "command": "ascan  th 1 2 1 0.5"}, {"number": 2, "command": "loopscan 2 1"}]
        expected = {
            "format": "SPEC",
            "title": "silicon 111",
            "user": "specadm",
            "start_time": "2005-03-01T18:00:00+00:00",
            "end_time": "2005-03-01T12:05:00",
            "scan_count": 2,
            "scans": scans,
            "positions": {"Two Theta": 20.5, "Theta": 10.25, "Energy": 12.4},
            "counters": ["Theta", "Ion Chamber", "Detector", "Time"],
            "exposure_time": {"value": 0.5, "unit": "s"},
        }
        return [Sample(path, expected)]


def xdr(*values: str | int | float) -> bytes:
    """Return values as MDA has them: a text with its length twice."""
    written = b""
    for value in values:
        if isinstance(value, str):
            raw = value.encode()
            written += struct.pack(">i", len(raw))
            written += struct.pack(">i", len(raw)) + raw + bytes(-len(raw) % 4) if raw else b""
        else:
            written += struct.pack(">f" if isinstance(value, float) else ">i", value)
    return written


def mda(path: Path) -> None:
    positioner = xdr(0, "x:m1.VAL", "sample x", "LINEAR", "mm", "x:m1.RBV", "", "mm")
    scan = xdr(1, 5, 5, "x:scan1", "Mar 01, 2026 12:00:00.250000", 1, 1, 1) + positioner
    scan += xdr(0, "x:scaler1.S2", "ion chamber", "cts") + xdr(0, "x:scaler1.CNT", 1.0)
    body = scan + bytes(5 * 8 + 5 * 4)
    pvs = xdr(3, "x:mono.E", "photon energy", 34, 1, "keV") + struct.pack(">d", 12.4)
    pvs += xdr("x:sample", "sample name", 0, "Ag") + xdr("x:list", "", 33, 2, "", 4, 5)
    head = xdr(1.4, 17, 1, 5, 1)
    path.write_bytes(head + xdr(len(head) + 4 + len(body)) + body + pvs)


class TestMDA(ExtractorConformance):
    name = "mda"

    @pytest.fixture(scope="class")
    @classmethod
    def samples(cls, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Sample]:
        path = tmp_path_factory.mktemp("mda") / "x_0017.mda"
        mda(path)
        moved = {"name": "x:m1.VAL", "description": "sample x", "unit": "mm", "readback": "x:m1.RBV"}
        expected = {
            "format": "MDA",
            "run": "17",
            "shape": [5],
            "start_time": "2026-03-01T12:00:00.250000",
            "positioners": [moved],
            "counters": [{"name": "x:scaler1.S2", "description": "ion chamber", "unit": "cts"}],
            "energy": KEV,
            "sample": {"name": "Ag"},
            "pvs": {"x:mono.E": KEV, "x:sample": "Ag", "x:list": [4, 5]},
        }
        return [Sample(path, expected)]


class TestText(ExtractorConformance):
    name = "text"

    @pytest.fixture(scope="class")
    @classmethod
    def samples(cls, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Sample]:
        path = tmp_path_factory.mktemp("text") / "scan.txt"
        path.write_text("# Sample name: Ag\n# Energy = 12.4 keV\n# Exposure [s]: 2\nTitle: caf\u00e9\n1.0 2.0\nx: 5\n")
        expected = {
            "format": "text",
            "title": "caf\u00e9",
            "energy": KEV,
            "sample": {"name": "Ag"},
            "exposure_time": {"value": 2, "unit": "s"},
        }
        return [Sample(path, expected)]


class TestHDF4(ExtractorConformance):
    name = "hdf4"

    @pytest.fixture(scope="class")
    @classmethod
    def samples(cls, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Sample]:
        from pyhdf.SD import SD, SDC

        path = tmp_path_factory.mktemp("hdf4") / "frame.hdf"
        file = SD(str(path), SDC.WRITE | SDC.CREATE)
        file.file_time = "2003-04-15 16:39:47-0600"
        energy = file.create("energy", SDC.FLOAT64, (1,))
        energy[0] = 12.4
        energy.units = "keV"
        energy.endaccess()
        image = file.create("data", SDC.UINT16, (4, 6))
        image[:] = np.zeros((4, 6), "u2")
        image.endaccess()
        file.end()
        listed = [{"path": "data", "shape": [4, 6], "dtype": "uint16"}]
        return [Sample(path, {"format": "HDF4", "energy": KEV, "datasets": listed})]


@pytest.fixture(scope="module")
def reading() -> Any:
    worker = ExtractionWorker(timeout_s=30, idle_s=60, max_answer_bytes=65536)
    yield worker
    worker.close()


def metadata(worker: ExtractionWorker, path: Path) -> Mapping[str, Any]:
    known = recognise(os.fsencode(path), shipped())
    assert known is not None
    return worker.extract(known, os.fsencode(path))


@needs_real_data
def test_a_real_mda_file_tells_its_scan(reading: ExtractionWorker) -> None:
    found = metadata(reading, REAL / "aps/2iddf_0106.mda")
    assert (found["format"], found["scan_number"], found["shape"]) == ("MDA", 106, [20, 41, 21])
    assert found["start_time"] == "2003-07-17T23:26:01.265409"
    assert [moved["description"] for moved in found["positioners"]] == ["kphi [Phi]", "del [2-theta]"]
    assert found["pvs"]["2iddf:saveData_fileSystem"] == "//users/sector2/iddf/data03c2/Si_IBM"


@needs_real_data
def test_a_real_hdf4_file_tells_its_data(reading: ExtractionWorker) -> None:
    found = metadata(reading, REAL / "aps/Smither400.3_apr0300051.hdf")
    assert (found["format"], found["source"], found["start_time"]) == ("HDF4", "APS", "2003-04-15 10:39:35.109")
    assert found["datasets"] == [{"path": "data", "shape": [738, 382], "dtype": "uint16"}]
    assert found["attributes"]["program_name"] == "CCD Image Server"


def test_the_surest_extractor_wins(tmp_path: Path) -> None:
    plain, sure = Format("plain", ((0, b"AB"),), (".x",)), Format("sure", ((0, b"AB"), (10, b"CD")), ())
    named, both = Format("named", (), (".y",)), Format("both", ((0, b"AB"),), (".z",), needs_both=True)
    formats = {"a": [plain], "b": [sure], "c": [named], "d": [both], "e": [Format("text", (), (".t",), is_text=True)]}

    def told(name: str, content: bytes) -> str | None:
        (tmp_path / name).write_bytes(content)
        found = recognise(os.fsencode(tmp_path / name), formats)
        return None if found is None else found.format

    assert told("f", b"AB") == "plain"
    assert told("f", b"AB........CD") == "sure"
    assert told("f.X", b"AB........CD") == "plain", "bytes and name together are surer than more bytes"
    assert told("f.y", b"AB") == "plain", "bytes go before names"
    assert told("f.y", b"") == "named"
    assert told("f.z", b"AB") == "both"
    assert told("f.z", b"A") is None
    assert told("f", b"nothing") is None
    assert told("f.t", b"a: 1\n\xe9") == "text"
    assert told("f.t", b"a: 1\0") is None
    assert told("f.t", b"") is None


def test_a_library_that_is_not_installed_is_named_with_what_to_do(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import sys\nsys.modules['fabio'] = None\n")
    (tmp_path / "f.edf").write_bytes(b"{\nHeaderID = 1 ;\n}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(site))
        worker = ExtractionWorker(timeout_s=30, idle_s=60, max_answer_bytes=10_000)
        with pytest.raises(ExtractionError, match=r"EDF .* fabio, .* pip install 'beamkeeper\[formats\]'"):
            worker.extract(Recognised("images", "EDF"), os.fsencode(tmp_path / "f.edf"))
        worker.close()


HOSTILE = """
import ctypes, os, time

class Hostile:
    formats, summary, requires = (), "", {}

    def extract(self, path):
        what = open(path).read()
        if what == "crash":
            ctypes.string_at(0)
        if what == "hang":
            time.sleep(1000)
        if what == "spin":
            while True:
                pass
        if what == "exit":
            os._exit(3)
        if what == "memory":
            return {"x": len(bytearray(8 * 1024**3))}
        if what == "flood":
            return {"x": ["y" * 2000] * 400}
        if what == "no metadata":
            return [1]
        if what == "print":
            print("{}")
            os.write(1, b"{}")
        if what == "odd":
            return {"a\\0b": float("nan"), "c": {1: b"\\xff"}, "d": object(), "e": 2**70}
        if what == "deep":
            found = inner = {}
            for _ in range(100000):
                inner["x"] = inner = {}
            return found
        raise SystemError(what)
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A worker that finds an extractor that does all that one should not."""
    site = tmp_path_factory.mktemp("site")
    (site / "hostile.py").write_text(HOSTILE)
    (site / "hostile-1.0.dist-info").mkdir()
    (site / "hostile-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n")
    entry_points = f"[{EXTRACTORS}]\nhostile = hostile:Hostile\ngone = hostile:Gone\n"
    (site / "hostile-1.0.dist-info" / "entry_points.txt").write_text(entry_points)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(site))
        worker = ExtractionWorker(timeout_s=2.5, idle_s=60, max_answer_bytes=10_000)
        yield worker
        worker.close()


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("crash", "the reading process ended on this file: SIGSEGV"),
        ("hang", "took longer than 2.5 s"),
        ("spin", "took longer than 2.5 s"),
        ("exit", "the reading process ended on this file: status 3"),
        ("memory", "MemoryError"),
        ("flood", "the answer is larger than 10000 bytes"),
        ("no metadata", "gave no metadata"),
        ("a reason of its own", "X cannot be read: a reason of its own"),
    ],
)
def test_what_an_extractor_does_wrong_costs_that_files_metadata_only(
    hostile: ExtractionWorker, tmp_path: Path, what: str, reason: str
) -> None:
    (tmp_path / "bad").write_text(what)
    (tmp_path / "good").write_text("odd")
    with pytest.raises(ExtractionError, match=reason):
        hostile.extract(Recognised("hostile", "X"), os.fsencode(tmp_path / "bad"))
    found = hostile.extract(Recognised("hostile", "X"), os.fsencode(tmp_path / "good"))
    assert found == {"ab": None, "c": {"1": "\u00ff"}, "d": None, "e": str(2**70)}


def test_closing_does_not_wait_for_an_answer(hostile: ExtractionWorker, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("hang")
    worker = ExtractionWorker(timeout_s=100, idle_s=60, max_answer_bytes=10_000)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(worker.extract, Recognised("hostile", "X"), os.fsencode(tmp_path / "f"))
        while worker.pid is None:
            time.sleep(0.01)
        worker.close()
        with pytest.raises(ExtractionError, match="SIGKILL"):
            answer.result(60)


def test_an_extractor_that_cannot_be_loaded_or_prints_or_nests_without_end_does_no_harm(
    hostile: ExtractionWorker, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("print")
    with pytest.raises(ExtractionError, match='extractor "gone" cannot be loaded: '):
        hostile.extract(Recognised("gone", "X"), os.fsencode(tmp_path / "f"))
    with pytest.raises(ExtractionError, match="X cannot be read: print"):
        hostile.extract(Recognised("hostile", "X"), os.fsencode(tmp_path / "f"))
    (tmp_path / "f").write_text("deep")
    assert str(hostile.extract(Recognised("hostile", "X"), os.fsencode(tmp_path / "f"))).count("x") == 8


def test_every_shipped_extractor_is_listed_and_has_a_suite() -> None:
    listed = {plugin.name for plugin in installed() if plugin.group == EXTRACTORS and plugin.package == "beamkeeper"}
    tested = {suite.name for suite in ExtractorConformance.__subclasses__() if suite.__module__ == __name__}
    assert listed == tested
