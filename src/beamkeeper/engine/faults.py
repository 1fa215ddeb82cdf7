"""What goes wrong, by side: which fault is the place's, which the file's, and what follows from it."""

from __future__ import annotations

import errno

_TROUBLES = {errno.ENOSPC: "full", errno.EDQUOT: "full", errno.EROFS: "read_only"}


def trouble_of(number: int | None) -> str:
    """Return what a storage area as a whole fails with, by the error of a call to the kernel."""
    return _TROUBLES.get(number or 0, "failed")
