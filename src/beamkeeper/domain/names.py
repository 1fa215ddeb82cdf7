"""The value types that every noun uses: uids, times, names, paths as bytes, checksums, wire integers."""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    StringConstraints,
    model_validator,
)

from beamkeeper.domain.errors import InvalidError

JSON_SAFE_INT = 2**53
"""The largest integer that every JSON reader keeps exactly (IEEE 754 double)."""


class Model(BaseModel):
    """A frozen value that crosses the wire; fields that a newer server adds are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Input(BaseModel):
    """What a caller sends; a field that we do not know is refused, since its meaning would be lost."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Uid = UUID
"""A UUIDv7 that the owner of the row makes."""


def _to_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("this time is before the year 1 or after the year 9999 in UTC") from error


UtcTime = Annotated[AwareDatetime, AfterValidator(_to_utc)]
"""An aware time in UTC."""

Metadata = dict[str, JsonValue]
"""Free metadata: a JSON object."""

Username = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_.-]{0,63}$")]
StationName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")]
ExperimentName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
PlainName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$")]
Title = Annotated[str, StringConstraints(max_length=2000, pattern=r"^[^\x00]*$")]


_WIRE_INT = re.compile("-?[0-9]{1,40}")


def _int_from_wire(value: Any) -> Any:
    return int(value) if isinstance(value, str) and _WIRE_INT.fullmatch(value) else value


def int_to_wire(value: int) -> int | str:
    """Return an integer as the wire has it: as text beyond 2^53, which not every reader of JSON keeps."""
    return value if -JSON_SAFE_INT <= value <= JSON_SAFE_INT else str(value)


WireInt = Annotated[
    int,
    BeforeValidator(_int_from_wire),
    PlainSerializer(int_to_wire, when_used="json"),
]
"""An integer that is a string on the wire where it is beyond 2^53."""


_CLIMBS = re.compile(rb"(?:\A|/)\.{0,2}(?:/|\Z)|\0")
"""An empty part, one or two dots as a part, or NUL."""


def is_plain_path(path: bytes) -> bool:
    """Return whether a path leads nowhere but down from where it begins: see `RelPath`."""
    return bool(path) and not _CLIMBS.search(path)


class RelPath(bytes):
    """A path below an experiment or a directory, as the bytes that the file system has.

    Refuses what could climb out of the directory: absolute paths, empty parts, `.` and `..`, NUL.
    """

    def __new__(cls, value: bytes | str) -> Self:
        """Check the path and keep it."""
        if isinstance(value, RelPath):
            return super().__new__(cls, value)
        raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else bytes(value)
        if not is_plain_path(raw):
            raise InvalidError(f'path "{show_path(raw)}" is not a plain relative path: use names joined by "/"')
        return super().__new__(cls, raw)

    @property
    def parent(self) -> bytes:
        """The directory part; empty at the top."""
        return self.rpartition(b"/")[0]

    @property
    def name(self) -> bytes:
        """The last part."""
        return self.rpartition(b"/")[2]


def show_path(path: bytes) -> str:
    r"""Return a path as text that is safe on a terminal and in a log, one text for each path.

    Bytes that are not UTF-8 and characters that do not print (controls, newline, bidirectional overrides)
    are written as `\xNN`, and the backslash itself as `\\`.
    """
    text = path.decode("utf-8", "surrogateescape")
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    shown: list[str] = []
    for char in text:
        if char == "\\":
            shown.append("\\\\")
        elif char == " " or unicodedata.category(char)[0] not in "CZ":
            shown.append(char)
        else:
            shown.extend(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
    return "".join(shown)


def to_b64(raw: bytes) -> str:
    """Return bytes as URL-safe base64 text."""
    return base64.urlsafe_b64encode(raw).decode("ascii")


def from_b64(text: str) -> bytes:
    """Return the bytes of URL-safe base64 text."""
    try:
        return base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise InvalidError(f"{text[:80]!r} is not URL-safe base64") from error


def path_fields(raw: bytes) -> dict[str, Any]:
    """Return the two wire fields of a path: `path` where it is UTF-8, and `path_b64`."""
    try:
        text: str | None = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    return {"path": text, "path_b64": to_b64(raw)}


class WithPath(BaseModel):
    """The two wire fields of a path; an input may give either, and both must agree."""

    path: str | None = Field(default=None, description="The path as text, where it is UTF-8.")
    path_b64: str = Field(default="", description="The bytes of the path, in URL-safe base64.")

    @model_validator(mode="after")
    def _fill(self) -> Self:
        # After its fields and not before: what is around a path, such as a file's metadata, would all be made into
        # Python's objects first, and then be looked at one by one.
        text, b64 = self.path, self.path_b64
        try:
            if b64:
                if text is not None and text.isascii():
                    raw = text.encode()
                    if to_b64(raw) == b64 and not _CLIMBS.search(raw):
                        return self  # as nearly all are: nothing to fill in
                raw = from_b64(b64)
                if text is not None and text.encode("utf-8", "surrogateescape") != raw:
                    raise ValueError("path and path_b64 name different files")
            elif text is not None:
                raw = text.encode("utf-8", "surrogateescape")
            else:
                raise ValueError("give path or path_b64")
            self.__dict__.update(path_fields(RelPath(raw)))  # frozen for others
        except InvalidError as error:
            raise ValueError(error.message) from error
        return self

    @cached_property
    def relpath(self) -> RelPath:
        """The path as bytes."""
        return RelPath(from_b64(self.path_b64) if self.path is None else self.path)


class Algorithm(StrEnum):
    """A checksum's algorithm."""

    BLAKE3 = "blake3"
    MD5 = "md5"
    SHA256 = "sha256"


class Checksum(Model):
    """The checksum of a file's content: lower-case hex digits."""

    algorithm: Algorithm
    value: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,128}$")]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"


ChecksumText = Annotated[str, StringConstraints(pattern=r"^(blake3|md5|sha256):[0-9a-f]{8,128}$")]
"""A checksum as one word, for addresses."""


def utc(value: datetime) -> datetime:
    """Return an aware time in UTC; refuse a naive one."""
    if value.tzinfo is None:
        raise InvalidError(f"time {value.isoformat()} has no zone")
    return value.astimezone(UTC)
