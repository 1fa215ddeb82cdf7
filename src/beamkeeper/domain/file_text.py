"""Pages of files, and the answers to those that register them, as JSON, made without a model of each file.

Its metadata go as the text that is kept: to read a hundred documents, make models of them and write those as JSON again
takes as long as to find the files. The models say what stands in it: see `File` and `FilePage`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from beamkeeper.domain.arriving import EPOCH
from beamkeeper.domain.files import RegisteredAs
from beamkeeper.domain.names import int_to_wire, path_fields

_DASHED = 36
"""So long a uid is with its dashes."""

OnWire = int | str
"""A text where it is beyond 2^53."""


class ReadFile(NamedTuple):
    """A file and its newest version as a database has them: times as microseconds since 1970, documents as text."""

    id: int
    version_id: int
    uid: str
    experiment_uid: str
    path: bytes
    kind: str
    version: int
    version_uid: str
    size: int
    link_target: str | None
    agent: str
    source_path: bytes
    identity: str
    is_snapshot: bool
    is_verified: bool
    is_suspect: bool
    modified_at: int
    finished_at: int
    transferred_at: int
    verified_at: int | None
    catalogued_at: int
    metadata: str
    deleted_at: int | None


class ChecksumText(msgspec.Struct, gc=False):
    """See `Checksum`."""

    algorithm: str
    value: str


class _Source(msgspec.Struct, gc=False):
    path: str | None
    path_b64: str
    agent: str


class _Identity(msgspec.Struct, gc=False):
    dev: OnWire
    ino: OnWire
    size: OnWire
    mtime_ns: OnWire
    ctime_ns: OnWire


class _File(msgspec.Struct, gc=False):
    path: str | None
    path_b64: str
    uid: str
    experiment_uid: str
    kind: str
    version: int
    version_uid: str
    size: OnWire
    checksums: Sequence[ChecksumText]
    link_target_b64: str | None
    source: _Source
    identity: _Identity
    is_snapshot: bool
    is_verified: bool
    is_suspect: bool
    modified_at: datetime
    finished_at: datetime
    transferred_at: datetime
    verified_at: datetime | None
    catalogued_at: datetime
    metadata: msgspec.Raw
    deleted_at: datetime | None


class _Page(msgspec.Struct, gc=False):
    items: Sequence[_File]
    next: str | None
    is_partial: bool
    searched: int
    is_behind: bool


class Answer(msgspec.Struct, gc=False):
    """See `Registered`; uids as their 32 digits."""

    version_uid: str
    file_uid: str | None
    result: RegisteredAs
    message: str = ""
    catalogued_at: datetime | None = None


class _Answers(msgspec.Struct, gc=False):
    files: Sequence[Answer]


_IDENTITY = msgspec.json.Decoder(_Identity)


def page_text(
    files: Iterable[tuple[ReadFile, Sequence[ChecksumText]]],
    *,
    next_: str | None = None,
    is_partial: bool = False,
    searched: int = 0,
    is_behind: bool = False,
) -> bytes:
    """Return a `FilePage` as JSON in UTF-8."""
    items = [_file(read, checksums) for read, checksums in files]
    return msgspec.json.encode(_Page(items, next_, is_partial, searched, is_behind))


def answers_text(answers: Iterable[Answer]) -> bytes:
    """Return `RegisteredFiles` as JSON in UTF-8."""
    return msgspec.json.encode(_Answers([_shown(answer) for answer in answers]))


def _shown(answer: Answer) -> Answer:
    file = None if answer.file_uid is None else _uid(answer.file_uid)
    return Answer(_uid(answer.version_uid), file, answer.result, answer.message, answer.catalogued_at)


def _file(read: ReadFile, checksums: Sequence[ChecksumText]) -> _File:
    return _File(
        **path_fields(read.path),
        uid=_uid(read.uid),
        experiment_uid=_uid(read.experiment_uid),
        kind=read.kind,
        version=read.version,
        version_uid=_uid(read.version_uid),
        size=int_to_wire(read.size),
        checksums=checksums,
        link_target_b64=read.link_target,
        source=_Source(**path_fields(read.source_path), agent=read.agent),
        identity=_identity(read.identity),
        is_snapshot=bool(read.is_snapshot),
        is_verified=bool(read.is_verified),
        is_suspect=bool(read.is_suspect),
        modified_at=_time(read.modified_at),
        finished_at=_time(read.finished_at),
        transferred_at=_time(read.transferred_at),
        verified_at=None if read.verified_at is None else _time(read.verified_at),
        catalogued_at=_time(read.catalogued_at),
        metadata=msgspec.Raw(read.metadata.encode()),
        deleted_at=None if read.deleted_at is None else _time(read.deleted_at),
    )


def _uid(uid: str) -> str:
    """Return a uid with its dashes; SQLite has the digits alone."""
    if len(uid) == _DASHED:
        return uid
    return f"{uid[:8]}-{uid[8:12]}-{uid[12:16]}-{uid[16:20]}-{uid[20:]}"


def _identity(text: str) -> _Identity:
    found = _IDENTITY.decode(text)
    return _Identity(*(_wired(getattr(found, name)) for name in found.__struct_fields__))


def _wired(value: int | str) -> int | str:
    return value if isinstance(value, str) else int_to_wire(value)


def _time(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)
