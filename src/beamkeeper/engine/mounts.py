"""Mounts: what a directory lies on, and whether other machines write to it through this one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from glob import glob

from beamkeeper.domain.acquisition import overlaps

EXPORT_TABLES = ("/etc/exports", "/etc/exports.d/*.exports", "/var/lib/nfs/etab", "/proc/fs/nfsd/exports")
"""Where Linux says which directories it serves to others over NFS (exports(5)); not every one can be read."""


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
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            number, _, rest = line.partition(" ")
            if number == wanted:
                fields, _, source = rest.partition(" - ")
                _, _, root, point, *_ = fields.split(" ")
                kind, name, *_ = source.split(" ")
                return Mount(point, root, kind, name)
    return Mount()


def exported(tables: Iterable[str] = EXPORT_TABLES) -> list[bytes]:
    """Return the directories that this machine serves to others, as far as we may know."""
    found: list[bytes] = []
    for pattern in tables:
        for path in glob(pattern):
            try:
                with open(path, "rb") as table:
                    found += _directories(table.read())
            except OSError:
                continue  # often nobody but root may read it: then nothing is known
    return found


def is_exported(directory: bytes, served: Sequence[bytes]) -> bool:
    """Whether a directory, or a part of it, is served to others."""
    return any(overlaps(directory, other) for other in served)


def _directories(table: bytes) -> list[bytes]:
    found = []
    for line in table.replace(b"\\\n", b" ").splitlines():
        match = re.match(rb'\s*(?:"([^"]+)"|([^\s#"]\S*))', line)
        path = _unescaped(match[1] or match[2]) if match else b""
        if path.startswith(b"/"):
            found.append(os.path.realpath(path))
    return found


def _unescaped(path: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8) & 0xFF]), path)
