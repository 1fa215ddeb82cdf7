"""Whether any process of this host has a file open: asked of the kernel for one file, or looked up for all."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from dataclasses import dataclass

from beamkeeper.engine.finish import Writer


def held_open(descriptor: int) -> Writer:
    """Ask the kernel whether anybody but us has a file open, to read or to write, by asking for a write lease.

    The lease is given back at once, so that nobody is held up. It is granted to the file's owner (or CAP_LEASE)
    only, and not on network file systems: both answer 'unknown', never 'none'.
    """
    try:
        # Who opens it in this instant makes the kernel send a signal: let it be one that is ignored.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return Writer.OPEN if error.errno in (errno.EAGAIN, errno.EBUSY) else Writer.UNKNOWN
    return Writer.NONE


@dataclass(frozen=True, slots=True)
class OpenFiles:
    """The files that processes of this host have open, by device and inode."""

    inodes: frozenset[tuple[int, int]]
    is_complete: bool
    """False where we may not look at some process: what it has open is not known."""

    def has(self, found: os.stat_result) -> bool:
        """Whether some process has this file open."""
        return (found.st_dev, found.st_ino) in self.inodes


def open_files(proc: str = "/proc") -> OpenFiles:
    """Look up what every process has open, as far as we may; our own process is left out."""
    inodes: set[tuple[int, int]] = set()
    is_complete = True
    for name in os.listdir(proc):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with os.scandir(f"{proc}/{name}/fd") as descriptors:
                for entry in descriptors:
                    try:
                        found = entry.stat()
                    except OSError:
                        continue  # closed meanwhile, or a pipe's end that has no file
                    inodes.add((found.st_dev, found.st_ino))
        except PermissionError:
            is_complete = False
        except OSError:
            continue  # the process has ended
    return OpenFiles(frozenset(inodes), is_complete)
