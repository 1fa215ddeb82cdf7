"""A series of images as one compressed NeXus file, which is compared with the series before it is kept."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

import beamkeeper
from beamkeeper.domain.errors import InvalidError
from beamkeeper.library import pictures
from beamkeeper.library.frames import Frame, frames

COMPRESSIONS: Mapping[str, Callable[[], Any]] = {
    "bitshuffle-lz4": lambda: hdf5plugin.Bitshuffle(cname="lz4"),
    "bitshuffle-zstd": lambda: hdf5plugin.Bitshuffle(cname="zstd"),
    "gzip": lambda: {"compression": "gzip", "shuffle": True},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the frames of all files of a list, in the order of their names, and read them back."""
    parser = argparse.ArgumentParser(prog="dm-library convert", description=__doc__)
    parser.add_argument("list", type=Path, help="a file with the paths of the images, each ended by a NUL")
    parser.add_argument("output", type=Path)
    parser.add_argument("--compression", choices=COMPRESSIONS, default="bitshuffle-lz4")
    parser.add_argument("--picture", type=Path, help="write the middle frame as PNG")
    options = parser.parse_args(argv)
    if options.output.name != str(options.output):
        raise InvalidError(f'"{options.output}" is no name: the file is written where the command runs')
    paths = [Path(name) for name in sorted(set(options.list.read_text().split("\0")) - {""})]
    if not paths:
        raise InvalidError("there are no images to convert: name files for the job")
    raw = write(paths, options.output, options.compression)
    compare(paths, options.output)
    stored = options.output.stat().st_size
    if options.picture:
        with frames(options.output) as kept:
            pictures.image(options.picture, kept[kept.count // 2])
    sys.stdout.write(f"files: {len(paths)}\nlossless: yes\nsmaller: {raw / stored:.2f}\n")
    return 0


def _all(paths: Sequence[Path]) -> Iterator[tuple[Path, Frame]]:
    for path in paths:
        with frames(path) as found:
            for frame in found:
                yield path, frame


def write(paths: Sequence[Path], output: Path, compression: str) -> int:
    """Write frames as NeXus, a chunk each; return how many bytes they have."""
    with frames(paths[0]) as found:
        shape, dtype = found.shape, found.dtype
    raw = 0
    with h5py.File(output, "w") as file:
        data = _nexus(file, paths).create_dataset(
            "data", (0, *shape), dtype, maxshape=(None, *shape), chunks=(1, *shape), **COMPRESSIONS[compression]()
        )
        for number, (path, frame) in enumerate(_all(paths)):
            if frame.shape != shape or frame.dtype != dtype:
                raise InvalidError(
                    f"{path} has {frame.shape} pixels of {frame.dtype}, and {paths[0]} {shape} of {dtype}: "
                    "a series has frames of one kind"
                )
            data.resize(number + 1, axis=0)
            data[number] = frame
            raw += frame.nbytes
    return raw


def _nexus(file: Any, paths: Sequence[Path]) -> Any:
    """Make the groups of a NeXus file, and return the one for the frames."""
    file.attrs.update(default="entry", creator=f"Beamkeeper {beamkeeper.__version__}", NX_class="NXroot")
    entry = file.create_group("entry")
    entry.attrs.update(NX_class="NXentry", default="data")
    entry["start_time"] = datetime.fromtimestamp(paths[0].stat().st_mtime, UTC).isoformat()
    source = entry.create_group("source_files")
    source.attrs["NX_class"] = "NXcollection"
    source["names"] = np.array([path.name for path in paths], dtype=h5py.string_dtype())
    data = entry.create_group("data")
    data.attrs.update(NX_class="NXdata", signal="data")
    return data


def compare(paths: Sequence[Path], output: Path) -> None:
    """Refuse a file that does not hold, bit by bit, the frames of the series."""
    with frames(output) as kept:
        number = 0
        for path, frame in _all(paths):
            if number >= kept.count or kept[number].tobytes() != np.ascontiguousarray(frame).tobytes():
                raise InvalidError(f"frame {number} is not read back as it is in {path}: nothing is kept")
            number += 1
        if number != kept.count:
            raise InvalidError(f"there are {kept.count} frames, and the series has {number}: nothing is kept")
