"""The switchboard of shim.c: faults of the C library, turned on and off while the services run."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

SOURCE = Path(__file__).with_name("shim.c")


class _Faults(ctypes.Structure):
    _fields_: ClassVar = [
        ("clock_s", ctypes.c_int64),
        ("short_writes", ctypes.c_int64),
        ("fsync_left", ctypes.c_int64),
        ("fsync_errno", ctypes.c_int64),
        ("rename_left", ctypes.c_int64),
        ("rename_errno", ctypes.c_int64),
        ("kill_left", ctypes.c_int64),
        ("calls", ctypes.c_int64),
        ("refsyncs", ctypes.c_int64),
        ("failed", ctypes.c_int64 * 32),
        ("failures", ctypes.c_int64),
    ]


class Shim:
    """The faults that are on; all are off at first."""

    def __init__(self, directory: Path) -> None:
        self._library = directory / "shim.so"
        self._file = directory / "faults"
        self._file.write_bytes(bytes(ctypes.sizeof(_Faults)))
        self.is_there = self._compile()
        with self._file.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), 0)
        self._faults = _Faults.from_buffer(self._map)

    def _compile(self) -> bool:
        compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
        if compiler is None:
            return False
        command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE), "-ldl"]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    @property
    def environ(self) -> Mapping[str, str]:
        """What the process that is to be faulty is started with."""
        return {"LD_PRELOAD": str(self._library), "FAULTS_FILE": str(self._file)} if self.is_there else {}

    def clear(self) -> None:
        """Turn everything off."""
        ctypes.memset(ctypes.addressof(self._faults), 0, ctypes.sizeof(_Faults))

    def move_clock(self, seconds: int) -> None:
        """Move the wall clock of the services."""
        self._faults.clock_s = seconds

    def write_short(self) -> None:
        """Let large writes write half of what they were given, and say EINTR now and then."""
        self._faults.short_writes = 1

    def fail_syncs(self, count: int, error: int = errno.EIO) -> None:
        """Let syncs of staged files fail; the ones after them say that all is well."""
        self._faults.fsync_errno = error
        self._faults.fsync_left = count

    def fail_renames(self, count: int, error: int) -> None:
        """Let renames fail."""
        self._faults.rename_errno = error
        self._faults.rename_left = count

    def kill_at(self, call: int) -> None:
        """Kill the process at this call from now on that changes a file system."""
        self._faults.kill_left = call

    @property
    def left(self) -> int:
        """How many faults of syncs and renames are still to come."""
        return int(self._faults.fsync_left + self._faults.rename_left)

    @property
    def calls(self) -> int:
        """How many calls changed a file system."""
        return int(self._faults.calls)

    @property
    def refsyncs(self) -> int:
        """How often a file was synced again after its sync had failed."""
        return int(self._faults.refsyncs)

    @staticmethod
    def is_loaded(pid: int) -> bool:
        """Whether a process has it."""
        with open(f"/proc/{pid}/maps", "rb") as maps:
            return os.fsencode("shim.so") in maps.read()
