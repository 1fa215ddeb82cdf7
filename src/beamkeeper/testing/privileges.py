"""Taking from root what other people do not have, so that tests of rights mean something when root runs them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

CAP_CHOWN = 0
CAP_FSETID = 4
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
"""Numbers of linux/capability.h: the last two let root read and write whatever the mode of a file says."""

_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Set(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextmanager
def without(*capabilities: int) -> Iterator[None]:
    """Take capabilities from this thread, and from those that it starts in the block.

    Nothing changes for others than root. The user stays the same, so that one's own files stay one's own.
    """
    if os.geteuid() != 0:
        yield
        return
    before = _get()
    reduced = (_Set * 2)(*before)
    for capability in capabilities:
        reduced[0].effective &= ~(1 << capability)
    _set(reduced)
    try:
        yield
    finally:
        _set(before)


@contextmanager
def ordinary_rights() -> Iterator[None]:
    """Let the mode of a file bind this thread, and those that it starts in the block, even where it is root's."""
    with without(CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        yield


def _get() -> ctypes.Array[_Set]:
    found = (_Set * 2)()
    _call("capget", found)
    return found


def _set(wanted: ctypes.Array[_Set]) -> None:
    _call("capset", wanted)


def _call(name: str, sets: ctypes.Array[_Set]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(ctypes.byref(_Header(_VERSION_3, 0)), sets) != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
