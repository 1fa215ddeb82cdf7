"""Which process is meant: a pid alone is given out again, so it goes with its boot and its start time."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

SUPERVISOR_VARIABLE = "BEAMKEEPER_SUPERVISOR_PID"
"""Tells a process which supervisor keeps it."""

_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True, slots=True)
class Process:
    """A process of one boot of one host."""

    host: str
    boot_id: str
    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """Return the process that has a pid now; None where there is none, or one that has ended."""
        ticks = _start_ticks(pid)
        return None if ticks is None else cls(socket.gethostname(), _boot_id(), pid, ticks)

    @classmethod
    def this(cls) -> Process:
        """Return this process."""
        return cls(socket.gethostname(), _boot_id(), os.getpid(), _start_ticks(os.getpid()) or 0)

    @property
    def is_here(self) -> bool:
        """Whether it was on this host."""
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether a process of this host lives still."""
        return self.boot_id == _boot_id() and _start_ticks(self.pid) == self.start_ticks


def die_with_supervisor() -> None:
    """Ask the kernel for a SIGTERM when our supervisor dies, if we have one; end now if it is gone already."""
    pid = os.environ.pop(SUPERVISOR_VARIABLE, "")  # not for the processes that we start ourselves
    if not pid.isdigit():
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != int(pid):  # it died before we asked
        raise SystemExit(f"the supervisor (process {pid}) is gone")


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot (proc(5), field 22); None where it has ended."""
    try:
        # The name in parentheses may hold anything, blanks and parentheses and bytes that are not UTF-8 among it.
        after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if after_name[0] in (b"Z", b"X") else int(after_name[19])
