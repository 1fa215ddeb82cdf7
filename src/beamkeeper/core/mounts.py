"""Mounts: what a directory lies on, and whether two paths lead to the same files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from beamkeeper.domain.acquisition import overlaps

MOUNTS = "/proc/self/mountinfo"


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system, as the kernel's table has it (proc(5), mountinfo)."""

    point: str = ""
    root: str = ""
    kind: str = "unknown"
    source: str = ""


def mount_of(descriptor: int) -> Mount:
    """Return the mount that an open directory was reached by; an empty one where it is not mounted any more."""
    with open(f"/proc/self/fdinfo/{descriptor}") as facts:
        wanted = next((line.split()[1] for line in facts if line.startswith("mnt_id:")), "")
    return next((mount for number, _, mount in _table() if number == wanted), Mount())


def _table() -> Sequence[tuple[str, str, Mount]]:
    """Return the mounts that this process sees, each with its number and that of its file system."""
    found = []
    with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            number, _, rest = line.partition(" ")
            fields, _, source = rest.partition(" - ")
            _, device, root, point, *_ = fields.split(" ")
            kind, name, *_ = source.split(" ")
            found.append((number, device, Mount(point, root, kind, name)))
    return found


def unescaped(path: bytes) -> bytes:
    """Return a path of the kernel's tables as it is: blanks and the like are octal numbers there."""
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8) & 0xFF]), path)


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a directory lies, whatever path leads to it: on which file system, and in which of its directories.

    `inside` has the path within the file system, and those of others that are mounted below it from the same one.
    """

    devices: frozenset[int]
    ino: int
    inside: tuple[bytes, ...]
    above: frozenset[tuple[int, int]] = frozenset()
    """Device and inode of itself and each directory above it."""

    @classmethod
    def of(cls, path: bytes) -> Self | None:
        """Look where a directory lies; None where that cannot be seen."""
        try:
            opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                found, mount = os.fstat(opened), mount_of(opened)
            finally:
                os.close(opened)
            above = frozenset(_above(path))
            return cls(frozenset({found.st_dev}), found.st_ino, _inside(path, mount), above)
        except OSError:
            return None

    @classmethod
    def known(cls, path: bytes, root: Mapping[str, Any]) -> Self:
        """Return where a directory lies from what was written down of it: it is not looked at, for it may hang."""
        devices = frozenset(int(device) for device in root["devices"])
        return cls(devices, int(root["ino"]), _inside(path, Mount(**root["mount"])))

    def meets(self, other: Whereabouts) -> bool:
        """Whether some file can be found in both of them."""
        if any((device, other.ino) in self.above for device in other.devices):
            return True
        if any((device, self.ino) in other.above for device in self.devices):
            return True
        is_same = bool(self.devices & other.devices)
        return is_same and any(overlaps(one, another) for one in self.inside for another in other.inside)


def _above(path: bytes) -> list[tuple[int, int]]:
    found = []
    while True:
        status = os.stat(path)
        found.append((status.st_dev, status.st_ino))
        if path in (b"/", b""):
            return found
        path = os.path.dirname(path)


def _inside(path: bytes, mount: Mount) -> tuple[bytes, ...]:
    """Return where a directory lies in its own file system, and what else of that is mounted below it."""
    point, root = (unescaped(os.fsencode(text)) for text in (mount.point, mount.root))
    top = point.rstrip(b"/")
    if not point or (not path.startswith(top + b"/") and path != top):
        return ()
    table = _table()
    devices = {device for _, device, other in table if (other.point, other.root) == (mount.point, mount.root)}
    below = [
        unescaped(os.fsencode(other.root))
        for _, device, other in table
        if device in devices and unescaped(os.fsencode(other.point)).startswith(path.rstrip(b"/") + b"/")
    ]
    return (os.path.normpath(root + b"/" + path[len(top) :]), *below)
