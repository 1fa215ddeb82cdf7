"""Listing a directory and all below it, a directory at a time, never following a link."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from beamkeeper.domain.acquisition import CANARY_PREFIX
from beamkeeper.domain.files import SourceIdentity

CANARY = CANARY_PREFIX.encode()

FILE_SYSTEMS_OWN = frozenset({b"lost+found", b".snapshot"})
"""What a file system keeps for itself where it is mounted; elsewhere such a name is somebody's."""


Entry = tuple[bytes, os.stat_result]

AT_ONCE = 2000
"""So many entries of one directory are taken together: detectors write a million files into one."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One directory, or a part of a large one: what stands in it, or why it could not be read.

    Paths are relative to the root.
    """

    directory: bytes
    entries: list[Entry]
    error: OSError | None = None
    passed_over: list[bytes] = field(default_factory=list)
    """What is the file system's own, and not entered."""
    is_part: bool = False
    names: Collection[bytes] | None = None
    """With the last part of a directory: the names of all its parts."""


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
        below: list[bytes] = []
        for listing in _list(root, directory):
            below += [path for path, found in listing.entries if stat.S_ISDIR(found.st_mode) and found.st_dev == device]
            yield listing
        waiting.extend(sorted(below, reverse=True))


def _is_mount(root: bytes, directory: bytes) -> bool:
    return os.path.ismount(os.path.join(root, directory) if directory else root)


def _list(root: bytes, directory: bytes) -> Iterator[Listing]:
    """List one directory, in parts where it is large; one that is gone has none."""
    try:
        opened = os.open(
            os.path.join(root, directory) if directory else root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        )
    except FileNotFoundError:
        return
    except OSError as refusal:
        yield Listing(directory, [], refusal)
        return
    entries: list[Entry] = []
    passed_over: list[bytes] = []
    names: set[bytes] = set()
    error: OSError | None = None
    try:
        for entry in _entries(opened, root, directory, passed_over):
            if len(entries) >= AT_ONCE:
                names |= _names(entries)
                yield Listing(directory, entries, is_part=True)
                entries = []
            entries.append(entry)
    except OSError as failure:
        error = failure
    finally:
        os.close(opened)
    if names:
        names |= _names(entries)
    yield Listing(directory, entries, error, passed_over, is_part=bool(names), names=names or None)


def _names(entries: list[Entry]) -> set[bytes]:
    return {path.rpartition(b"/")[2] for path, _ in entries}


def _entries(opened: int, root: bytes, directory: bytes, passed_over: list[bytes]) -> Iterator[Entry]:
    with os.scandir(opened) as found:
        for entry in found:
            name = os.fsencode(entry.name)
            if name.startswith(CANARY):
                continue  # ours, and gone in a moment
            path = directory + b"/" + name if directory else name
            if name in FILE_SYSTEMS_OWN and _is_mount(root, directory):
                passed_over.append(path)
                continue
            try:
                yield path, entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue


def identity_of(found: os.stat_result) -> SourceIdentity:
    """Return what says that a file is still the same."""
    return SourceIdentity.model_construct(
        dev=found.st_dev,
        ino=found.st_ino,
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
    )
