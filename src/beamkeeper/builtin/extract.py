"""The process that reads files for their metadata, by one extractor or another: `python -m beamkeeper.builtin.extract`.

It is asked `{"extractor": "hdf5", "path": "..."}` with the bytes of the path as base64, and answers
`{"metadata": {...}}` or `{"error": "..."}`. It is a process of its own because files are made by others: one that
makes a library crash, hang or use all memory costs its own metadata only.
"""

from __future__ import annotations

import base64
import os
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, cast

from beamkeeper.builtin.values import json_safe, text
from beamkeeper.plugins.extractors import EXTRACTORS, ExtractionError, Extractor, missing_of
from beamkeeper.plugins.reader import serve

if TYPE_CHECKING:
    from pydantic import JsonValue

MAX_REASON = 300
MAX_ITEMS = 100_000
"""How much an answer may hold is bounded by its size; extractors keep to less."""


def extract(extractor: Extractor, path: str, known: str = "the file") -> dict[str, JsonValue]:
    """Return the metadata of a file."""
    if not os.path.getsize(path):
        raise ExtractionError("the file is empty")
    for package in missing_of(extractor.requires):
        what = ", ".join(extractor.requires)
        raise ExtractionError(f"{known} is read through {what}, which is not installed here: pip install '{package}'")
    found = json_safe(extractor.extract(path), items=MAX_ITEMS)
    if not isinstance(found, dict):
        raise ExtractionError("the extractor gave no metadata")
    return found


def picture(path: str, request: dict[str, object]) -> tuple[dict[str, object], bytes]:
    """Return what the numbers of a file's first frame are, and its small picture; nothing where it has no frame."""
    from beamkeeper.builtin.frames import first_frame
    from beamkeeper.plugins.thumbnails import thumbnail

    try:
        frame = first_frame(path, cast("dict[str, Any]", request["picture_of"]))
        facts, png = ({}, b"") if frame is None else thumbnail(frame)
    except ExtractionError as error:
        return {"error": str(error)}, b""
    except Exception as error:  # as above
        reason = text(str(error).partition("\n")[0], MAX_REASON) or type(error).__name__
        return {"error": f"the first frame cannot be read: {reason}"}, b""
    return {"frame": json_safe(facts)}, png


class Extractors:
    """The extractors of this process, each built when it is first needed."""

    def __init__(self) -> None:
        self._built: dict[str, Extractor] = {}

    def answer(self, request: dict[str, object], _: int | None) -> tuple[dict[str, object], bytes]:
        """Return the answer to one question."""
        path = os.fsdecode(base64.b64decode(str(request["path"])))
        if "picture_of" in request:
            return picture(path, request)
        try:
            return {"metadata": extract(self._named(str(request["extractor"])), path, str(request["format"]))}, b""
        except ExtractionError as error:
            return {"error": str(error)}, b""
        except Exception as error:  # whatever a reader trips over is the file's fault, and is told
            reason = text(str(error).partition("\n")[0], MAX_REASON) or type(error).__name__
            return {"error": f"{request['format']} cannot be read: {reason}"}, b""

    def _named(self, name: str) -> Extractor:
        if name not in self._built:
            try:
                self._built[name] = entry_points(group=EXTRACTORS)[name].load()()
            except Exception as error:
                raise ExtractionError(f'the extractor "{name}" cannot be loaded: {error}') from error
        return self._built[name]


def main() -> None:
    """Answer until the other side is gone."""
    serve(Extractors().answer)


if __name__ == "__main__":
    main()
