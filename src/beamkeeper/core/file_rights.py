"""What the kernel and a file system let this service do for rights on files."""

from __future__ import annotations

import errno
import grp
import os
from collections.abc import Collection
from pathlib import Path

from beamkeeper.domain.acls import DEFAULT
from beamkeeper.domain.area_rights import FileRights

CAP_CHOWN, CAP_FSETID = 0, 4
"""Numbers of linux/capability.h. The second lets setgid stay where the group is not our own."""

MOST_UNKNOWN = 5


def has_acls(directory: int | str) -> bool:
    """Whether the file system of a directory keeps access control lists."""
    try:
        os.getxattr(directory, DEFAULT)
    except OSError as error:
        return error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS)
    return True


def may_give_any() -> bool:
    """Whether we may give files to groups that we are not of."""
    both = 1 << CAP_CHOWN | 1 << CAP_FSETID
    for line in Path("/proc/thread-self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16) & both == both
    return False


def may_give(gid: int) -> bool:
    """Whether we may give files to this group."""
    return gid == os.getegid() or gid in os.getgroups() or may_give_any()


def known_as(gid: int) -> str | None:
    """Return the name that this host has for a group; None where it knows none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None


def number_of(name: str) -> int | None:
    """Return the number that this host has for a group; None where it knows none."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def look(path: str, gids: Collection[int] = ()) -> FileRights:
    """Return what applies in a storage area, and which of these groups the host does not know."""
    unknown = [gid for gid in gids if known_as(gid) is None]
    return FileRights(
        has_acls=has_acls(path),
        may_give=may_give_any() or (bool(gids) and all(may_give(gid) for gid in gids)),
        unknown_gids=tuple(unknown[:MOST_UNKNOWN]),
    )
