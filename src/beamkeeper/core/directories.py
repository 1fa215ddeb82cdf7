"""The directories of an experiment: made whole with their rights, or not at all."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from beamkeeper.domain.acls import ACCESS, DEFAULT
from beamkeeper.domain.errors import AlreadyExistsError, DestinationError
from beamkeeper.domain.file_rights import DIRECTORY_MODES, PLACES, Place, Rights
from beamkeeper.domain.names import show_path

PARENT_MODE = 0o751
"""Members pass through to their experiment's directory; what others there are is not theirs to read."""

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def made(area_path: str, directory: str) -> Iterator[None]:
    """Make the directories of an experiment, and remove those that were made where the block fails.

    A directory that is there already must be empty, or hold no more than empty trees: what a creation leaves
    that was killed half-way. Raises DestinationError where the storage area does not let us.
    """
    new: list[str] = []
    with _alone(area_path):
        try:
            try:
                _make(area_path, directory, new)
            except OSError as error:
                raise _refused(os.path.join(area_path, directory), error) from error
            yield
        except BaseException:
            for path in reversed(new):
                with suppress(OSError):  # somebody has put something there meanwhile: it is not ours to remove
                    os.rmdir(path)
            raise


def ensure(area_path: str, directory: str, *, like: str | None) -> None:
    """Make the directories of an experiment in a further storage area, where they are not there yet.

    They get groups and access control lists as those below `like` have, where both places let us.
    """
    top = os.path.join(area_path, directory)
    if os.path.isdir(os.path.join(top, ".dm/versions")):
        return
    with made(area_path, directory):
        for name in ("", *PLACES) if like is not None else ():
            here, there = os.path.join(str(like), name), os.path.join(top, name)
            with suppress(OSError):
                os.chown(there, -1, os.stat(here).st_gid)
            for kind in (ACCESS, DEFAULT):
                with suppress(OSError):
                    os.setxattr(there, kind, os.getxattr(here, kind))


@contextmanager
def _alone(area_path: str) -> Iterator[None]:
    """Let one creation at a time work in a storage area: what one takes over, another must not remove."""
    try:
        area = os.open(area_path, _OPEN & ~os.O_NOFOLLOW)
    except OSError as error:
        raise _refused(area_path, error) from error
    try:
        with suppress(
            OSError
        ):  # NFS locks files only: there two that make one directory at once may disturb each other
            fcntl.flock(area, fcntl.LOCK_EX)
        yield
    finally:
        os.close(area)


def _refused(path: str, error: OSError) -> DestinationError:
    return DestinationError(
        f"cannot make {show_path(os.fsencode(path))}: {error.strerror or error}: "
        f"see that the storage area is mounted, has space and may be written by this account"
    )


def _make(area_path: str, directory: str, new: list[str]) -> None:
    above = os.open(area_path, _OPEN & ~os.O_NOFOLLOW)
    try:
        path, parts = area_path, directory.split("/")
        for depth, part in enumerate(parts, start=1):
            path = os.path.join(path, part)
            place = Place.TOP if depth == len(parts) else None
            below = _enter(above, part, path, new, place=place)
            os.close(above)
            above = below
        _check_unused(above, path)
        for name, tree in PLACES.items():
            parent, _, last = name.rpartition("/")
            inside = os.open(parent, _OPEN, dir_fd=above) if parent else os.dup(above)
            try:
                os.close(_enter(inside, last, os.path.join(path, name), new, place=tree))
            finally:
                os.close(inside)
    finally:
        os.close(above)


def _enter(above: int, part: str, path: str, new: list[str], *, place: Place | None) -> int:
    """Return a descriptor of a directory, made where it was not there; a link is not followed.

    Without a place it is a parent, whose rights are its own matter where it was there.
    """
    is_new = True
    try:
        os.mkdir(part, 0o700, dir_fd=above)
        new.append(path)
        os.chmod(part, 0o700, dir_fd=above)  # the umask may have taken our own right to enter it
    except FileExistsError:
        is_new = False
    entered = os.open(part, _OPEN, dir_fd=above)
    try:
        if place is not None:
            _set_mode(entered, DIRECTORY_MODES[place])
            _set_default(entered, place)
        elif is_new:
            _set_mode(entered, PARENT_MODE)
        if is_new:
            os.fsync(above)  # the name of a directory is durable once the one above it is
    except BaseException:
        os.close(entered)
        raise
    return entered


def _set_mode(descriptor: int, mode: int) -> None:
    try:
        os.fchmod(descriptor, mode)
    except PermissionError:
        # Some file systems and containers refuse setgid; then files keep the group of whoever writes them.
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o777 != mode & 0o777:
            os.fchmod(descriptor, mode & 0o777)


def _set_default(descriptor: int, place: Place) -> None:
    """Let what is made here have the rights of its tree, whatever the umask of who makes it."""
    inherited = Rights().default_acl(place)
    if inherited is not None:
        with suppress(OSError):  # a file system without access control lists: there the umask decides
            os.setxattr(descriptor, DEFAULT, inherited.encode())


def _check_unused(top: int, path: str) -> None:
    waiting = [""]
    while waiting:
        above = waiting.pop()
        descriptor = os.open(above or ".", _OPEN, dir_fd=top)
        try:
            for entry in os.listdir(descriptor):
                name = f"{above}/{entry}" if above else entry
                is_directory = stat.S_ISDIR(os.stat(entry, dir_fd=descriptor, follow_symlinks=False).st_mode)
                if name not in PLACES or not is_directory:
                    raise AlreadyExistsError(
                        f"{show_path(os.fsencode(path))} is there already and not empty: "
                        f"move it away, or give another directory with --root-path"
                    )
                waiting.append(name)
        finally:
            os.close(descriptor)
