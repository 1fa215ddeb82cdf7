"""The extraction process as seen from the service."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import cast

from pydantic import JsonValue

from beamkeeper.plugins.api import Picture
from beamkeeper.plugins.extractors import ExtractionError, Recognised
from beamkeeper.plugins.reading import MEMORY_BYTES, ReadingError, ReadingProcess


class ExtractionWorker:
    """One process, one file at a time; may be called from several threads."""

    def __init__(
        self,
        *,
        timeout_s: float,
        idle_s: float,
        max_answer_bytes: int,
        memory_bytes: int = MEMORY_BYTES,
        is_last: bool = False,
    ) -> None:
        self._process = ReadingProcess(
            "beamkeeper.builtin.extract",
            timeout_s=timeout_s,
            idle_s=idle_s,
            max_answer_bytes=max_answer_bytes,
            memory_bytes=memory_bytes,
            is_last=is_last,
        )

    @property
    def pid(self) -> int | None:
        """The number of the process; None while there is none."""
        return self._process.pid

    def extract(self, known: Recognised, path: bytes) -> dict[str, JsonValue]:
        """Return the metadata of a file; what goes wrong, the end of the process included, is an ExtractionError."""
        request = {"extractor": known.extractor, "format": known.format, "path": base64.b64encode(path).decode()}
        try:
            found, _ = self._process.ask(request)
        except ReadingError as error:
            raise ExtractionError(f"{known.format} cannot be read: {error}") from error
        if "error" in found:
            raise ExtractionError(str(found["error"]))
        return cast("dict[str, JsonValue]", found["metadata"])

    def picture(self, path: bytes, told: Mapping[str, JsonValue]) -> Picture | None:
        """Return the small picture of a file's first frame; None where it has no frame.

        `told` is what `builtin.frames.picture_of` made of the metadata that the file's extractor found.
        """
        request = {"path": base64.b64encode(path).decode(), "picture_of": told}
        try:
            found, png = self._process.ask(request)
        except ReadingError as error:
            raise ExtractionError(f"the first frame cannot be read: {error}") from error
        if "error" in found:
            raise ExtractionError(str(found["error"]))
        return Picture(cast("dict[str, JsonValue]", found["frame"]), bytes(png)) if len(png) else None

    def close(self) -> None:
        """End the process."""
        self._process.close()
