"""The process that reads arrays: `python -m beamkeeper.core.array_reader`.

It gets open files and nothing else, and looks at what is in them: links into other files are told and not followed,
and what lies in other files (virtual datasets, external storage) is refused.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from beamkeeper.domain.errors import DmError, InvalidError
from beamkeeper.domain.jsonable import text
from beamkeeper.plugins.reader import serve

if TYPE_CHECKING:
    from beamkeeper.core.array_formats import Reader

MAX_REASON = 300
_HDF5 = b"\x89HDF\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_USER_BLOCKS = (0, *(512 << power for power in range(12)))
"""Where the signature of HDF5 may stand."""


def reader(descriptor: int) -> Reader:
    """Return what reads an open file."""
    head = os.pread(descriptor, 8, 0)
    if head.startswith(_TIFF):
        from beamkeeper.core.array_tiff import TiffReader

        return TiffReader(descriptor)
    if any(os.pread(descriptor, 8, at) == _HDF5 for at in _USER_BLOCKS):
        from beamkeeper.core.array_hdf5 import HDF5Reader

        return HDF5Reader(descriptor)
    return _other(descriptor, head)


def _other(descriptor: int, head: bytes) -> Reader:
    """Return what reads a file of the formats that are rarer, each imported when it is met."""
    from beamkeeper.core import array_frames, array_hdf4, array_mda

    if head.startswith(array_mda.MAGIC):
        return array_mda.MdaReader(descriptor)
    if head.startswith(array_hdf4.MAGIC):
        return array_hdf4.Hdf4Reader(descriptor)

    if kind := array_frames.recognise(os.pread(descriptor, 4096, 0)):
        return array_frames.FrameReader(descriptor, kind)
    raise InvalidError("this file is neither HDF5 nor TIFF, CBF, EDF, ADSC, HDF4 or MDA: arrays are read of these only")


def answer(request: dict[str, object], descriptor: int | None) -> tuple[dict[str, object], bytes | memoryview]:
    """Return the answer to one question."""
    try:
        if descriptor is None:
            raise InvalidError("there is no file")
        with reader(descriptor) as file:
            name = str(request["name"])
            if request["verb"] == "values":
                return {}, file.values(name, str(request["select"]))
            if request["verb"] in ("tree", "members"):
                ask = file.tree if request["verb"] == "tree" else file.members
                nodes, is_cut = ask(name, int(str(request["limit"])))
                return {"format": file.format, "nodes": nodes, "is_cut": is_cut}, b""
            return {"format": file.format, "node": file.node(name)}, b""
    except DmError as error:
        return {"error": error.message, "code": error.code, "details": dict(error.details)}, b""
    except Exception as error:  # whatever a library trips over is the file's fault, and is told
        reason = text(str(error).partition("\n")[0], MAX_REASON) or type(error).__name__
        return {"error": f"this cannot be read of the file: {reason}", "code": InvalidError.code}, b""


if __name__ == "__main__":
    serve(answer)
