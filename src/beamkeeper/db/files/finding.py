"""From a file query to SQL conditions that mean the same on both databases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

from pydantic import JsonValue
from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Double,
    Numeric,
    Text,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    literal_column,
    or_,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB

from beamkeeper.db.files.tables import FileRow, VersionRow
from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.files import File, FileQuery, MetadataTest
from beamkeeper.domain.metadata import MAX_INT, check_metadata, dotted
from beamkeeper.domain.names import from_b64, to_b64

Condition = ColumnElement[bool]
_UID_BYTES = 16
_ORDER = {"<", "<=", ">", ">="}


def conditions(query: FileQuery, *, dialect: str) -> list[Condition]:
    """Return what a row of files joined with its newest version has to meet."""
    found: list[Condition] = []
    if query.experiment_uid is not None:
        found.append(FileRow.experiment_uid == query.experiment_uid)
    if not query.with_deleted:
        found.append(FileRow.deleted_at.is_(None))
    if query.glob is not None:
        found.extend(_glob(query.glob, dialect))
    if query.min_size is not None:
        found.append(VersionRow.size >= _clamped(query.min_size))
    if query.max_size is not None:
        found.append(VersionRow.size <= _clamped(query.max_size))
    if query.modified_after is not None:
        found.append(VersionRow.modified_at >= query.modified_after)
    if query.modified_before is not None:
        found.append(VersionRow.modified_at < query.modified_before)
    found.extend(_metadata(test, dialect) for test in query.where)
    return found


def beyond(cursor: str) -> Condition:
    """Return the condition that a row comes after a cursor."""
    raw = from_b64(cursor)
    if len(raw) <= _UID_BYTES:
        raise InvalidError(f"{cursor[:80]!r} is no cursor of a list of files: take `next` of an earlier answer")
    key = tuple_(literal(UUID(bytes=raw[:_UID_BYTES])), literal(raw[_UID_BYTES:]))
    return tuple_(FileRow.experiment_uid, FileRow.path) > key


def cursor_of(file: File) -> str:
    """Return the cursor that goes on after a file."""
    return to_b64(file.experiment_uid.bytes + file.relpath)


def _clamped(size: int) -> int:
    return max(-1, min(size, MAX_INT))


def _glob(glob: str, dialect: str) -> list[Condition]:
    if "\0" in glob:
        raise InvalidError("a glob cannot have a NUL character, since no path has one")
    return [_matches(glob, dialect), *_prefix_range(glob)]


def _matches(glob: str, dialect: str) -> Condition:
    if dialect == "sqlite":
        # GLOB's `[` begins a character class; a class of just that character is the character.
        return FileRow.path_shown.op("GLOB", return_type=Boolean())(glob.replace("[", "[[]"))
    literal_text = glob.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return FileRow.path_shown.like(literal_text.replace("*", "%").replace("?", "_"), escape="!")


def _prefix_range(glob: str) -> list[Condition]:
    r"""Return the range of paths that a glob's beginning allows, so that the index is used.

    As long as no character is written as `\xNN`, the bytes of a path begin as its shown text does.
    """
    prefix = glob
    for special in "*?\\":
        prefix = prefix.partition(special)[0]
    raw = prefix.encode()
    if not raw:
        return []
    return [FileRow.path >= raw, FileRow.path < raw[:-1] + bytes([raw[-1] + 1])]


def _metadata(test: MetadataTest, dialect: str) -> Condition:
    parts = dotted(test.key)
    at = _SqliteValue if dialect == "sqlite" else _PostgresValue
    if test.op == "exists":
        return at(parts).exists()
    _check_value(test)
    # A value with its unit, {"value": 7.1, "unit": "keV"}, compares by the value.
    return or_(_compare(at(parts), test), _compare(at([*parts, "value"]), test))


def _check_value(test: MetadataTest) -> None:
    value = test.value
    if test.op in _ORDER and not _is_number(value) and not isinstance(value, str):
        raise InvalidError(f"metadata {test.key}: {test.op} compares numbers and texts only")
    check_metadata({"value": value})


def _compare(stored: _Stored, test: MetadataTest) -> Condition:
    value = test.value
    if value is None:
        return stored.null(is_equal=test.op == "=")
    if isinstance(value, bool):
        return stored.boolean(value is (test.op == "="))
    if isinstance(value, str):
        return stored.text(test.op, value)
    if isinstance(value, int | float):
        return stored.number(test.op, value)
    raise InvalidError(f"metadata {test.key}: compare with a number, a text, true, false or null")


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Stored(Protocol):
    """The value at a path of the metadata; a condition on a value of another type is not met."""

    def exists(self) -> Condition: ...

    def null(self, *, is_equal: bool) -> Condition: ...

    def boolean(self, value: bool) -> Condition: ...

    def text(self, op: str, value: str) -> Condition: ...

    def number(self, op: str, value: float) -> Condition: ...


class _SqliteValue:
    def __init__(self, parts: Sequence[str]) -> None:
        # SQLite compares a quoted label with the JSON text of the key, escapes included.
        path = literal("$" + "".join("." + json.dumps(part, ensure_ascii=False) for part in parts), Text())
        self._type = func.json_type(FileRow.metadata_, path, type_=Text())
        self._value = func.json_extract(FileRow.metadata_, path)

    def exists(self) -> Condition:
        return self._type.is_not(None)

    def null(self, *, is_equal: bool) -> Condition:
        return self._type == "null" if is_equal else self._type != "null"

    def boolean(self, value: bool) -> Condition:
        return self._type == ("true" if value else "false")

    def text(self, op: str, value: str) -> Condition:
        return and_(self._type == "text", _compared(self._value, op, literal(value, Text())))

    def number(self, op: str, value: float) -> Condition:
        is_number = self._type.in_(["integer", "real"])
        if isinstance(value, int):
            return and_(is_number, _compared(self._value, op, literal(value, BigInteger())))
        return and_(is_number, _compared(cast(self._value, Double()), op, literal(value, Double())))


class _PostgresValue:
    def __init__(self, parts: Sequence[str]) -> None:
        # `->` with a text gives nothing for a list, where `#>` would take "0" for its first item; SQLite does not.
        value: ColumnElement[Any] = FileRow.metadata_.expression
        for part in parts:
            value = value.op("->", return_type=JSONB())(literal(part, Text()))
        self._value = value
        self._type = func.jsonb_typeof(value, type_=Text())

    def exists(self) -> Condition:
        return self._type.is_not(None)

    def null(self, *, is_equal: bool) -> Condition:
        return self._type == "null" if is_equal else self._type != "null"

    def boolean(self, value: bool) -> Condition:
        return self._value.op("=", return_type=Boolean(), is_comparison=True)(literal(value, JSONB()))

    def text(self, op: str, value: str) -> Condition:
        plain = self._value.op("#>>", return_type=Text())(literal_column("'{}'"))
        return and_(self._type == "string", _compared(plain.self_group().collate("C"), op, literal(value, Text())))

    def number(self, op: str, value: float) -> Condition:
        # CASE, since PostgreSQL may reach for the cast before it has looked at the type.
        if isinstance(value, int):
            met = _compared(cast(self._value, Numeric()), op, literal(Decimal(value), Numeric()))
        else:
            met = _compared(cast(self._value, Double()), op, literal(value, Double()))
        return case((self._type == "number", met), else_=false())


def _compared(left: ColumnElement[Any], op: str, right: ColumnElement[Any]) -> Condition:
    return left.op("<>" if op == "!=" else op, return_type=Boolean(), is_comparison=True)(right)
