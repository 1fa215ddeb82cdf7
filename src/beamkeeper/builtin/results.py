"""What went wrong with one file or with a whole destination, in codes and in words."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from beamkeeper.builtin.pieces import CHANGED, REFUSED, SPECIAL, CopyError
from beamkeeper.domain.errors import DestinationError, SourceError
from beamkeeper.domain.names import show_path
from beamkeeper.plugins.api import TransferItem, TransferResult

_SOURCE_CODES = {
    errno.ENOENT: "vanished",
    errno.ENOTDIR: "vanished",
    errno.ELOOP: "special",
    errno.ENXIO: "special",
    errno.ENODEV: "special",
    # Once is no proof: a disk or a server may have been away for a moment. After some tries it is.
    **dict.fromkeys(
        (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.ECONNRESET, errno.EREMOTEIO),
        "read-error",
    ),
}
_SOURCE_WORDS = {
    CHANGED: "changed after it was found finished: it is taken when it is finished again",
    SPECIAL: "is not a plain file any more: it is passed over",
}
_DESTINATION_CODES = {errno.ENOSPC: "full", errno.EDQUOT: "full", errno.EROFS: "read_only"} | dict.fromkeys(
    REFUSED, "refused"
)
_HINTS = {
    "full": "free space or quota there",
    "read_only": "make it writable",
    "refused": "the storage does not take this file: rename or split it",
    "failed": "see that the storage is mounted and may be written",
}


def failed(item: TransferItem, error: CopyError) -> TransferResult:
    """Return a file's own fault as its result; one of the destination as a whole is raised."""
    if error.is_source:
        code = error.code or _SOURCE_CODES.get(error.number, "unreadable")
        why = _SOURCE_WORDS[error.code] if error.code else f"cannot be read: {os.strerror(error.number)}"
        details: Mapping[str, Any] = {} if error.code else {"errno": error.number}
        return TransferResult(
            item.version_uid, error=SourceError(f'"{show_path(item.source)}" {why}', code=code, **details)
        )
    found = unwritten(item.path, error.number)
    if found.details["code"] != "refused":
        raise found
    return TransferResult(item.version_uid, error=found)


def unwritten(path: bytes, number: int) -> DestinationError:
    """Return the fault of a destination that did not take a file."""
    code = _DESTINATION_CODES.get(number, "failed")
    return DestinationError(
        f'"{show_path(path)}" cannot be written: {os.strerror(number)}; {_HINTS[code]}', code=code, errno=number
    )


@contextmanager
def writing(path: bytes) -> Iterator[None]:
    """Turn an error of the kernel into the destination's."""
    try:
        yield
    except OSError as error:
        raise unwritten(path, error.errno or 0) from error
