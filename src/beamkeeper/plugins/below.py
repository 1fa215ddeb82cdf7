"""Opening what lies below a directory: the path cannot climb out, and no link on it is followed, whoever swaps one in.

The kernel does it in one call where it has openat2 (Linux 5.6); elsewhere we go down directory by directory.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress

OPENAT2 = 437
"""The number of the call, the same on every machine that we run on; Python and most C libraries have no name for it."""

NO_MAGICLINKS, NO_SYMLINKS, BENEATH = 0x02, 0x04, 0x08
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_WALK = frozenset({errno.ENOSYS, errno.EPERM, errno.EAGAIN, errno.EINTR, errno.ENAMETOOLONG, errno.ELOOP, errno.EXDEV})
"""Where the walk may go on or says it better: no such call, one that a container's filter forbids, somebody who renames
meanwhile, a path longer than one call takes, and links, which both refuse."""

_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_below(directory: int, path: bytes, flags: int = os.O_RDONLY) -> int:
    """Open what is there already; a link at its end is refused with ELOOP, one before with ENOTDIR."""
    try:
        return open_by_kernel(directory, path, flags)
    except OSError as error:
        if error.errno not in _WALK:
            raise
        return open_by_walking(directory, path, flags)


def open_by_kernel(directory: int, path: bytes, flags: int) -> int:
    """Open by one call; raises OSError with ENOSYS where there is no such call."""
    how = _How(flags=flags | os.O_NOFOLLOW | os.O_CLOEXEC, resolve=BENEATH | NO_SYMLINKS | NO_MAGICLINKS)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    opened = _libc.syscall(ctypes.c_long(OPENAT2), ctypes.c_int(directory), path, ctypes.byref(how), size)
    if opened < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return int(opened)


def open_by_walking(directory: int, path: bytes, flags: int) -> int:
    """Open directory by directory."""
    *above, name = path.split(b"/")
    if any(part in (b"", b".", b"..") for part in (*above, name)):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    here = directory
    try:
        for part in above:
            below = os.open(part, DIRECTORY, dir_fd=here)
            if here != directory:
                os.close(here)
            here = below
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
    finally:
        if here != directory:
            os.close(here)


def open_made(directory: int, path: bytes) -> int:
    """Open a directory below, `directory` itself where the path is empty; what is missing is made, for us alone."""
    if path:
        with suppress(FileNotFoundError):
            return open_below(directory, path, DIRECTORY)
    here = os.dup(directory)
    try:
        for part in path.split(b"/") if path else ():
            with suppress(FileExistsError):  # it is there, or another file of the same directory arrives just now
                os.mkdir(part, 0o700, dir_fd=here)
            below = open_below(here, part, DIRECTORY)
            os.close(here)
            here = below
    except BaseException:
        os.close(here)
        raise
    return here
