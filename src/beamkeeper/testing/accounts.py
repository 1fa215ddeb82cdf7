"""Being somebody else for a moment, so that root too is refused what an ordinary account is."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NOBODY = 65534


@contextmanager
def unprivileged() -> Generator[None]:
    """Act without the rights of root while the block lasts; for everybody else nothing changes."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@dataclass(frozen=True)
class Person:
    """An account of a POSIX host, by its numbers alone: what it can do with files is tried in a process of its own."""

    uid: int
    gid: int = NOBODY
    groups: tuple[int, ...] = ()

    def may(self, program: str, *arguments: str | Path) -> bool:
        """Whether a command ends well where this person runs it, with the umask of most people."""
        done = subprocess.run(
            [program, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self.uid,
            group=self.gid,
            extra_groups=self.groups,
            umask=0o022,
            cwd="/",
            check=False,
        )
        return done.returncode == 0

    def may_read(self, path: Path) -> bool:
        """Whether this person can read a file, or list a directory."""
        return self.may("ls" if path.is_dir() else "cat", path)

    def may_write(self, path: Path) -> bool:
        """Whether this person can open a file for writing; nothing is written."""
        return self.may("dd", f"of={path}", "if=/dev/null", "conv=notrunc,nocreat")
