"""Looking at the rights of one experiment's files, one after the other, and putting them right.

Everything is reached by descriptors, no link is followed, and nothing is opened for reading: a FIFO or a device is left
alone. Directories go before what is in them, so that what is made meanwhile has the right rights by itself.
"""

from __future__ import annotations

import errno
import heapq
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from beamkeeper.core import file_rights
from beamkeeper.domain.acls import ACCESS, DEFAULT, Acl
from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.file_rights import (
    DIRECTORY_MODES,
    FILE_MODES,
    HIDDEN,
    PLACES,
    Place,
    Rights,
    Way,
    place_of,
    way_for,
)
from beamkeeper.domain.names import show_path, to_b64
from beamkeeper.domain.permissions import FaultKind, PermissionFault
from beamkeeper.engine.beneath import Beneath

AT_ONCE = 50_000
"""So many names of one directory are held in memory."""

DEEPEST = 200
"""Directories below so many others are passed over, and told of."""

GONE = frozenset({errno.ENOENT, errno.ENOTDIR})
WHOLE_PLACE = frozenset({errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT, errno.ENOTCONN})
"""Faults of the place, not of the file: the walk ends."""

HIDDEN_PREFIX = HIDDEN.encode() + b"/"
TREES = tuple(name.encode() for name in sorted(PLACES) if not name.startswith(HIDDEN))


def rights_of(beneath: Beneath, gid: int | None) -> Rights:
    """Return how rights are given below an experiment's directory."""
    has_acls = file_rights.has_acls(beneath.directory(b""))
    way = way_for(gid, may_give=gid is not None and file_rights.may_give(gid), has_acls=has_acls)
    return Rights(way, gid, has_acls=has_acls)


def own_directories() -> Iterator[bytes]:
    """Yield what an experiment begins with, each after its parent."""
    yield b""
    yield from (name.encode() for name in PLACES)


def paths_after(beneath: Beneath, after: bytes, *, at_once: int = AT_ONCE) -> Iterator[bytes]:
    """Yield everything in the trees of people, directories before what is in them, from beyond `after`.

    Names go by their bytes, some at a time, so that no directory is too large. What goes meanwhile is passed over.
    """
    resumed = tuple(after.split(b"/")) if after else ()
    for tree in TREES:
        if not resumed or tree > resumed[0]:
            yield from _below(beneath, tree, (), at_once)
        elif tree == resumed[0]:
            yield from _below(beneath, tree, resumed[1:], at_once)


def _below(beneath: Beneath, directory: bytes, resumed: tuple[bytes, ...], at_once: int) -> Iterator[bytes]:
    """Yield what is below a directory; of that, what comes after the path of parts `resumed`."""
    waiting = [(directory, _names(beneath, directory, resumed, at_once), resumed)]
    while waiting:
        above, names, resumed = waiting[-1]
        found = next(names, None)
        if found is None:
            waiting.pop()
            continue
        name, is_directory = found
        path = above + b"/" + name
        is_passed = bool(resumed) and name == resumed[0]
        if not is_passed:
            yield path
        if is_directory and path.count(b"/") < DEEPEST:
            rest = resumed[1:] if is_passed else ()
            waiting.append((path, _names(beneath, path, rest, at_once), rest))


def _names(
    beneath: Beneath, directory: bytes, resumed: tuple[bytes, ...], at_once: int
) -> Iterator[tuple[bytes, bool]]:
    """Yield the names of a directory in the order of their bytes, and whether each is a directory.

    Where a walk is resumed, those from the first of its parts on. Of another file system that is mounted there, none.
    """
    last, is_included = (resumed[0], True) if resumed else (b"", False)
    while True:
        try:
            here = beneath.directory(directory)
            if os.fstat(here).st_dev != os.fstat(beneath.directory(b"")).st_dev:
                return
            with os.scandir(beneath.directory(directory)) as entries:
                named = ((os.fsencode(one.name), one.is_dir(follow_symlinks=False)) for one in entries)
                names = heapq.nsmallest(at_once, _from(named, last, is_included=is_included))
        except OSError as error:
            if error.errno in GONE or isinstance(error, PermissionError):
                return  # of what cannot be listed, the look at the directory itself has told
            raise
        yield from names
        if len(names) < at_once:
            return
        last, is_included = names[-1][0], False


