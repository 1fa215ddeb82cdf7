"""What tests of whole stations share: mounting something over a directory, where the account may."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

MNT_DETACH = 2


@pytest.fixture
def mounted() -> Iterator[Callable[[Path], None]]:
    """Give what mounts an empty file system over a directory, until the test ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    places: list[Path] = []

    def mount(place: Path) -> None:
        if libc.mount(b"none", os.fsencode(place), b"tmpfs", 0, b"size=1m") != 0:
            pytest.skip(f"this account cannot mount: {os.strerror(ctypes.get_errno())}")
        places.append(place)

    yield mount
    for place in places:
        libc.umount2(os.fsencode(place), MNT_DETACH)
