"""Mounts: what a directory lies on, and whether other machines write to it through this one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from glob import glob

from beamkeeper.core.mounts import Mount, mount_of, unescaped
from beamkeeper.domain.acquisition import overlaps

__all__ = ["Mount", "exported", "is_exported", "mount_of"]

EXPORT_TABLES = ("/etc/exports", "/etc/exports.d/*.exports", "/var/lib/nfs/etab", "/proc/fs/nfsd/exports")
"""Where Linux says which directories it serves to others over NFS (exports(5)); not every one can be read."""


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
        path = unescaped(match[1] or match[2]) if match else b""
        if path.startswith(b"/"):
            found.append(os.path.realpath(path))
    return found
