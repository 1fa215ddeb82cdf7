"""The truth file: what the simulated detector says that it wrote, one JSON line for each finished write."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from beamkeeper.domain.names import from_b64, to_b64


class Kind(StrEnum):
    """What was written."""

    FRAME = "frame"
    NEXUS = "nexus"
    LOG = "log"
    FILE = "file"
    LINK = "link"
    SPECIAL = "special"


@dataclass(frozen=True, slots=True)
class Written:
    """One finished write; of a link, size and digest are those of its target's name."""

    path: bytes
    size: int
    blake3: str
    written_at_ns: int
    kind: Kind

    def to_line(self) -> bytes:
        """Return the line of the truth file."""
        fields = {
            "path_b64": to_b64(self.path),
            "size": self.size,
            "blake3": self.blake3,
            "written_at_ns": self.written_at_ns,
            "kind": self.kind,
        }
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Return what a line of the truth file says."""
        fields = json.loads(line)
        return cls(
            path=from_b64(fields["path_b64"]),
            size=int(fields["size"]),
            blake3=str(fields["blake3"]),
            written_at_ns=int(fields["written_at_ns"]),
            kind=Kind(fields["kind"]),
        )


def read_truth(file: Path) -> Iterator[Written]:
    """Yield every finished write; a last line without its end was torn by a crash and does not count."""
    if not file.exists():
        return
    with file.open("rb") as stream:
        for line in stream:
            if line.endswith(b"\n"):
                yield Written.from_line(line)


class Truth:
    """An open truth file, which knows what earlier runs wrote.

    It is locked while it is open: a detector that outlived a killed demo ends before the next begins.
    """

    def __init__(self, file: Path) -> None:
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self._cut_torn_line()
        self._last = {written.path: written for written in read_truth(file)}

    def _cut_torn_line(self) -> None:
        content = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        os.ftruncate(self._fd, content.rfind(b"\n") + 1)

    def last(self, path: bytes) -> Written | None:
        """Return the last finished write of a path."""
        return self._last.get(path)

    def add(self, written: Written) -> None:
        """Append a finished write in one system call, so that a kill leaves a whole line or none."""
        os.write(self._fd, written.to_line())
        self._last[written.path] = written

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
