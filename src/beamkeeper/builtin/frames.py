"""The first frame of a file, for its small picture: of HDF5, TIFF, CBF, HDF4, and what else fabio reads.

Files are made by others: this runs in the process that extracts metadata, with its limits of memory and time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from beamkeeper.builtin.values import nameable
from beamkeeper.plugins.extractors import ExtractionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALLEST_SIDE = 8
"""What is smaller is a table, and no picture."""

MOST_PIXELS = 64 * 1024 * 1024
MOST_DATASETS = 16
"""So many of a file are tried, for one that has its frames within the file."""


def picture_of(extractor: str, metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what is to be known of a file to read its first frame, from its metadata; None where it has no frame."""
    if extractor not in _READERS or not metadata.get("format"):
        return None  # what gave no metadata gives no frame
    told: dict[str, Any] = {"extractor": extractor, "format": metadata["format"]}
    if extractor not in _OF_DATASETS:
        return told
    found = [one for one in metadata.get("datasets", ()) if _is_picture(one["shape"])]
    told["datasets"] = [{"path": one["path"], "shape": one["shape"]} for one in found[:MOST_DATASETS]]
    return told if found else None


def first_frame(path: str, told: Mapping[str, Any]) -> NDArray[Any] | None:
    """Return the frame that stands for a file, of which `picture_of` told; None where it has none within it."""
    frame = _READERS[told["extractor"]](path, told)
    if frame is None:
        return None
    if frame.ndim == 3 and frame.shape[-1] in (3, 4):
        frame = frame[..., :3].mean(axis=-1)
    is_picture = frame.ndim == 2 and min(frame.shape) >= SMALLEST_SIDE and frame.dtype.kind in "uifb"
    return frame if is_picture else None


def _hdf5(path: str, metadata: Mapping[str, Any]) -> NDArray[Any] | None:
    import h5py

    _register_filters()
    with h5py.File(path, "r", locking=False) as file:
        for named in metadata.get("datasets", ()):
            if not _is_picture(named["shape"]):
                continue
            dataset = file[named["path"]]
            if dataset.is_virtual or dataset.external or dataset.dtype.kind not in "uifb":
                continue  # its values are in other files, which are not read for it
            frame: NDArray[Any] = dataset[(0,) * (dataset.ndim - 2)]
            return frame
    return None


def _is_picture(shape: Any) -> bool:
    """Whether a dataset of this shape has frames, of a size that is read."""
    if not isinstance(shape, list) or len(shape) < 2 or 0 in shape:
        return False
    return bool(min(shape[-2:]) >= SMALLEST_SIDE and shape[-1] * shape[-2] <= MOST_PIXELS)


def _register_filters() -> None:
    """Let HDF5 read what its plugins have compressed, where these are installed."""
    try:
        import hdf5plugin  # noqa: F401
    except ImportError:
        return


def _tiff(path: str, metadata: Mapping[str, Any]) -> NDArray[Any] | None:
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        if page.size > MOST_PIXELS * 3:
            return None
        frame: NDArray[Any] = page.asarray()
    return frame


def _cbf(path: str, metadata: Mapping[str, Any]) -> NDArray[Any] | None:
    """Return the frame of a CBF file, unless it is cut: fabio loops for ever on some of these (2026.6)."""
    from beamkeeper.builtin.extract_cbf import HEADER_BYTES, binary_bytes

    with open(path, "rb") as file:
        head = file.read(HEADER_BYTES)
    begin = head.find(b"\x0c\x1a\x04\xd5")
    if begin < 0 or begin + 4 + binary_bytes(head) > os.path.getsize(path):
        raise ExtractionError("the first frame cannot be read: the file ends too early")
    return _by_fabio("cbfimage", path)


def _image(path: str, metadata: Mapping[str, Any]) -> NDArray[Any] | None:
    from beamkeeper.builtin.extract_images import READERS

    known = READERS.get(str(metadata.get("format")))
    return _by_fabio(known, path) if known else None


def _by_fabio(reader: str, path: str) -> NDArray[Any] | None:
    import logging

    try:
        from fabio import fabioformats
    except ImportError:
        return None
    logging.disable(logging.CRITICAL)  # fabio warns of what is then told in its place
    with nameable(path) as name:
        frame: NDArray[Any] | None = fabioformats.factory(reader).read(name).data
    return frame


def _hdf4(path: str, metadata: Mapping[str, Any]) -> NDArray[Any] | None:
    import numpy as np
    from pyhdf.SD import SD, SDC

    for named in metadata.get("datasets", ()):
        if _is_picture(named["shape"]):
            with nameable(path) as name:
                file = SD(name, SDC.READ)
            try:
                rank = len(named["shape"]) - 2
                size = [*([1] * rank), *named["shape"][-2:]]
                taken = np.asarray(file.select(named["path"]).get([0] * len(size), size))
                return taken.reshape(named["shape"][-2:])
            finally:
                file.end()
    return None


_READERS: Mapping[str, Callable[[str, Mapping[str, Any]], NDArray[Any] | None]] = {
    "hdf5": _hdf5,
    "tiff": _tiff,
    "cbf": _cbf,
    "images": _image,
    "hdf4": _hdf4,
}
"""By the name of the extractor that knew the file."""

_OF_DATASETS = frozenset({"hdf5", "hdf4"})
