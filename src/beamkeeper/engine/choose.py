"""Which files of a directory are wanted, and why the others are not."""

from __future__ import annotations

import errno
import os

from beamkeeper.domain.acquisition import Acquisition
from beamkeeper.domain.globs import compiled, matches
from beamkeeper.engine.watch import is_temporary

TEMPORARY = "temporary-name"
SPECIAL = "special"
EXISTING = "existing"
TAKEN_OVER = "taken-over"
UNREADABLE = "unreadable"
OTHER_DEVICE = "other-device"
TOO_LONG = "path-too-long"


def unreadable(error: OSError, what: str = "it") -> tuple[str, str]:
    """Return the code and sentence why something cannot be read."""
    if error.errno == errno.ENAMETOOLONG:
        return TOO_LONG, f"{what} cannot be opened: its path has more than the 4095 bytes that Linux takes: shorten it"
    return UNREADABLE, f"{what} cannot be read: {os.strerror(error.errno or 0)}"


class Choice:
    """The patterns of a DAQ or upload, compiled."""

    def __init__(self, acquisition: Acquisition) -> None:
        self._include = compiled(acquisition.include)
        self._exclude = compiled(acquisition.exclude)
        self._with_hidden = acquisition.with_hidden

    def refuse(self, path: bytes) -> tuple[str, str] | None:
        """Return the code and sentence why a file is not taken; None where it is.

        A pattern with a "/" is held against the path, one without against the name as well.
        """
        if not self._with_hidden and any(part.startswith(b".") for part in path.split(b"/")):
            return "hidden", "its name begins with a dot, and hidden files are not wanted"
        if self._exclude and matches(self._exclude, path):
            return "excluded", "an exclude pattern matches it"
        if self._include and not matches(self._include, path):
            return "not-included", "no include pattern matches it"
        return None

    @staticmethod
    def is_temporary(path: bytes) -> bool:
        """Whether the name is one that writers use until a file is whole."""
        return is_temporary(path.rpartition(b"/")[2])