def _from(named: Iterator[tuple[bytes, bool]], last: bytes, *, is_included: bool) -> Iterator[tuple[bytes, bool]]:
    return (one for one in named if one[0] > last or (is_included and one[0] == last))


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file or a directory with its rights."""

    path: bytes
    place: Place
    found: os.stat_result
    acl: Acl
    default: Acl | None

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.found.st_mode)

    @property
    def mode(self) -> int:
        return stat.S_IMODE(self.found.st_mode)


class Examiner:
    """Looks at one path after the other; with `is_repair` it puts right what it may."""

    def __init__(self, beneath: Beneath, rights: Rights, *, is_repair: bool) -> None:
        self._beneath = beneath
        self._rights = rights
        self._is_repair = is_repair
        self._device = os.fstat(beneath.directory(b"")).st_dev

    def look(self, path: bytes) -> PermissionFault | None:
        """Return what is wrong with one path; None where nothing is, or where it is gone or nothing of ours."""
        try:
            opened = self._beneath.open(path, os.O_PATH) if path else os.dup(self._beneath.directory(b""))
            try:
                return self._look(path, f"/proc/self/fd/{opened}", os.fstat(opened))
            finally:
                os.close(opened)
        except InvalidError as error:
            return _fault(path, FaultKind.OPEN, error.message)
        except OSError as error:
            if error.errno in GONE:
                return None
            if error.errno in WHOLE_PLACE:
                raise
            return _fault(path, FaultKind.CLOSED, f"it cannot be looked at: {error.strerror or error}")

    def _look(self, path: bytes, opened: str, found: os.stat_result) -> PermissionFault | None:
        if found.st_dev != self._device:
            return _fault(path, FaultKind.ELSEWHERE, "another file system is mounted here")
        if not stat.S_ISDIR(found.st_mode) and not stat.S_ISREG(found.st_mode):
            return None
        if stat.S_ISDIR(found.st_mode) and path.count(b"/") >= DEEPEST:
            why = f"it is below {DEEPEST} other directories: what is in it was passed over"
            return _fault(path, FaultKind.ELSEWHERE, why)
        fault = self._judge(_entry(path, opened, found))
        if fault is None or not self._is_repair:
            return fault
        if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
            why = f"it has {found.st_nlink} names, of which others may be elsewhere"
            return fault.model_copy(update={"why_not": why})
        return self._repaired(path, opened, fault)

    def _repaired(self, path: bytes, opened: str, fault: PermissionFault) -> PermissionFault:
        try:
            self._repair(_entry(path, opened, os.stat(opened)), opened)
        except PermissionError:
            owner = os.stat(opened).st_uid
            return fault.model_copy(update={"why_not": f"it belongs to account {owner}: only that one may, or root"})
        except OSError as error:
            return fault.model_copy(update={"why_not": error.strerror or str(error)})
        left = self._judge(_entry(path, opened, os.stat(opened)))
        if left is not None:
            return fault.model_copy(update={"why_not": f"afterwards, {left.message}"})
        return fault.model_copy(update={"is_repaired": True})

    def _judge(self, entry: _Entry) -> PermissionFault | None:
        """Return the worst that is wrong."""
        path, place, rights = entry.path, entry.place, self._rights
        wanted = self._group_rights(entry)
        group = entry.found.st_gid if rights.way is Way.UNKNOWN or rights.gid is None else rights.gid
        have = entry.acl.of_groups(entry.found.st_gid)
        strangers = sorted(set(have) - {group})
        if entry.acl.other:
            return _fault(path, FaultKind.OPEN, f"everybody may {_words(entry.acl.other)} it")
        if people := entry.acl.of_users():
            return _fault(path, FaultKind.OPEN, f"account {min(people)} is named in its access control list")
        if rights.way is Way.OWNED and entry.found.st_gid != group and place is not Place.HIDDEN:
            return _fault(path, FaultKind.GROUP, f"it belongs to group {entry.found.st_gid}, not {group}")
        if strangers:
            return _fault(path, FaultKind.OPEN, f"group {strangers[0]} may {_words(have[strangers[0]])} it")
        most = wanted | (1 if place is Place.ANALYSIS and not entry.is_directory else 0)
        if extra := have.get(group, 0) & ~most:
            return _fault(path, FaultKind.OPEN, f"the group may {_words(extra)} it")
        if not entry.is_directory and (special := entry.mode & 0o7000):
            return _fault(
                path, FaultKind.OPEN, f"it has the bits {special:04o}, by which programs run as somebody else"
            )
        if place is Place.DATA and not entry.is_directory and entry.mode & 0o200:
            return _fault(path, FaultKind.OPEN, "its owner may write into it")
        if missing := wanted & ~have.get(group, 0):
            return _fault(path, FaultKind.CLOSED, f"the group may not {_words(missing)} it")
        return self._judge_inheritance(entry)

    def _judge_inheritance(self, entry: _Entry) -> PermissionFault | None:
        if not entry.is_directory or entry.place is Place.HIDDEN:
            return None
        if DIRECTORY_MODES[entry.place] & stat.S_ISGID and not entry.mode & stat.S_ISGID:
            return _fault(entry.path, FaultKind.INHERITED, "it has no setgid bit: what is made here has another group")
        if entry.default != self._rights.default_acl(entry.place):
            return _fault(entry.path, FaultKind.INHERITED, "what is made here has other rights by its default list")
        return None

    def _group_rights(self, entry: _Entry) -> int:
        modes = DIRECTORY_MODES if entry.is_directory else FILE_MODES
        return (modes.get(entry.place, 0) >> 3) & 7

    def _repair(self, entry: _Entry, opened: str) -> None:
        rights, wanted = self._rights, self._group_rights(entry)
        if rights.way is Way.OWNED and rights.gid is not None and entry.found.st_gid != rights.gid:
            os.chown(opened, -1, rights.gid)
        mode = DIRECTORY_MODES[entry.place] if entry.is_directory else _file_mode(entry)
        if rights.has_acls:
            if rights.way is Way.NAMED and rights.gid is not None and wanted:
                group = (mode >> 3) & 7
                acl = replace(Acl.of_mode(mode), group=0, groups={rights.gid: group}, mask=group)
                os.setxattr(opened, ACCESS, acl.encode())
            elif entry.acl.mask is not None:
                os.removexattr(opened, ACCESS)
        if stat.S_IMODE(os.stat(opened).st_mode) != mode:
            os.chmod(opened, mode)
        if entry.is_directory and rights.has_acls and entry.place is not Place.HIDDEN:
            _set_default(opened, entry.default, rights.default_acl(entry.place))


def _set_default(opened: str, present: Acl | None, wanted: Acl | None) -> None:
    if present == wanted:
        return
    if wanted is None:
        os.removexattr(opened, DEFAULT)
    else:
        os.setxattr(opened, DEFAULT, wanted.encode())


def _file_mode(entry: _Entry) -> int:
    """Return the mode that a file should have: people's own may stay executable."""
    mode = FILE_MODES.get(entry.place, 0o600)
    if entry.place is Place.ANALYSIS and entry.mode & 0o100:
        mode |= 0o110
    return mode


def _entry(path: bytes, opened: str, found: os.stat_result) -> _Entry:
    is_directory = stat.S_ISDIR(found.st_mode)
    acl = _acl(opened, ACCESS) or Acl.of_mode(stat.S_IMODE(found.st_mode))
    return _Entry(path, place_of(path), found, acl, _acl(opened, DEFAULT) if is_directory else None)


def _acl(opened: str, name: str) -> Acl | None:
    try:
        return Acl.decode(os.getxattr(opened, name))
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP, errno.ENOSYS):
            return None
        raise


def _words(rights: int) -> str:
    names: Sequence[tuple[int, str]] = ((4, "read"), (2, "write"), (1, "enter or run"))
    return ", ".join(word for bit, word in names if rights & bit)


def _fault(path: bytes, kind: FaultKind, message: str) -> PermissionFault:
    return PermissionFault(path=show_path(path) or ".", path_b64=to_b64(path), kind=kind, message=message)
