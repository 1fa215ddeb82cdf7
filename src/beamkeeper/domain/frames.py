"""What the numbers of files' first frames are: looked at when the files are available, and added to their metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from beamkeeper.domain.metadata import EXTRACTION
from beamkeeper.domain.names import Input, Metadata, Uid

FRAME = "frame"
"""Under this key a file's metadata have the numbers of its first frame."""

FRAMES_LIMIT = 100
"""So many are told at once."""


class NewFrame(Input):
    """What was found in the first frame of a version, or why nothing was."""

    version_uid: Uid
    numbers: Metadata = Field(default_factory=dict, examples=[{"min": 0, "max": 900, "mean": 3.5, "saturated": 0}])
    error: Annotated[str, StringConstraints(max_length=1000)] = ""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if bool(self.numbers) == bool(self.error):
            raise ValueError("give either the numbers of a frame, or why there are none")
        return self


class NewFrames(Input):
    """Frames of versions of one experiment; the same again changes nothing."""

    items: Sequence[NewFrame] = Field(min_length=1, max_length=FRAMES_LIMIT)


def with_frame(metadata: Metadata, annotations: Metadata, new: NewFrame) -> Metadata:
    """Return metadata with what was found in a frame; what people have said, and what is there, stays."""
    if new.numbers:
        return metadata if FRAME in metadata or FRAME in annotations else {**metadata, FRAME: new.numbers}
    known = metadata.get(EXTRACTION, {})
    if EXTRACTION in annotations or not isinstance(known, Mapping):
        return metadata
    reason = str(known.get("error", ""))
    if new.error in reason:
        return metadata
    return {**metadata, EXTRACTION: {**known, "error": f"{reason}; {new.error}" if reason else new.error}}
