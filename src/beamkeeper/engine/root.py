"""The watched directory itself: whether it is there, and whether it is the one that it was.

What is not there, or lies under another mount, is unavailable: nothing in it counts as deleted. After `umount`
an empty mount point stands where the detector's files were, and must not be taken for them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Self

from beamkeeper.domain.names import show_path
from beamkeeper.engine.mounts import Mount, mount_of


class Standing(StrEnum):
    """What is found at the path of a watched directory."""

    SAME = "same"
    RETURNED = "returned"
    """It is there and to be scanned: for the first time, or after it was away or was mounted anew."""
    REPLACED = "replaced"
    """Another directory of the same file system stands there now."""
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class RootId:
    """What tells a directory from another that stands at its path. `devices` has every number that it had."""

    ino: int
    devices: tuple[int, ...]
    mount: Mount

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote."""
        return cls(int(data["ino"]), tuple(int(device) for device in data["devices"]), Mount(**data["mount"]))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"ino": self.ino, "devices": list(self.devices), "mount": asdict(self.mount)}


class Root:
    """A watched directory, by its path; `known` is what was written down of it before."""

    def __init__(self, path: bytes, known: RootId | None) -> None:
        self.path = path
        self.known = known
        self.why = ""
        """Why it is unavailable."""
        self._current: tuple[int, int] | None = None

    @property
    def is_open(self) -> bool:
        """Whether it was there when we last looked."""
        return self._current is not None

    @property
    def device(self) -> int:
        """The number of the device that it is on now."""
        return self._current[0] if self._current else -1

    def has_had(self, device: int) -> bool:
        """Whether its device had this number, before it was mounted anew."""
        return self.known is not None and device in self.known.devices

    def look(self) -> Standing:
        """Look what is there, and take it for the directory unless it is unavailable."""
        try:
            found = os.stat(self.path)
            if self._current == (found.st_dev, found.st_ino):
                return Standing.SAME
            now = self._identify()
        except OSError as error:
            return self._lose(_why_not(error))
        before, self.why = self.known, ""
        if before is not None and before.mount != now.mount and not _is_same_inode(before, now):
            return self._lose(f"something else is mounted there ({_described(now.mount)}): was it unmounted?")
        is_replaced = before is not None and before.ino != now.ino
        devices = dict.fromkeys([*(before.devices if before and not is_replaced else ()), *now.devices])
        self.known = replace(now, devices=tuple(devices))
        self._current = (now.devices[0], now.ino)
        return Standing.REPLACED if is_replaced else Standing.RETURNED

    def is_same(self) -> bool:
        """Whether the directory that we looked at is still the one at its path; what is not found is gone only then."""
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        return self._current == (found.st_dev, found.st_ino)

    def _lose(self, why: str) -> Standing:
        self.why = f"/{show_path(self.path[1:])} is unavailable: {why}"
        self._current = None
        return Standing.UNAVAILABLE

    def _identify(self) -> RootId:
        # Opened for reading, so that an automounter mounts it.
        opened = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(opened)
            if not stat.S_ISDIR(found.st_mode):
                raise NotADirectoryError
            return RootId(found.st_ino, (found.st_dev,), mount_of(opened))
        finally:
            os.close(opened)


def _is_same_inode(before: RootId, now: RootId) -> bool:
    return before.ino == now.ino and now.devices[0] in before.devices


def _why_not(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if isinstance(error, NotADirectoryError):
        return "it is no directory"
    return f"it cannot be reached ({os.strerror(error.errno or 0).lower()})"


def _described(mount: Mount) -> str:
    return f"{mount.kind} of {show_path(os.fsencode(mount.source))}"
