"""Listing a directory and all below it, a directory at a time, never following a link."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from beamkeeper.domain.acquisition import CANARY_PREFIX
from beamkeeper.domain.files import SourceIdentity

CANARY = CANARY_PREFIX.encode()

FILE_SYSTEMS_OWN = frozenset({b"lost+found", b".snapshot"})
"""What a file system keeps for itself where it is mounted; elsewhere such a name is somebody's."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One directory: what stands in it, or why it could not be read. Paths are relative to the root."""

    directory: bytes
    entries: list[tuple[bytes, os.stat_result]]
    error: OSError | None = None
    passed_over: list[bytes] = field(default_factory=list)
    """What is the file system's own, and not entered."""


def walk(root: bytes, top: bytes, entering: Callable[[bytes], None]) -> Iterator[Listing]:
    """List `top` (relative to `root`; empty for itself) and all below; `entering` is called before each is read.

    Depth is bounded by memory only. A directory that is gone meanwhile is passed over; one that cannot be read
    is told. Directories on another device are not entered: they are another mount.
    """
    device = os.lstat(root).st_dev
    try:
        is_elsewhere = bool(top) and os.lstat(os.path.join(root, top)).st_dev != device
    except OSError:
        is_elsewhere = False  # what opening it shows is told
    waiting = [] if is_elsewhere else [top]
    while waiting:
        directory = waiting.pop()
        entering(directory)
        listing = _list(root, directory)
        if listing is None:
            continue
        below = [path for path, found in listing.entries if stat.S_ISDIR(found.st_mode) and found.st_dev == device]
        waiting.extend(sorted(below, reverse=True))
        yield listing


def _is_mount(root: bytes, directory: bytes) -> bool:
    return os.path.ismount(os.path.join(root, directory) if directory else root)


def _list(root: bytes, directory: bytes) -> Listing | None:
    entries: list[tuple[bytes, os.stat_result]] = []
    passed_over: list[bytes] = []
    try:
        opened = os.open(
            os.path.join(root, directory) if directory else root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        return Listing(directory, [], error)
    try:
        with os.scandir(opened) as found:
            for entry in found:
                name = os.fsencode(entry.name)
                if name.startswith(CANARY):
                    continue  # ours, and gone in a moment
                if name in FILE_SYSTEMS_OWN and _is_mount(root, directory):
                    passed_over.append(directory + b"/" + name if directory else name)
                    continue
                try:
                    entries.append((directory + b"/" + name if directory else name, entry.stat(follow_symlinks=False)))
                except FileNotFoundError:
                    continue
    except OSError as error:
        return Listing(directory, entries, error)
    finally:
        os.close(opened)
    return Listing(directory, entries, passed_over=passed_over)


def identity_of(found: os.stat_result) -> SourceIdentity:
    """Return what says that a file is still the same."""
    return SourceIdentity.model_construct(
        dev=found.st_dev,
        ino=found.st_ino,
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
    )
