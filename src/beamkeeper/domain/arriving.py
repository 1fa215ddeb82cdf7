"""Versions to be registered, as plain values: what both databases take, and what one process can hand to another."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from beamkeeper.domain.files import FileKind, NewFile, SourceIdentity
from beamkeeper.domain.names import show_path

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Arriving(NamedTuple):
    """A version to be registered: uids as 32 digits, times as microseconds since 1970, documents as JSON text."""

    experiment: str
    version: str
    path: bytes
    shown: str
    number: int
    kind: str
    size: int
    checksums: Mapping[str, str]
    link_target: str | None
    agent: str
    source_path: bytes
    identity: str
    chunks: str | None
    is_snapshot: bool
    area: str
    read_from: str | None
    modified_at: int
    finished_at: int
    transferred_at: int
    verified_at: int | None
    is_to_read: bool
    also: tuple[str, ...]
    metadata: str

    @property
    def is_read(self) -> bool:
        """Whether its bytes were read back: of a link there are none, and its target is its content."""
        return self.read_from is not None and (bool(self.checksums) or self.kind == FileKind.LINK)

    @property
    def key(self) -> tuple[str, bytes]:
        """The experiment and the path in it."""
        return self.experiment, self.path


def arriving(files: Iterable[NewFile]) -> list[Arriving]:
    """Return versions as plain values."""
    return list(map(_arriving, files))


def _arriving(new: NewFile) -> Arriving:
    path = bytes(new.relpath)
    return Arriving(
        new.experiment_uid.hex,
        new.version_uid.hex,
        path,
        show_path(path),
        new.number,
        new.kind.value,
        new.size,
        {checksum.algorithm.value: checksum.value for checksum in new.checksums},
        new.link_target_b64,
        new.source.agent,
        bytes(new.source.relpath),
        _identity(new.identity),
        json.dumps(list(new.chunks)) if new.chunks else None,
        new.is_snapshot,
        new.storage_area_uid.hex,
        None if new.read_from is None else new.read_from.value,
        _microseconds(new.modified_at),
        _microseconds(new.finished_at),
        _microseconds(new.transferred_at),
        None if new.verified_at is None else _microseconds(new.verified_at),
        new.is_to_read,
        tuple(uid.hex for uid in new.also),
        new.metadata_text,
    )


def identity_text(dev: int, ino: int, size: int, mtime_ns: int, ctime_ns: int) -> str:
    """Return the identity of a source as the document that is kept."""
    return f'{{"dev":{dev},"ino":{ino},"size":{size},"mtime_ns":{mtime_ns},"ctime_ns":{ctime_ns}}}'


def _identity(of: SourceIdentity) -> str:
    return identity_text(of.dev, of.ino, of.size, of.mtime_ns, of.ctime_ns)


def _microseconds(at: datetime) -> int:
    return (at - EPOCH) // MICROSECOND
