"""Key files of the job socket: half of a pair of CURVE keys, from which the public half follows."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from beamkeeper.domain.errors import SettingsError

if TYPE_CHECKING:
    from types import ModuleType

KEY_LENGTH = 40
"""A key of 32 bytes, in the letters of ZeroMQ (Z85)."""


def library() -> ModuleType:
    """Return pyzmq, which is an extra."""
    try:
        import zmq
    except ImportError as error:
        raise SettingsError("ZeroMQ needs pyzmq, which is not installed: pip install 'beamkeeper[zmq]'") from error
    return zmq


def make(path: Path) -> str:
    """Make a pair of keys: the secret one into a new file that only its owner may read; return the public one."""
    public, secret = library().curve_keypair()
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret + b"\n")
    except OSError as error:
        raise SettingsError(f"cannot make the key {path}: {error.strerror}") from error
    return str(public, "ascii")


def read(path: Path) -> tuple[str, str]:
    """Return the public and the secret key of a file that only its owner may read."""
    zmq = library()
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise SettingsError(f"{path} can be read by others: make it private with `chmod 600`")
            secret = file.read(1000).strip()
    except OSError as error:
        raise SettingsError(
            f"cannot read the key {path} ({error.strerror}): make one with `dm job make-key {path}`"
        ) from error
    try:
        return str(zmq.curve_public(secret), "ascii"), str(secret, "ascii")
    except (ValueError, zmq.ZMQError) as error:
        raise SettingsError(f"{path} holds no key: make one with `dm job make-key FILE`") from error
