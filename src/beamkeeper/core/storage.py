"""Storage areas: adding, listing, and proving that one can be written and read."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import tempfile
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path

from beamkeeper.core import file_rights
from beamkeeper.db import StorageTransaction
from beamkeeper.domain.errors import ConflictError, DestinationError, InvalidError, NotPermittedError
from beamkeeper.domain.names import Uid
from beamkeeper.domain.storage import TRANSFERS, AreaCheck, NewStorageArea, StorageArea, is_object_path
from beamkeeper.domain.users import SITE, Action, Caller, reach, require
from beamkeeper.plugins.programs import parts_of
from beamkeeper.plugins.rclone import Rclone, RcloneOptions, Refused, place_of

PROBE_BYTES = 64 * 1024
PROBE_TIMEOUT_S = 15.0

_REASONS = {
    errno.ENOENT: "is not there: is the disk mounted?",
    errno.ENOTDIR: "is no directory",
    errno.EACCES: "may not be written by the account of the storage service: change its owner or rights",
    errno.EPERM: "may not be written by the account of the storage service: change its owner or rights",
    errno.EROFS: "is read-only: is the disk damaged, or mounted so?",
    errno.ENOSPC: "is full",
    errno.EDQUOT: "has reached its quota",
    errno.EIO: "gives input/output errors: see the kernel's log, the disk may be failing",
    errno.ESTALE: "is a stale network mount: mount it again",
}


def list_(tx: StorageTransaction, caller: Caller) -> Sequence[StorageArea]:
    """Return every storage area, for the staff of any station."""
    _require_anywhere(caller, Action.STATION_READ)
    return tx.storage.list()


def add(tx: StorageTransaction, caller: Caller, new: NewStorageArea) -> StorageArea:
    """Add a storage area; it may not lie in another, nor hold one."""
    require(caller, Action.SITE_ADMINISTER, SITE, "the site")
    if is_object_path(new.path):
        place_of(new.path)
    elif not os.path.isabs(new.path) or os.path.normpath(new.path) != new.path or "\0" in new.path:
        raise InvalidError(f'path "{new.path}" of storage area "{new.name}" is not absolute and plain: write it whole')
    if not new.plugin:
        known = ", ".join(f"{scheme}:" for scheme in TRANSFERS)
        raise InvalidError(f'"{new.station_url}" is no address of a storage area: use file:///PATH, or one of {known}')
    if new.is_remote:
        parts_of(new.station_url)
    tx.events.claim()
    for area in tx.storage.list():
        if area.is_objects == is_object_path(new.path) and overlaps(area.path, new.path):
            raise ConflictError(
                f'"{new.path}" overlaps storage area "{area.name}" at "{area.path}": use another directory'
            )
    return tx.storage.add(new)


def overlaps(one: str, other: str) -> bool:
    """Return whether two places are the same, or one lies in the other."""
    one, other = one.rstrip("/") + "/", other.rstrip("/") + "/"
    return one.startswith(other) or other.startswith(one)


def area(tx: StorageTransaction, caller: Caller, name: str) -> StorageArea:
    """Return the storage area that the caller wants checked: a manager, or the services of a station."""
    require_check(caller)
    return tx.storage.named(name)


def require_check(caller: Caller) -> None:
    """Refuse who may not have storage areas checked."""
    _require_anywhere(caller, Action.STORAGE_CHECK if caller.is_service else Action.STATION_MANAGE)


def check(area: StorageArea, options: RcloneOptions | None = None, gids: Collection[int] = ()) -> AreaCheck:
    """Write a probe file, make it durable, read it back and remove it; no transaction should be open.

    `gids` are groups of experiments there: whether files can be given to them, and whether the host knows them.
    """
    if area.is_objects:
        return _check_objects(area, options or RcloneOptions())
    try:
        _probe(Path(area.path))
        space = os.statvfs(area.path)
        rights = file_rights.look(area.path, gids)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, f"cannot be used ({error.strerror or error})")
        return AreaCheck(name=area.name, is_ok=False, message=f"{area.path} {reason}")
    return AreaCheck(
        name=area.name,
        is_ok=True,
        message=f"{area.path} can be written and read",
        free_bytes=space.f_bavail * space.f_frsize,
        total_bytes=space.f_blocks * space.f_frsize,
        rights=rights,
    )


def _check_objects(area: StorageArea, options: RcloneOptions) -> AreaCheck:
    place, name = place_of(area.path), f".beamkeeper-probe-{secrets.token_hex(8)}"
    written = secrets.token_bytes(PROBE_BYTES)
    rclone = Rclone(options)
    try:
        with tempfile.TemporaryDirectory(prefix="beamkeeper-probe-") as made:
            (Path(made) / name).write_bytes(written)
            rclone.call("operations/copyfile", srcFs=made, srcRemote=name, dstFs=place, dstRemote=name)
        try:
            read = rclone.call("operations/hashsumfile", fs=place, remote=name, hashType="sha256", download=True)
        finally:
            rclone.call("operations/deletefile", fs=place, remote=name)
    except Refused as refused:
        return AreaCheck(name=area.name, is_ok=False, message=refused.fault(area.path).message)
    except DestinationError as error:
        return AreaCheck(name=area.name, is_ok=False, message=error.message)
    finally:
        rclone.close()
    is_ok = read["hash"] == hashlib.sha256(written).hexdigest()
    what = "can be written and read" if is_ok else "gives other bytes than were written"
    return AreaCheck(name=area.name, is_ok=is_ok, message=f"{area.path} {what}")


class Probes:
    """Checks of storage areas, each in a thread that may hang: at most one an area, and nobody waits long for it."""

    def __init__(self, timeout_s: float = PROBE_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._under_way: dict[Uid, threading.Thread] = {}

    def check(self, area: StorageArea, options: RcloneOptions | None = None, gids: Collection[int] = ()) -> AreaCheck:
        """Return what a check shows; that it does not answer is an answer as well."""
        return self.run(area, lambda: check(area, options, gids))

    def run(self, area: StorageArea, look: Callable[[], AreaCheck]) -> AreaCheck:
        """Return what a look at an area shows; that it does not answer is an answer as well."""
        found: list[AreaCheck] = []
        with self._lock:
            before = self._under_way.get(area.uid)
            if before is None or not before.is_alive():
                probe = threading.Thread(target=lambda: found.append(look()), name="check", daemon=True)
                self._under_way[area.uid] = probe
                probe.start()
            else:
                probe = before
        probe.join(self._timeout_s)
        if found:
            return found[0]
        if probe is before and not probe.is_alive():  # somebody else's has ended: it need not be ours that hangs
            return self.run(area, look)
        return AreaCheck(name=area.name, is_ok=False, message=f"{area.path} does not answer: is its server up?")


def _probe(directory: Path) -> None:
    probe = directory / f".beamkeeper-probe-{secrets.token_hex(8)}"
    written = secrets.token_bytes(PROBE_BYTES)
    descriptor = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "r+b") as file:
            file.write(written)
            file.flush()
            os.fsync(file.fileno())
            with suppress(OSError):  # a hint only: some file systems do not know it
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            if file.read() != written:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
    finally:
        probe.unlink()


def _require_anywhere(caller: Caller, action: Action) -> None:
    reached = reach(caller, action)
    if not (reached.is_all or reached.stations):
        raise NotPermittedError(f"{caller.username} may not see storage areas: ask a manager of a station for the role")
