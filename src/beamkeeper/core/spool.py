"""The spool: where files wait that clients send over HTTP, each put in a directory of its own.

Below SPOOL/UID, `parts` holds what still arrives and `files` what is whole; a file goes from one to the
other by rename, its bytes made durable before. Every step goes by directory descriptors and follows no link.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from beamkeeper.domain.acquisition import PUT_CHUNK_BYTES
from beamkeeper.domain.errors import ConflictError, DestinationError, DmError, InvalidError, TooLargeError
from beamkeeper.domain.names import RelPath, show_path
from beamkeeper.plugins.below import DIRECTORY, open_made

FILES, PARTS = b"files", b"parts"
LONGEST_PATH = 3500
"""In bytes, so that it is a path that the kernel takes with the spool's own before it."""
DEEPEST_PATH = 200
NAMED = 5
"""So many files are named in a sentence."""

_PART = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_TAKEN = frozenset({errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST, errno.ENXIO})


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some bytes of a file that is being put; `size` is what the whole file has.

    `modified_ns` is when its source was modified: a part that was begun from another state begins again.
    """

    path: RelPath
    offset: int
    size: int
    content: bytes
    modified_ns: int | None = None


def files_of(spool: Path, uid: UUID) -> RelPath:
    """Return the directory with the whole files of a put: its real path, without the leading slash."""
    top = os.path.realpath(os.fsencode(spool))
    return RelPath(b"/".join((top, str(uid).encode(), FILES)).lstrip(b"/"))


def write(spool: Path, uid: UUID, chunk: Chunk) -> int:
    """Write a chunk and return how much of the file there is now; sending one again changes nothing."""
    _check(chunk)
    try:
        with _parent(_made(spool, uid, FILES), chunk.path) as files:
            while True:
                if (found := _lstat(chunk.path.name, files)) is not None:
                    return _size_of_whole(chunk, found)
                with _parent(_made(spool, uid, PARTS), chunk.path) as parts:
                    reached = _write_part(chunk, parts, files)
                if reached is not None:
                    return reached
    except OSError as error:
        raise _translated(chunk.path, error) from error


def _made(spool: Path, uid: UUID, tree: bytes) -> bytes:
    """Return a directory of a put, which nobody else may enter, making what is missing."""
    top = os.fsencode(spool)
    spool.parent.mkdir(parents=True, exist_ok=True)
    for part in (b"", str(uid).encode(), tree):
        top = os.path.join(top, part) if part else top
        with suppress(FileExistsError):
            os.mkdir(top, 0o700)
    return top


def _check(chunk: Chunk) -> None:
    shown = show_path(chunk.path[:200])
    if len(chunk.content) > PUT_CHUNK_BYTES:
        raise TooLargeError(f'"{shown}": a chunk may have {PUT_CHUNK_BYTES} bytes at most: send it in parts')
    if chunk.offset + len(chunk.content) > chunk.size:
        raise InvalidError(f'"{shown}": the chunk goes beyond the {chunk.size} bytes that the file is said to have')
    if len(chunk.path) > LONGEST_PATH or chunk.path.count(b"/") >= DEEPEST_PATH:
        raise InvalidError(
            f'"{shown}..." is too long a path for a put: {LONGEST_PATH} bytes and {DEEPEST_PATH} levels at most'
        )


@contextmanager
def _parent(top: bytes, path: RelPath) -> Iterator[int]:
    """Yield the directory of a path below `top`, making what is missing."""
    above = os.open(top, DIRECTORY)
    try:
        here = open_made(above, path.rpartition(b"/")[0])
    finally:
        os.close(above)
    try:
        yield here
    finally:
        os.close(here)


def _lstat(name: bytes, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _size_of_whole(chunk: Chunk, found: os.stat_result) -> int:
    is_same = chunk.modified_ns is None or found.st_mtime_ns == chunk.modified_ns
    if not stat.S_ISREG(found.st_mode) or found.st_size != chunk.size or not is_same:
        raise ConflictError(
            f'"{show_path(chunk.path)}" was put already, with other contents: send the new one with another put'
        )
    return found.st_size


def _write_part(chunk: Chunk, parts: int, files: int) -> int | None:
    """Write into the part and return how much there is; None where it became a whole file meanwhile."""
    name = chunk.path.name
    begins = chunk.offset == 0 and (chunk.content != b"" or chunk.size == 0)
    try:
        part = os.open(name, _PART | (os.O_CREAT if begins else 0), 0o600, dir_fd=parts)
    except FileNotFoundError:
        _refuse_gap(chunk, 0)
        return 0  # nothing is there, and nothing was sent: it was only asked
    try:
        # A client that has waited too long sends again while its first request is still at work.
        fcntl.flock(part, fcntl.LOCK_EX)
        before, here = os.fstat(part), _lstat(name, parts)
        if here is None or here.st_ino != before.st_ino:
            return None
        reached = _reached(chunk, before)
        _refuse_gap(chunk, reached)
        if reached == 0:
            os.ftruncate(part, 0)
        _pwrite(part, chunk.content, chunk.offset)
        reached = max(reached, chunk.offset + len(chunk.content))
        if chunk.modified_ns is not None:
            os.utime(part, ns=(chunk.modified_ns, chunk.modified_ns))
        if reached == chunk.size:
            os.fsync(part)
            os.rename(name, name, src_dir_fd=parts, dst_dir_fd=files)
        return reached
    finally:
        os.close(part)


def _refuse_gap(chunk: Chunk, reached: int) -> None:
    if chunk.offset > reached:
        raise ConflictError(
            f'"{show_path(chunk.path)}" has {reached} bytes here, and the chunk begins at {chunk.offset}: '
            f"send from {reached} on",
            size=reached,
        )


def _reached(chunk: Chunk, found: os.stat_result) -> int:
    is_same = chunk.modified_ns is None or found.st_mtime_ns == chunk.modified_ns
    return found.st_size if is_same and found.st_size <= chunk.size else 0


def _pwrite(file: int, content: bytes, offset: int) -> None:
    rest = memoryview(content)
    while rest:
        written = os.pwrite(file, rest, offset)
        rest, offset = rest[written:], offset + written


def _translated(path: RelPath, error: OSError) -> DmError:
    shown, reason = show_path(path), (error.strerror or type(error).__name__).lower()
    if error.errno == errno.ENAMETOOLONG:
        return InvalidError(f'"{shown}" has a name that is too long for the file system of the spool')
    if error.errno in _TAKEN:
        return ConflictError(f'"{shown}" cannot be put: one of its names is a directory here and a file there')
    way_out = "make room on it" if error.errno in _FULL else "see that it can be written"
    return DestinationError(f'"{shown}" cannot be put, since the spool fails ({reason}): {way_out}, then try again')


def seal(spool: Path, uid: UUID) -> int:
    """Make every name durable and count the files; refuse where some are not whole, or there are none."""
    top = os.path.join(os.fsencode(spool), str(uid).encode())
    if unfinished := sorted(path for path, _ in _walk(os.path.join(top, PARTS))):
        names = ", ".join(f'"{show_path(path)}"' for path in unfinished[:NAMED])
        raise ConflictError(
            f"put {uid} is not whole: the rest of {len(unfinished)} files is missing ({names}), so send that first"
        )
    directories, count = {os.path.join(top, FILES), top, os.fsencode(spool)}, 0
    for _, directory in _walk(os.path.join(top, FILES)):
        directories.add(directory)
        count += 1
    if count == 0:
        raise InvalidError(f"put {uid} has no files: send some, or stop it")
    for directory in directories:
        _sync(directory)
    return count


def _walk(top: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the files below a directory, each with the directory it is in; nothing where it is missing."""
    for directory, _, names in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            yield path[len(top) + 1 :], directory


def _sync(directory: bytes) -> None:
    descriptor = os.open(directory, DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(spool: Path, uid: UUID) -> None:
    """Remove what a put has sent; nothing there is no error."""
    shutil.rmtree(spool / str(uid), ignore_errors=True)


def touched_at(spool: Path, uid: UUID) -> datetime | None:
    """Return when a put last sent something; None where nothing of it is there.

    By the times of inodes: those of the files themselves are their sources'.
    """
    top = os.path.join(os.fsencode(spool), str(uid).encode())
    latest = 0.0
    for directory, _, names in os.walk(top):
        for path in (directory, *(os.path.join(directory, name) for name in names)):
            with suppress(FileNotFoundError):
                latest = max(latest, os.lstat(path).st_ctime)
    return datetime.fromtimestamp(latest, UTC) if latest else None


def puts_in(spool: Path) -> list[UUID]:
    """Return the puts that have files in the spool."""
    found = []
    try:
        names = os.listdir(spool)
    except FileNotFoundError:
        return []
    for name in names:
        try:
            found.append(UUID(name))
        except ValueError:
            continue  # not ours, so not ours to remove
    return found
