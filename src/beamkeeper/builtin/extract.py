"""The process that reads HDF5 and TIFF files for their metadata: `python -m beamkeeper.builtin.extract`.

It takes lines of JSON, `{"format": "HDF5", "path": "..."}` with the bytes of the path as base64, and answers
each with one line: `{"metadata": {...}}` or `{"error": "..."}`. It is a process of its own because files are
made by others: one that makes a library crash, hang or use all memory costs its own metadata only.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING

from beamkeeper.builtin.formats import Format
from beamkeeper.builtin.values import ExtractionError, text

if TYPE_CHECKING:
    from pydantic import JsonValue

MAX_REASON = 300


def extract(known: Format, path: str) -> dict[str, JsonValue]:
    """Return the metadata of a file."""
    if not os.path.getsize(path):
        raise ExtractionError("the file is empty")
    if known is Format.HDF5:
        from beamkeeper.builtin.extract_hdf5 import read_hdf5

        return read_hdf5(path)
    from beamkeeper.builtin.extract_tiff import read_tiff

    return read_tiff(path)


def answer(line: bytes) -> bytes:
    """Return the answer to one line."""
    request = json.loads(line)
    path = os.fsdecode(base64.b64decode(request["path"]))
    try:
        found: dict[str, JsonValue] = {"metadata": extract(Format(request["format"]), path)}
    except ExtractionError as error:
        found = {"error": str(error)}
    except Exception as error:  # whatever a reader trips over is the file's fault, and is told
        reason = text(str(error).partition("\n")[0], MAX_REASON) or type(error).__name__
        found = {"error": f"{request['format']} cannot be read: {reason}"}
    return json.dumps(found, allow_nan=False).encode() + b"\n"


def main() -> None:
    """Answer until the other side closes the pipe."""
    memory_bytes, alarm_s = int(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not get between the answers
    with os.fdopen(answers, "wb", buffering=0) as out:
        out.write(b"{}\n")
        for line in sys.stdin.buffer:
            signal.alarm(alarm_s)  # a file that never ends must not outlive the service that asked
            reply = answer(line)
            signal.alarm(0)
            out.write(reply)


if __name__ == "__main__":
    main()
