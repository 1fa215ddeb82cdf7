"""The directories of an experiment: made whole with their rights, or not at all."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from beamkeeper.domain.errors import AlreadyExistsError, DestinationError
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.names import show_path

PARENT_MODE = 0o755
TOP_MODE = 0o2750

TREES: Mapping[str, int] = {
    Tree.DATA: 0o2750,
    Tree.ANALYSIS: 0o2770,
    Tree.SYSTEM: 0o2750,
    ".dm": 0o700,
    ".dm/staging": 0o700,
    ".dm/versions": 0o700,
}
"""Below an experiment's directory, each after its parent: data is ours to write, analysis is people's too."""

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
            is_top = depth == len(parts)
            below = _enter(above, part, path, new, mode=TOP_MODE if is_top else PARENT_MODE, is_parent=not is_top)
            os.close(above)
            above = below
        _check_unused(above, path)
        for name, mode in TREES.items():
            parent, _, last = name.rpartition("/")
            inside = os.open(parent, _OPEN, dir_fd=above) if parent else os.dup(above)
            try:
                os.close(_enter(inside, last, os.path.join(path, name), new, mode=mode, is_parent=False))
            finally:
                os.close(inside)
    finally:
        os.close(above)


def _enter(above: int, part: str, path: str, new: list[str], *, mode: int, is_parent: bool) -> int:
    """Return a descriptor of a directory, made where it was not there; a link is not followed."""
    is_new = True
    try:
        os.mkdir(part, 0o700, dir_fd=above)
        new.append(path)
        os.chmod(part, 0o700, dir_fd=above)  # the umask may have taken our own right to enter it
    except FileExistsError:
        is_new = False
    entered = os.open(part, _OPEN, dir_fd=above)
    try:
        if is_new or not is_parent:
            _set_mode(entered, mode)
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


def _check_unused(top: int, path: str) -> None:
    waiting = [""]
    while waiting:
        above = waiting.pop()
        descriptor = os.open(above or ".", _OPEN, dir_fd=top)
        try:
            for entry in os.listdir(descriptor):
                name = f"{above}/{entry}" if above else entry
                is_directory = stat.S_ISDIR(os.stat(entry, dir_fd=descriptor, follow_symlinks=False).st_mode)
                if name not in TREES or not is_directory:
                    raise AlreadyExistsError(
                        f"{show_path(os.fsencode(path))} is there already and not empty: "
                        f"move it away, or give another directory with --root-path"
                    )
                waiting.append(name)
        finally:
            os.close(descriptor)
