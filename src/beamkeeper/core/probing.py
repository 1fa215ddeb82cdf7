"""Whether a station reaches a storage area: a probe goes by the real transport, and the storage host reads it back."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from uuid6 import uuid7

from beamkeeper.core import storage as core_storage
from beamkeeper.db import AcquisitionTransaction
from beamkeeper.domain.errors import DmError
from beamkeeper.domain.files import SourceIdentity
from beamkeeper.domain.names import Algorithm, Checksum, RelPath
from beamkeeper.domain.storage import AreaCheck, ProbeSent, StorageArea, StorageProbe
from beamkeeper.domain.users import Caller
from beamkeeper.plugins.api import Transfer, TransferItem, TransferResult
from beamkeeper.plugins.rclone import Rclone, RcloneOptions, Refused, place_of

PROBE_BYTES = 64 * 1024
PATIENCE_S = 90.0
"""A transport that fails tries again by itself before it says so."""

NAME = RelPath(b"probe")


def area(tx: AcquisitionTransaction, caller: Caller, name: str) -> StorageArea:
    """Return the storage area to which a manager of the station wants a probe to be sent."""
    core_storage.require_check(caller)
    return tx.storage.named(name)


def send(area: StorageArea, transfer: Callable[[str], Transfer]) -> ProbeSent:
    """Send a probe, in a thread that may hang; no transaction should be open."""
    found: list[ProbeSent] = []
    thread = threading.Thread(target=lambda: found.append(_sent(area, transfer)), name="probe", daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return found[0] if found else ProbeSent(name=area.name, message=f"{area.station_url} does not answer")


def _sent(area: StorageArea, transfer: Callable[[str], Transfer]) -> ProbeSent:
    if area.is_mounted and not os.path.isdir(unquote(urlsplit(area.station_url).path)):
        return ProbeSent(name=area.name, message=f"{area.station_url} is not there: is it mounted on the station?")
    with tempfile.TemporaryDirectory(prefix="beamkeeper-probe-") as made:
        source = Path(made) / "probe"
        source.write_bytes(secrets.token_bytes(PROBE_BYTES))
        uid = uuid7()
        item = TransferItem(uid, os.fsencode(source), NAME, _identity(source.lstat()), NAME)
        try:
            staging = f"{area.station_url.rstrip('/')}/{_directory(str(uid))}"
            results: list[TransferResult] = list(transfer(area.transfer).send([item], staging, lambda moved=0: False))
        except (DmError, OSError) as error:
            return ProbeSent(name=area.name, message=_said(error))
        if not results or results[0].error is not None:
            why = _said(results[0].error) if results and results[0].error else "the transfer said nothing of the probe"
            return ProbeSent(name=area.name, message=why)
        value = hashlib.sha256(source.read_bytes()).hexdigest()
        probe = StorageProbe(uid=uid, checksum=Checksum(algorithm=Algorithm.SHA256, value=value))
        return ProbeSent(name=area.name, message=f"{area.station_url} takes files", probe=probe)


def _directory(uid: str) -> str:
    return f".beamkeeper-probe-{uid}"


def _said(error: Exception) -> str:
    return (error.message if isinstance(error, DmError) else str(error))[:2000]


def _identity(found: os.stat_result) -> SourceIdentity:
    return SourceIdentity(
        dev=found.st_dev, ino=found.st_ino, size=found.st_size, mtime_ns=found.st_mtime_ns, ctime_ns=found.st_ctime_ns
    )


def read(area: StorageArea, probe: StorageProbe, options: RcloneOptions) -> AreaCheck:
    """Read a probe back where the storage is, and remove it; no transaction should be open."""
    directory = _directory(str(probe.uid))
    try:
        value = _read_object(area, directory, options) if area.is_objects else _read_file(area, directory)
    except (DmError, OSError) as error:
        return AreaCheck(name=area.name, is_ok=False, message=_refusal(area, error))
    if value != probe.checksum.value:
        why = f"{area.path} has other bytes than the station sent: both addresses may not be the same place"
        return AreaCheck(name=area.name, is_ok=False, message=why)
    return AreaCheck(name=area.name, is_ok=True, message=f"{area.path} has what the station sent to {area.station_url}")


def _refusal(area: StorageArea, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOENT:
        return f"{area.path} does not have what the station sent to {area.station_url}: they are not the same place"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
        return f"{area.path}: the storage service may not read or remove what the station sent: let one account do both"
    return f"{area.path}: {_said(error)}"


def _read_file(area: StorageArea, directory: str) -> str:
    where = Path(area.path) / directory
    try:
        return hashlib.sha256((where / "probe").read_bytes()).hexdigest()
    finally:
        if where.is_dir() and not where.is_symlink():
            with suppress(FileNotFoundError):
                (where / "probe").unlink()
            where.rmdir()


def _read_object(area: StorageArea, directory: str, options: RcloneOptions) -> str:
    rclone, given = Rclone(options), {"fs": place_of(area.path), "remote": f"{directory}/probe"}
    try:
        answer = rclone.call("operations/hashsumfile", **given, hashType="sha256", download=True)
        rclone.call("operations/deletefile", **given)
        return str(answer["hash"])
    except Refused as refused:
        raise refused.fault(area.path) from refused
    finally:
        rclone.close()
