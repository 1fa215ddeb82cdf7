"""Which files of a directory are wanted, and why the others are not."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

from beamkeeper.domain.acquisition import Acquisition
from beamkeeper.engine.watch import is_temporary

TEMPORARY = "temporary-name"
SPECIAL = "special"
EXISTING = "existing"
TAKEN_OVER = "taken-over"
UNREADABLE = "unreadable"
OTHER_DEVICE = "other-device"


class Choice:
    """The patterns of a DAQ or upload, compiled."""

    def __init__(self, acquisition: Acquisition) -> None:
        self._include = _compile(acquisition.include)
        self._exclude = _compile(acquisition.exclude)
        self._with_hidden = acquisition.with_hidden

    def refuse(self, path: bytes) -> tuple[str, str] | None:
        """Return the code and sentence why a file is not taken; None where it is.

        A pattern with a "/" is held against the path, one without against the name as well.
        """
        text = path.decode("utf-8", "surrogateescape")
        name = text.rpartition("/")[2]
        if not self._with_hidden and any(part.startswith(".") for part in text.split("/")):
            return "hidden", "its name begins with a dot, and hidden files are not wanted"
        if self._exclude and (self._exclude.match(text) or self._exclude.match(name)):
            return "excluded", "an exclude pattern matches it"
        if self._include and not (self._include.match(text) or self._include.match(name)):
            return "not-included", "no include pattern matches it"
        return None

    @staticmethod
    def is_temporary(path: bytes) -> bool:
        """Whether the name is one that writers use until a file is whole."""
        return is_temporary(path.rpartition(b"/")[2])


def _compile(patterns: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns)) if patterns else None
