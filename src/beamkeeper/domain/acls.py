"""POSIX access control lists, as the kernel keeps them in extended attributes."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self

from beamkeeper.domain.errors import InvalidError

ACCESS = "system.posix_acl_access"
DEFAULT = "system.posix_acl_default"
"""Of a directory: what is made in it gets these rights, whatever the umask of who makes it."""

_VERSION = 2
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_NOBODY = 2**32 - 1


class _Tag(IntEnum):
    """Whom an entry is for, as in linux/posix_acl.h."""

    OWNER = 0x01
    USER = 0x02
    OWNING_GROUP = 0x04
    GROUP = 0x08
    MASK = 0x10
    OTHER = 0x20


_TAGS = frozenset(_Tag)


@dataclass(frozen=True, slots=True)
class Acl:
    """Who may read (4), write (2) and execute or enter (1); `mask` is the most that named ones and groups get."""

    owner: int
    group: int
    other: int
    users: Mapping[int, int] = field(default_factory=dict)
    groups: Mapping[int, int] = field(default_factory=dict)
    mask: int | None = None

    @classmethod
    def of_mode(cls, mode: int) -> Self:
        """Return the list that a mode stands for."""
        return cls((mode >> 6) & 7, (mode >> 3) & 7, mode & 7)

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Return the list that an extended attribute holds."""
        if (
            len(raw) < _HEADER.size
            or (len(raw) - _HEADER.size) % _ENTRY.size
            or _HEADER.unpack_from(raw)[0] != _VERSION
        ):
            raise InvalidError("this is no access control list of the version that we know")
        single: dict[_Tag, int] = {}
        users, groups = {}, {}
        for number, rights, who in _ENTRY.iter_unpack(raw[_HEADER.size :]):
            if number not in _TAGS:
                raise InvalidError(f"this access control list has an entry of a kind that we do not know: {number}")
            tag = _Tag(number)
            if tag is _Tag.USER:
                users[who] = rights
            elif tag is _Tag.GROUP:
                groups[who] = rights
            else:
                single[tag] = rights
        owner, group, other = (single.get(tag, 0) for tag in (_Tag.OWNER, _Tag.OWNING_GROUP, _Tag.OTHER))
        return cls(owner, group, other, users, groups, single.get(_Tag.MASK))

    def encode(self) -> bytes:
        """Return the extended attribute; the kernel wants the entries in this order."""
        entries = [(_Tag.OWNER, self.owner, _NOBODY)]
        entries += [(_Tag.USER, rights, uid) for uid, rights in sorted(self.users.items())]
        entries.append((_Tag.OWNING_GROUP, self.group, _NOBODY))
        entries += [(_Tag.GROUP, rights, gid) for gid, rights in sorted(self.groups.items())]
        if self.mask is not None:
            entries.append((_Tag.MASK, self.mask, _NOBODY))
        entries.append((_Tag.OTHER, self.other, _NOBODY))
        return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries)

    def of_groups(self, owning_gid: int) -> dict[int, int]:
        """Return what each group really gets; none of those that get nothing."""
        most = 7 if self.mask is None else self.mask
        found = {owning_gid: self.group & most}
        for gid, rights in self.groups.items():
            found[gid] = found.get(gid, 0) | (rights & most)
        return {gid: rights for gid, rights in found.items() if rights}

    def of_users(self) -> dict[int, int]:
        """Return what each named user really gets; none of those that get nothing."""
        most = 7 if self.mask is None else self.mask
        return {uid: rights & most for uid, rights in self.users.items() if rights & most}
