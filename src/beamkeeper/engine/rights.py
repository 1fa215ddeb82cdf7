"""Giving a published file its rights: those of the tree that it is in, whoever brought it and by which transport."""

from __future__ import annotations

import os
from contextlib import suppress

from beamkeeper.domain.acls import ACCESS, DEFAULT, Acl

Given = tuple[int, int, str]
"""A mode, a group, and an access control list as hexadecimal digits, empty where the mode says all."""


def given_in(tree: int, mode: int) -> Given:
    """Return the rights of files of this mode in a tree that is open."""
    try:
        inherited = Acl.decode(os.getxattr(tree, DEFAULT))
    except OSError:  # it has none, or its file system knows none
        inherited = None
    gid = os.fstat(tree).st_gid
    if inherited is None or not inherited.groups:
        return mode, gid, ""
    plain = Acl.of_mode(mode)
    named = {group: rights & plain.group for group, rights in inherited.groups.items()}
    made = Acl(plain.owner, inherited.group & plain.group, plain.other, groups=named, mask=plain.group)
    return mode, gid, made.encode().hex()


def give(descriptor: int, given: Given) -> None:
    """Give an open file its rights."""
    mode, gid, acl = given
    if os.fstat(descriptor).st_gid != gid:
        with suppress(OSError):  # `dm experiment permissions check` tells of it
            os.fchown(descriptor, -1, gid)
    os.fchmod(descriptor, mode)
    if acl:
        os.setxattr(descriptor, ACCESS, bytes.fromhex(acl))
