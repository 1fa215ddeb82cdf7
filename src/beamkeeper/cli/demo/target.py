"""The directory that the simulated detector writes to, and what of it is finished already."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

from blake3 import blake3

from beamkeeper.cli.demo.truth import Kind, Truth, Written

BLOCK_BYTES = 1024 * 1024


class Target:
    """A directory and its truth file; paths are bytes below the directory.

    Everything may be asked for again after a kill: what is whole stays untouched, what is not is written anew.
    """

    def __init__(self, directory: Path, truth: Truth) -> None:
        self.top = os.fsencode(directory)
        self.truth = truth

    def absolute(self, path: bytes) -> bytes:
        """Return the absolute path, with the directories above it made."""
        absolute = os.path.join(self.top, path)
        os.makedirs(os.path.dirname(absolute), exist_ok=True)
        return absolute

    def is_finished(self, path: bytes) -> bool:
        """Whether the truth has this path and the disk still has it whole."""
        written = self.truth.last(path)
        if written is None:
            return False
        try:
            found = os.lstat(os.path.join(self.top, path))
        except FileNotFoundError:
            return False
        return not stat.S_ISREG(found.st_mode) or found.st_size == written.size

    def put(self, path: bytes, content: bytes, kind: Kind = Kind.FILE) -> None:
        """Write a file in one go."""
        if self.is_finished(path):
            return
        absolute = self.absolute(path)
        digest = blake3(content).hexdigest()
        if self._digest(absolute) == digest:
            # The kill came between the last byte and the truth's line.
            written_at_ns = os.lstat(absolute).st_mtime_ns
        else:
            with open(absolute, "wb", buffering=0) as file:
                file.write(content)
            written_at_ns = time.time_ns()
        self.truth.add(Written(path, len(content), digest, written_at_ns, kind))

    def link(self, path: bytes, target: bytes) -> None:
        """Make a symbolic link."""
        if self.is_finished(path):
            return
        absolute = self.absolute(path)
        if not os.path.lexists(absolute):
            os.symlink(target, absolute)
        self.truth.add(Written(path, len(target), blake3(target).hexdigest(), time.time_ns(), Kind.LINK))

    def fifo(self, path: bytes) -> None:
        """Make a named pipe, which nobody can store."""
        if self.is_finished(path):
            return
        absolute = self.absolute(path)
        if not os.path.lexists(absolute):
            os.mkfifo(absolute)
        self.truth.add(Written(path, 0, "", time.time_ns(), Kind.SPECIAL))

    def record(self, path: bytes, kind: Kind, written_at_ns: int) -> None:
        """Add a file that was just written to the truth, by reading it."""
        absolute = self.absolute(path)
        self.truth.add(Written(path, os.lstat(absolute).st_size, hash_file(absolute), written_at_ns, kind))

    @staticmethod
    def _digest(absolute: bytes) -> str | None:
        return hash_file(absolute) if os.path.lexists(absolute) else None


def hash_file(absolute: bytes) -> str:
    """Return the BLAKE3 digest of a file's bytes; a link is refused, not followed."""
    hasher = blake3()
    descriptor = os.open(absolute, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(descriptor, "rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            hasher.update(block)
    return hasher.hexdigest()
