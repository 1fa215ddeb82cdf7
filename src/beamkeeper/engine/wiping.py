"""Deleting at the source: one file at a time, each looked at once more, by descriptor, right before."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from beamkeeper.db.wipe_entries import Planned
from beamkeeper.domain.files import FileKind
from beamkeeper.domain.wipes import EntryState, Reason, is_at_or_below
from beamkeeper.engine.beneath import Beneath
from beamkeeper.engine.finish import Writer
from beamkeeper.engine.opened import OpenFiles, held_open
from beamkeeper.engine.scan import identity_of

NOT_PERMITTED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

Outcome = tuple[EntryState, str, str]
"""What became of a file: its state, and where it was kept the reason."""

DELETED: Outcome = (EntryState.DELETED, "", "")


def kept(reason: Reason, why: str) -> Outcome:
    """Return that a file was kept, and why."""
    return EntryState.KEPT, reason, why


@dataclass(frozen=True, slots=True)
class Wiper:
    """Deletes files below one directory; `top` is its absolute path without the leading slash."""

    beneath: Beneath
    top: bytes

    def delete(self, entry: Planned, opened: OpenFiles, holds: Sequence[bytes]) -> Outcome:
        """Delete one file if it is still the one that was proven; a fault is its outcome, and stops nothing."""
        if any(is_at_or_below(entry.path, hold) for hold in holds):
            return kept(Reason.HELD, "it is held: `dm hold list` shows by whom")
        below = entry.path[len(self.top) + 1 :]
        parent, _, name = below.rpartition(b"/")
        try:
            directory = self.beneath.directory(parent)
            if entry.kind is FileKind.LINK:
                return self._unlink_same(entry, directory, name)
            return self._delete_file(entry, below, directory, name, opened=opened)
        except (FileNotFoundError, NotADirectoryError):
            return kept(Reason.GONE, "it is not there any more")
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            if error.errno in NOT_PERMITTED:
                return kept(Reason.NOT_PERMITTED, f"we may not delete it: {why}")
            if error.errno == errno.ELOOP:
                return kept(Reason.CHANGED, "a link stands in its place, or in its way")
            return kept(Reason.UNREADABLE, f"it cannot be deleted: {why}")

    def _delete_file(self, entry: Planned, below: bytes, directory: int, name: bytes, *, opened: OpenFiles) -> Outcome:
        descriptor = self.beneath.open(below)
        try:
            found = os.fstat(descriptor)
            if identity_of(found) != entry.identity:
                return kept(Reason.CHANGED, "it is another file than the one that was proven, or has changed")
            if held_open(descriptor) is Writer.OPEN or opened.has(found):
                return kept(Reason.OPEN, "a process has it open")
            return self._unlink_same(entry, directory, name)
        finally:
            os.close(descriptor)

    def _unlink_same(self, entry: Planned, directory: int, name: bytes) -> Outcome:
        """Look at the name itself for the last time, and unlink it with nothing between."""
        if identity_of(os.lstat(name, dir_fd=directory)) != entry.identity:
            return kept(Reason.CHANGED, "it is another file than the one that was proven, or has changed")
        os.unlink(name, dir_fd=directory)
        return DELETED

    def is_there(self, entry: Planned) -> bool:
        """Whether a file stands at its name, be it the proven one or another."""
        try:
            return self.beneath.lstat(entry.path[len(self.top) + 1 :]) is not None
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                return False
            raise

    def remove_empty(self, directories: Iterable[bytes], is_needed: Callable[[bytes], bool]) -> int:
        """Remove directories that are empty now, and those above that become so; never the top itself.

        `is_needed` tells of an absolute path whether it has to stay. Returns how many were removed.
        """
        removed = 0
        waiting = {path[len(self.top) + 1 :] for path in directories if len(path) > len(self.top)}
        while waiting:
            deepest = max(waiting, key=lambda path: (path.count(b"/"), path))
            waiting.discard(deepest)
            parent, _, name = deepest.rpartition(b"/")
            if is_needed(self.top + b"/" + deepest):
                continue
            try:
                self.beneath.forget(deepest)
                os.rmdir(name, dir_fd=self.beneath.directory(parent))
            except OSError:
                continue  # it is not empty, not there, or not ours to remove
            removed += 1
            if parent:
                waiting.add(parent)
        return removed


def write_list(path: Path, entries: Iterable[bytes]) -> None:
    """Write absolute paths, each ended by NUL, to a file that only its owner may read; whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for entry in entries:
            file.write(b"/" + entry + b"\0")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
