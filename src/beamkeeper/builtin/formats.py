"""Which reader a file needs, told by its first bytes and its name, without reading more of it."""

from __future__ import annotations

import os
import stat
from enum import StrEnum


class Format(StrEnum):
    """The formats that metadata are read from."""

    HDF5 = "HDF5"
    TIFF = "TIFF"


_SIGNATURES = {
    b"\x89HDF\r\n\x1a\n": Format.HDF5,
    b"II*\0": Format.TIFF,
    b"MM\0*": Format.TIFF,
    b"II+\0": Format.TIFF,
    b"MM\0+": Format.TIFF,
}
_SUFFIXES = dict.fromkeys(
    (b".h5", b".hdf5", b".nxs", b".nx5", b".nexus", b".he5", b".cxi"), Format.HDF5
) | dict.fromkeys((b".tif", b".tiff", b".btf"), Format.TIFF)
_HEAD = 8


def recognise(path: bytes) -> Format | None:
    """Return the format of a file; None where no reader knows it.

    A name counts as well as the content, so that a damaged file is reported and not passed over. `.hdf` does
    not count: it may be HDF4, which nothing here reads.
    """
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        head = os.pread(file, _HEAD, 0)
    finally:
        os.close(file)
    for signature, known in _SIGNATURES.items():
        if head.startswith(signature):
            return known
    return _SUFFIXES.get(os.path.splitext(path)[1].lower())
