"""Frames of detectors, one after another, whatever kind of file they are in; they are never all in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamkeeper.domain.errors import InvalidError

Frame = NDArray[Any]

DEPTH = 8
_USUAL = ("entry/data/data", "exchange/data", "entry/instrument/detector/data")
"""Where NeXus and the APS's Data Exchange have the frames."""


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames of one file."""

    count: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    _get: Callable[[int], Frame]

    def __iter__(self) -> Iterator[Frame]:
        return (self._get(number) for number in range(self.count))

    def __getitem__(self, number: int) -> Frame:
        return self._get(number)


@contextmanager
def frames(path: Path, dataset: str = "") -> Iterator[Frames]:
    """Open the frames of a file: HDF5 (at `dataset`, or where they usually are), TIFF, or what fabio reads."""
    suffix = path.suffix.lower()
    with ExitStack() as opened:
        if _is_hdf5(path):
            yield _hdf5(opened, path, dataset)
        elif suffix in (".tif", ".tiff"):
            yield _tiff(opened, path)
        else:
            yield _image(opened, path)


def _is_hdf5(path: Path) -> bool:
    import h5py

    with path.open("rb"):  # what cannot be read says so in the system's words
        return bool(h5py.is_hdf5(path))


def _hdf5(opened: ExitStack, path: Path, dataset: str) -> Frames:
    import h5py

    with suppress(ModuleNotFoundError):  # only for files that are compressed by plugins
        import hdf5plugin  # noqa: F401

    file = opened.enter_context(h5py.File(path, locking=False))
    parts = _parts(file, dataset)
    if not parts:
        raise InvalidError(f"{path}: no frames{f' at {dataset}' if dataset else ''}: say which dataset they are in")
    for part in parts:
        check_near(path, part)
    stacked = [part for part in parts for _ in range(part.shape[0] if part.ndim == 3 else 1)]
    first = [0]
    for part in parts:
        first.append(first[-1] + (part.shape[0] if part.ndim == 3 else 1))
    starts = dict(zip(map(id, parts), first, strict=False))

    def get(number: int) -> Frame:
        part = stacked[number]
        return np.asarray(part[number - starts[id(part)]] if part.ndim == 3 else part[()])

    rows, columns = parts[0].shape[-2:]
    return Frames(len(stacked), (rows, columns), parts[0].dtype, get)


def _parts(file: Any, dataset: str) -> Sequence[Any]:
    """Return the datasets with frames: one, or the parts that a master file links to."""
    if dataset:
        return [file[dataset]] if dataset in file and _has_frames(file[dataset]) else []
    for usual in _USUAL:
        if usual in file and _has_frames(file[usual]):
            return [file[usual]]
    series = file.get("entry/data")
    names = sorted(name for name in series if name.startswith("data_")) if series is not None else []
    if names:
        return [series[name] for name in names if name in series and _has_frames(series[name])]
    found: list[Any] = []
    file.visititems(lambda _, item: found.append(item) if _has_frames(item) else None)
    return [max(found, key=lambda item: item.size)] if found else []


def value(path: Path, within: Any, name: str) -> Any:
    """Return the value of a dataset of a file, with the care of `check_near`; KeyError where there is none."""
    found = within[name]
    if not hasattr(found, "dtype"):
        raise KeyError(f"{name} is no dataset")
    check_near(path, found)
    return found[()]


def check_near(path: Path, dataset: Any, depth: int = 0) -> None:
    """Refuse values that lie in a file which is not below the directory of this one.

    Whoever writes an HDF5 file may link it to any other, and a job's account may read more than its owner.
    """
    top = path.resolve().parent
    sources = (
        [(source.file_name, source.dset_name) for source in dataset.virtual_sources()] if dataset.is_virtual else []
    )
    names = [dataset.file.filename, *(part[0] for part in dataset.external or ()), *(name for name, _ in sources)]
    home = Path(dataset.file.filename).parent
    if depth > DEPTH or not all((home / name).resolve().is_relative_to(top) for name in names):
        raise InvalidError(f"{path}: what it tells lies in other directories, and is not read from there")
    for name, inside in sources:
        _check_source(path, dataset, (name, inside), depth)


def _check_source(path: Path, dataset: Any, source: tuple[str, str], depth: int) -> None:
    import h5py

    name, inside = source
    where = Path(dataset.file.filename).parent / name
    if name == ".":
        check_near(path, dataset.file[inside], depth + 1)
    elif where.is_file():
        with h5py.File(where, locking=False) as other:
            if inside in other:
                check_near(path, other[inside], depth + 1)


def _has_frames(item: Any) -> bool:
    return getattr(item, "ndim", 0) in (2, 3) and item.dtype.kind in "iuf" and min(item.shape) > 0


def _tiff(opened: ExitStack, path: Path) -> Frames:
    import tifffile

    try:
        file = opened.enter_context(tifffile.TiffFile(path))
    except tifffile.TiffFileError as error:
        raise InvalidError(f"{path}: {error}") from error
    page: Any = file.pages[0]
    return Frames(len(file.pages), page.shape[:2], np.dtype(page.dtype), lambda number: file.pages[number].asarray())


def _image(opened: ExitStack, path: Path) -> Frames:
    import fabio

    try:
        file = opened.enter_context(fabio.open(str(path)))
    except (OSError, ValueError, KeyError, fabio.fabioutils.NotGoodReader) as error:
        raise InvalidError(f"{path}: no image that is known ({error})") from error
    return Frames(file.nframes, file.shape[-2:], np.dtype(file.data.dtype), lambda number: file.get_frame(number).data)


def masked(frame: Frame) -> NDArray[np.bool_]:
    """Return which pixels mean nothing by their makers' word: negative ones, the largest of 32 bits, and no numbers."""
    if frame.dtype.kind == "f":
        return ~np.isfinite(frame)
    if frame.dtype.kind == "i":
        return np.asarray(frame < 0)
    return np.asarray(frame == np.iinfo(frame.dtype).max if frame.dtype.itemsize >= 4 else np.zeros(frame.shape, bool))
