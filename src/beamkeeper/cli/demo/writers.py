"""The simulated detector's writers: frames, NeXus files held open, a log, a rename, copies of real files.

A writer is a generator: each step writes a little and yields how many seconds it wants to pass before the next.
Writing is deterministic by seed and start time, so that a run that was killed can be finished.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import h5py
from blake3 import blake3

from beamkeeper.cli.demo import rings
from beamkeeper.cli.demo.rings import Rings, tiff_bytes
from beamkeeper.cli.demo.target import BLOCK_BYTES, Target
from beamkeeper.cli.demo.truth import Kind, Written

Writer = Generator[float, None, None]

FRAMES_PER_SCAN = 50
NEXUS_FRAMES = 20
NEXUS_SIDE = 256
ENERGIES_KEV = (8.0, 10.0, 12.0, 15.0, 20.0)
NOMINAL_RATE = 100.0
LOG = b"detector.log"
LOG_APPENDS = 20


@dataclass(frozen=True, slots=True)
class Beam:
    """What all writers share: where to, how fast, and when the measurement began."""

    target: Target
    rings: Rings
    rate: float
    start: datetime

    def at(self, frames: int) -> datetime:
        """Return the time as the measurement has it after so many frames, at whatever rate they are written."""
        return self.start + timedelta(seconds=frames / NOMINAL_RATE)


def write_frames(beam: Beam, count: int) -> Writer:
    """Write TIFF frames, in a new directory for every scan."""
    for number in range(count):
        path = b"scan_%03d/frame_%04d.tif" % (number // FRAMES_PER_SCAN + 1, number % FRAMES_PER_SCAN + 1)
        if not beam.target.is_finished(path):
            content = tiff_bytes(beam.rings.frame(number), number=number + 1, taken_at=beam.at(number))
            beam.target.put(path, content, Kind.FRAME)
        yield 1 / beam.rate


def write_nexus(beam: Beam, number: int) -> Writer:
    """Write a NeXus file that is held open from its first frame to its last; the third is SWMR."""
    interval_s = 20 / beam.rate
    yield number * 3 * interval_s
    path = b"nexus/scan_%03d.nxs" % (number + 1)
    if beam.target.is_finished(path):
        return
    is_swmr = number == 2
    absolute = os.fsdecode(beam.target.absolute(path))
    with h5py.File(absolute, "w", libver="latest" if is_swmr else None) as file:
        images, end_time = _nexus_tree(file, beam, number)
        if is_swmr:
            file.swmr_mode = True
        for frame in range(NEXUS_FRAMES):
            images.resize(frame + 1, axis=0)
            images[frame] = beam.rings.frame(1000 * (number + 1) + frame)[:NEXUS_SIDE, :NEXUS_SIDE]
            file.flush()
            yield interval_s
        end_time[()] = beam.at(20 * NEXUS_FRAMES).isoformat()
    beam.target.record(path, Kind.NEXUS, time.time_ns())


def _nexus_tree(file: h5py.File, beam: Beam, number: int) -> tuple[h5py.Dataset, h5py.Dataset]:
    entry = _group(file, "entry", "NXentry")
    file.attrs["default"] = "entry"
    entry.attrs["default"] = "data"
    entry["title"] = f"Silver behenate, simulated, scan {number + 1}"
    entry["start_time"] = beam.start.isoformat()
    # Strings of variable length cannot be written in SWMR mode.
    end_time = entry.create_dataset("end_time", data=" " * 32, dtype="S32")
    _group(entry, "sample", "NXsample")["name"] = "silver behenate"
    instrument = _group(entry, "instrument", "NXinstrument")
    monochromator, wavelength = _group(instrument, "monochromator", "NXmonochromator"), rings.HC / ENERGIES_KEV[number]
    _quantity(monochromator, "energy", ENERGIES_KEV[number], "keV")
    _quantity(monochromator, "wavelength", wavelength, "angstrom")
    detector = _group(instrument, "detector", "NXdetector")
    detector["description"] = "simulated area detector"
    _quantity(detector, "count_time", 20 / NOMINAL_RATE, "s")
    # The pictures are those of one energy: the detector stands where the rings are of this radius at another.
    _quantity(detector, "distance", rings.DISTANCE_MM * rings.WAVELENGTH_A / wavelength, "mm")
    for axis, centre in (("x", rings.CENTRE_X), ("y", rings.CENTRE_Y)):
        _quantity(detector, f"beam_center_{axis}", centre * rings.PIXEL_MM, "mm")
        _quantity(detector, f"{axis}_pixel_size", rings.PIXEL_MM, "mm")
    frame = (NEXUS_SIDE, NEXUS_SIDE)
    images = detector.create_dataset("data", (0, *frame), "u2", maxshape=(None, *frame), chunks=(1, *frame))
    data = _group(entry, "data", "NXdata")
    data.attrs["signal"] = "data"
    data["data"] = images
    return images, end_time


def _quantity(parent: h5py.Group, name: str, value: float, units: str) -> None:
    parent.create_dataset(name, data=value).attrs["units"] = units


def _group(parent: h5py.Group, name: str, nx_class: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nx_class
    return group


def _log_line(beam: Beam, number: int) -> bytes:
    at = beam.at(25 * number).isoformat(timespec="milliseconds")
    return f"{at} ring current {100 - 0.01 * number:.2f} mA, shutter open\n".encode()


def write_log(beam: Beam) -> Writer:
    """Append to a text log now and then; it is opened and closed for each line."""
    absolute = beam.target.absolute(LOG)
    content = b""
    for number in range(LOG_APPENDS):
        content += _log_line(beam, number)
        written = beam.target.truth.last(LOG)
        if written is not None and written.size >= len(content):
            continue
        with open(absolute, "ab", buffering=0) as file:
            # After a kill, a part of the line may be there.
            file.write(content[file.tell() :])
        digest = blake3(content).hexdigest()
        beam.target.truth.add(Written(LOG, len(content), digest, time.time_ns(), Kind.LOG))
        yield 25 / beam.rate


def write_renamed(beam: Beam) -> Writer:
    """Write a file under another name, and rename it as it is whole."""
    path = b"processed/summary.dat"
    if beam.target.is_finished(path):
        return
    absolute = beam.target.absolute(path)
    with open(absolute + b".tmp", "wb", buffering=0) as file:
        for part in range(8):
            file.write(beam.rings.frame(part)[:64].tobytes())
            yield 10 / beam.rate
    written_at_ns = time.time_ns()
    os.rename(absolute + b".tmp", absolute)
    beam.target.record(path, Kind.FILE, written_at_ns)


def write_notes(beam: Beam) -> Writer:
    """Write a file whose name has spaces."""
    beam.target.put(b"notes of the day/sample notes.txt", b"Capillary 3, filled by hand.\n")
    yield 0


def copy_files(beam: Beam, directory: Path, below: bytes) -> Writer:
    """Copy somebody's real files, block by block."""
    top = os.fsencode(directory)
    for source in _files_below(top):
        path = os.path.join(below, os.path.relpath(source, top))
        if beam.target.is_finished(path):
            continue
        if os.path.islink(source):
            beam.target.link(path, os.readlink(source))
            continue
        with open(source, "rb") as reader, open(beam.target.absolute(path), "wb", buffering=0) as file:
            while block := reader.read(BLOCK_BYTES):
                file.write(block)
                yield 1 / beam.rate
        beam.target.record(path, Kind.FILE, time.time_ns())


def _files_below(top: bytes) -> Iterator[bytes]:
    for entry in sorted(os.scandir(top), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(entry.path)
        elif entry.is_symlink() or stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
            yield entry.path


def copy_names(directories: Sequence[Path]) -> list[bytes]:
    """Return where a copy of each directory goes: below `real`, under its own name, two of one name apart."""
    names: list[bytes] = []
    for directory in directories:
        name = b"real/" + (os.fsencode(directory.resolve().name) or b"root")
        same = sum(other == name or other.startswith(name + b"-") for other in names)
        names.append(name + b"-%d" % (same + 1) if same else name)
    return names
