"""A fresh listing of a directory that may be wiped: every entry, by descriptor, no link followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from beamkeeper.db.wipe_entries import NewEntry
from beamkeeper.domain.acquisition import CANARY_PREFIX
from beamkeeper.domain.files import FileKind, SourceIdentity
from beamkeeper.domain.wipes import Reason
from beamkeeper.engine.beneath import Beneath
from beamkeeper.engine.scan import identity_of

AT_ONCE = 500
"""So many entries are judged together."""

CANARY = CANARY_PREFIX.encode()


@dataclass(slots=True)
class Entry:
    """One entry: where it is, what it is, and what was found of it so far. Paths have no leading slash."""

    path: bytes
    below: bytes
    """Its path below the directory that was listed."""
    status: os.stat_result | None
    kind: FileKind | None = None
    target: bytes | None = None
    reason: str = ""
    why: str = ""
    version_uid: UUID | None = None
    replica_uid: UUID | None = None
    is_unseen: bool = False
    """It cannot be seen from here whether a process has it open."""

    @property
    def is_open(self) -> bool:
        """Whether it is still to be judged."""
        return not self.reason

    @property
    def identity(self) -> SourceIdentity | None:
        """What says that it is still the same."""
        return identity_of(self.status) if self.status is not None else None

    def refuse(self, reason: str, why: str) -> None:
        """Say why it is not proven; what was said first stays."""
        if not self.reason:
            self.reason, self.why = reason, why

    def judged(self) -> NewEntry:
        """Return it as it is written down."""
        return NewEntry(
            path=self.path,
            kind=self.kind,
            identity=self.identity,
            reason=self.reason,
            why=self.why,
            version_uid=self.version_uid,
            replica_uid=self.replica_uid,
        )


class Tree:
    """A directory and everything below it, listed once."""

    def __init__(self, beneath: Beneath, top: bytes) -> None:
        self.directories = 0
        self._beneath = beneath
        self._top = top
        self._device = os.fstat(beneath.directory(b"")).st_dev

    def entries(self) -> Iterator[Sequence[Entry]]:
        """Yield entries, AT_ONCE together and of one directory; a directory that cannot be read is an entry too."""
        waiting = [b""]
        while waiting:
            directory = waiting.pop()
            self.directories += 1
            try:
                names = sorted(os.listdir(self._beneath.directory(directory)))
            except FileNotFoundError:
                continue
            except OSError as error:
                yield [self._refused(directory, Reason.UNREADABLE, f"the directory cannot be read: {_why(error)}")]
                continue
            below: list[bytes] = []
            for start in range(0, len(names), AT_ONCE):
                yield self._some(directory, names[start : start + AT_ONCE], below)
            waiting.extend(reversed(below))

    def _some(self, directory: bytes, names: Sequence[str], below: list[bytes]) -> list[Entry]:
        found: list[Entry] = []
        for name in names:
            raw = os.fsencode(name)
            if raw.startswith(CANARY):
                continue  # ours, and gone in a moment
            path = directory + b"/" + raw if directory else raw
            try:
                status = self._beneath.lstat(path)
                if status is not None:
                    entry = self._entry(path, status)
                    if entry is None:
                        below.append(path)
                    else:
                        found.append(entry)
            except OSError as error:
                found.append(self._refused(path, Reason.UNREADABLE, f"it cannot be looked at: {_why(error)}"))
        return found

    def _entry(self, path: bytes, status: os.stat_result) -> Entry | None:
        """Return an entry; None where it is a directory that is to be listed too."""
        if stat.S_ISDIR(status.st_mode):
            if status.st_dev == self._device:
                return None
            return self._refused(path, Reason.OTHER_DEVICE, "another file system is mounted there")
        entry = Entry(self._absolute(path), path, status)
        if stat.S_ISREG(status.st_mode):
            entry.kind = FileKind.FILE
        elif stat.S_ISLNK(status.st_mode):
            entry.kind, entry.target = FileKind.LINK, self._beneath.readlink(path)
        else:
            entry.refuse(Reason.SPECIAL, "it is neither a file nor a link")
        return entry

    def _refused(self, path: bytes, reason: Reason, why: str) -> Entry:
        return Entry(self._absolute(path), path, None, reason=reason, why=why)

    def _absolute(self, path: bytes) -> bytes:
        return self._top + b"/" + path if path else self._top


def _why(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()
