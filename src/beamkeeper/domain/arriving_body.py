"""The body of a call that registers files, read by the short way: as plain values, without a model of each file.

A thousand files with 25 keys each take 50 ms in this way and 110 ms by their models, which are thrown away at once: all
the rest of registering them takes 80 ms. The models stay the authority. Whatever is unusual, or would be refused, is
left to them: this way answers only where theirs would be the same.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from beamkeeper.domain.arriving import EPOCH, MICROSECOND, Arriving, identity_text
from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.files import ALSO_LIMIT, REGISTER_LIMIT, FileKind, ReadFrom
from beamkeeper.domain.json_text import KEY_END, read_keys
from beamkeeper.domain.metadata import checked_text, shows_accepted
from beamkeeper.domain.names import Algorithm, from_b64, is_plain_path, show_path, to_b64

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
OnWire = int | str
"""A text where it is beyond 2^53, as all times in nanoseconds are."""

_SECOND = re.compile(r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):\d\d:\d\d", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,40}")
_DIGEST = re.compile(r"[0-9a-f]{8,128}")


class _LeftError(ValueError):
    """Something that the models have to look at."""


class _Part(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A part of the body; fields are those of the model of the same name."""


class _Checksum(_Part):
    algorithm: Algorithm
    value: str


class _Source(_Part):
    agent: str
    path: str | UnsetType | None = UNSET
    path_b64: str | UnsetType = UNSET


class _SourceIdentity(_Part):
    dev: OnWire
    ino: OnWire
    size: OnWire
    mtime_ns: OnWire
    ctime_ns: OnWire


class _NewFile(_Part):
    experiment_uid: UUID
    version_uid: UUID
    number: Annotated[int, Meta(ge=1, lt=2**31)]
    size: Count
    source: _Source
    identity: _SourceIdentity
    storage_area_uid: UUID
    modified_at: str
    finished_at: str
    transferred_at: str
    path: str | UnsetType | None = UNSET
    path_b64: str | UnsetType = UNSET
    kind: FileKind | UnsetType = UNSET
    checksums: tuple[_Checksum, ...] | UnsetType = UNSET
    chunks: tuple[str, ...] | UnsetType = UNSET
    link_target_b64: str | UnsetType | None = UNSET
    is_snapshot: bool | UnsetType = UNSET
    read_from: ReadFrom | UnsetType | None = UNSET
    verified_at: str | UnsetType | None = UNSET
    is_to_read: bool | UnsetType = UNSET
    also: Annotated[tuple[UUID, ...], Meta(max_length=ALSO_LIMIT)] | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET


class _NewFiles(_Part):
    files: Annotated[tuple[_NewFile, ...], Meta(min_length=1, max_length=REGISTER_LIMIT)]


ALWAYS_GIVEN = sum(
    default is msgspec.NODEFAULT
    for part in (_NewFile, _Source, _SourceIdentity)
    for default in (field.default for field in msgspec.structs.fields(part))
)
"""So many keys every file has, without those of its checksums and its metadata."""

_FILE = FileKind.FILE.value

_DECODER = msgspec.json.Decoder(_NewFiles)
_ENCODER = msgspec.json.Encoder()


def read(content: bytes) -> list[Arriving] | None:
    """Return what a body of NewFiles brings; None where its models have to tell, or to refuse it."""
    wanted = read_keys(content)
    if wanted is None:
        return None
    try:
        files = _DECODER.decode(content).files
        found = list(map(_arriving, files))
    except (ValueError, InvalidError, RecursionError):  # also what msgspec raises
        return None
    keys = 1 + sum(map(_keys, files)) + sum(new.metadata.count(KEY_END) for new in found)
    return found if keys == wanted else None  # else one stood twice, or a text looked like one


def _keys(new: _NewFile) -> int:
    """Return how many keys were given, without those of the metadata."""
    optional = (
        new.path,
        new.path_b64,
        new.kind,
        new.checksums,
        new.chunks,
        new.link_target_b64,
        new.is_snapshot,
        new.read_from,
        new.verified_at,
        new.is_to_read,
        new.also,
        new.metadata,
        new.source.path,
        new.source.path_b64,
    )
    checksums = () if new.checksums is UNSET else new.checksums
    return ALWAYS_GIVEN + len(optional) - optional.count(UNSET) + len(_Checksum.__struct_fields__) * len(checksums)


def _arriving(new: _NewFile) -> Arriving:
    path, of = _path(new), new.identity
    return Arriving(
        new.experiment_uid.hex,
        new.version_uid.hex,
        path,
        show_path(path),
        new.number,
        _FILE if new.kind is UNSET else new.kind.value,
        new.size,
        {} if new.checksums is UNSET else dict(map(_digest, new.checksums)),
        None if new.link_target_b64 is UNSET else new.link_target_b64,
        new.source.agent,
        _path(new.source),
        identity_text(*map(_number, (of.dev, of.ino, of.size, of.mtime_ns, of.ctime_ns))),
        json.dumps(new.chunks) if new.chunks else None,
        new.is_snapshot is True,
        new.storage_area_uid.hex,
        new.read_from.value if new.read_from else None,
        _microseconds(new.modified_at),
        _microseconds(new.finished_at),
        _microseconds(new.transferred_at),
        _microseconds(new.verified_at) if isinstance(new.verified_at, str) else None,
        new.is_to_read is True,
        tuple(uid.hex for uid in new.also) if new.also else (),
        _metadata(new.metadata) if new.metadata else "{}",
    )


def _metadata(given: dict[str, Any]) -> str:
    text = _ENCODER.encode(given)
    return text.decode() if shows_accepted(text) else checked_text(given)


def _path(of: _NewFile | _Source) -> bytes:
    if isinstance(of.path, str):
        path = of.path.encode()
        if of.path_b64 and to_b64(path) != of.path_b64:
            raise _LeftError
    elif of.path_b64:
        path = from_b64(of.path_b64)
    else:
        raise _LeftError
    if not is_plain_path(path):
        raise _LeftError
    return path


def _number(value: OnWire) -> int:
    if isinstance(value, int):
        return value
    if not _NUMBER.fullmatch(value):
        raise _LeftError
    return int(value)


def _digest(checksum: _Checksum) -> tuple[str, str]:
    if not _DIGEST.fullmatch(checksum.value):
        raise _LeftError
    return checksum.algorithm.value, checksum.value


def _microseconds(text: str) -> int:
    """Return the microseconds from 1970 to a time such as 2026-11-28T10:00:00.123456Z."""
    rest = text[19:]
    if rest == "Z":
        return _seconds(text[:19])
    digits = rest[1:-1]
    if len(digits) > 6 or not (digits.isascii() and digits.isdecimal()) or rest[0] != "." or rest[-1] != "Z":
        raise _LeftError
    return _seconds(text[:19]) + int(digits.ljust(6, "0"))


@lru_cache(maxsize=4096)
def _seconds(text: str) -> int:
    """Return the microseconds from 1970 to a time without its parts of a second, of which many files have the same."""
    if not _SECOND.fullmatch(text):
        raise _LeftError
    return (datetime.fromisoformat(text + "Z") - EPOCH) // MICROSECOND
