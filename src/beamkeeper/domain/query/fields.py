"""The fields that every file has, what kind of value each takes, and the making of conditions from what was written.

Both notations make their conditions here, so that they refuse the same things in the same words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from pydantic import JsonValue

from beamkeeper.domain.query.ast import (
    Ago,
    Builtin,
    Compare,
    Exists,
    Field,
    Glob,
    In,
    Leaf,
    Matches,
    Meta,
    Moment,
    Node,
    Op,
    Quantity,
    Text,
    Value,
    negated,
)
from beamkeeper.domain.query.regex import RegexError, compiled
from beamkeeper.domain.terms import TEXT_CHARACTERS
from beamkeeper.domain.units import to_si

MAX_NODES = 200
MAX_DEPTH = 20
MAX_LIST = 500
MAX_VALUE = 4096
MAX_KEY = 500
MAX_STARS = 16
MAX_INT = 2**63 - 1
_LONGEST_AGO_S = 1000 * 366 * 86_400

_SIZES = {
    **{f"{prefix}b": 1000**power for power, prefix in enumerate(("", "k", "m", "g", "t", "p"))},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate(("k", "m", "g", "t", "p"), start=1)},
    "": 1,
}
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SIZE = re.compile(r"(-?\d{1,30}(?:\.\d{1,30})?)\s*([A-Za-z]*)")
_AGO = re.compile(r"-(\d{1,12}(?:\.\d{1,6})?)\s*([a-z]+)")


class RefusalError(ValueError):
    """Something in a query is refused; a parser adds where it stands."""


class Kind(StrEnum):
    """What kind of values a field has."""

    TEXT = "text"
    SIZE = "size"
    NUMBER = "number"
    TIME = "time"
    FLAG = "flag"
    UID = "uid"
    WORDS = "words"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class Known:
    """A field that every file has."""

    kind: Kind
    says: str
    is_optional: bool = False


BUILTINS: dict[str, Known] = {
    "path": Known(Kind.TEXT, "the path below the experiment, as it is shown: `data/scan1/frame_001.tif`"),
    "name": Known(Kind.TEXT, "the last part of the path"),
    "directory": Known(Kind.TEXT, "the path without the name"),
    "type": Known(Kind.TEXT, "the suffix of the name in small letters, without its dot: `tif`"),
    "kind": Known(Kind.TEXT, "`file` or `link`"),
    "size": Known(Kind.SIZE, "bytes of the newest version: `500`, `10kB`, `1.5 GB`, `4GiB`"),
    "version": Known(Kind.NUMBER, "the number of the newest version"),
    "modified": Known(Kind.TIME, "when the source was last modified, by its own clock"),
    "finished": Known(Kind.TIME, "when the file was found to be finished"),
    "transferred": Known(Kind.TIME, "when it was in the storage"),
    "catalogued": Known(Kind.TIME, "when it came into the catalogue"),
    "verified_at": Known(Kind.TIME, "when it was first read back and matched", is_optional=True),
    "verified": Known(Kind.FLAG, "some replica of the newest version was read back and matched"),
    "snapshot": Known(Kind.FLAG, "taken while the file still grew, or though its writer never finished it"),
    "experiment": Known(Kind.TEXT, "the name of the experiment"),
    "station": Known(Kind.TEXT, "the name of the experiment's station"),
    "agent": Known(Kind.TEXT, "the agent that saw the file first"),
    "uid": Known(Kind.UID, "the file's own uid"),
    "run": Known(Kind.LINK, "a run that it belongs to, by the run's name or uid", is_optional=True),
    "dataset": Known(Kind.LINK, "a dataset that lists it, by the dataset's name or uid", is_optional=True),
    "derived_from": Known(
        Kind.LINK, "a file that its newest version was made from, by that one's path or uid", is_optional=True
    ),
    "text": Known(Kind.WORDS, 'words of the path and of texts in the metadata: `text = "silver beh*"`'),
}
"""The fields that a query may name; every other name is a key of the metadata."""


def field_of(parts: Sequence[str], *, is_quoted: bool = False) -> Field:
    """Return the field of a dotted name; `meta.size` is the key `size` of the metadata."""
    if len(parts) == 1 and not is_quoted and parts[0] in BUILTINS:
        return Builtin(parts[0])
    if len(parts) > 1 and not is_quoted and parts[0] == "meta":
        parts = parts[1:]
    for part in parts:
        if not part or "." in part:
            raise RefusalError(
                f"{shown('.'.join(parts))} has an empty part, or one with a dot: write it like sample.name"
            )
        if "\0" in part or not _is_text(part):
            raise RefusalError("a key cannot have a NUL character or half of a surrogate pair")
    field = Meta(tuple(parts))
    if len(field.key) > MAX_KEY:
        raise RefusalError(f"a key of more than {MAX_KEY} characters is refused")
    return field


def field_named(name: str) -> Field:
    """Return the field of a name with dots."""
    return field_of(name.split("."))


def compared(field: Field, op: str, value: JsonValue | Quantity) -> Node:
    """Return the condition that a field compares so with a value; null is what is not there."""
    if value is None:
        if op not in ("=", "!="):
            raise RefusalError("null has no order: ask whether the key exists")
        return negated(exists(field)) if op == "=" else exists(field)
    known = _known(field)
    if known is not None and known.kind is Kind.WORDS:
        return _worded(op, value)
    checked = _value(known, value)
    if op == "!=":
        return negated(Compare(field, "=", checked))
    order: Op = op  # type: ignore[assignment] # of the operators that parsers know
    has_order = known is None or known.kind not in (Kind.UID, Kind.LINK, Kind.FLAG)
    if order != "=" and (isinstance(checked, bool) or not has_order):
        raise RefusalError(f"{order} compares numbers, texts and times only")
    return Compare(field, order, checked)


def one_of(field: Field, values: Sequence[JsonValue | Quantity]) -> Node:
    """Return the condition that a field has one of some values."""
    if not values:
        raise RefusalError("a list of values needs at least one")
    if len(values) > MAX_LIST:
        raise RefusalError(f"a list of {len(values)} values is refused: at most {MAX_LIST}")
    known = _known(field)
    if known is not None and known.kind is Kind.WORDS:
        raise RefusalError("text takes = only, and words that all have to be there")
    if any(value is None for value in values):
        raise RefusalError("null cannot stand in a list: ask whether the key exists")
    return In(field, tuple(_value(known, value) for value in values))


def glob(field: Field, pattern: JsonValue | Quantity) -> Leaf:
    """Return the condition that a text has a shape."""
    known = _known(field)
    if known is not None and known.kind not in (Kind.TEXT, Kind.LINK):
        raise RefusalError(f"{_name(field)} is no text: it has no shape to compare with")
    if not isinstance(pattern, str):
        raise RefusalError("a shape is a text, such as Ag*")
    _check_text(pattern)
    pattern = re.sub(r"\*+", "*", pattern)
    if pattern.count("*") > MAX_STARS:
        raise RefusalError(f"a shape with more than {MAX_STARS} stars is refused")
    return Glob(field, pattern)


def matches(field: Field, pattern: JsonValue | Quantity) -> Leaf:
    """Return the condition that a regular expression matches a text from its beginning."""
    known = _known(field)
    if known is not None and known.kind is not Kind.TEXT:
        raise RefusalError(f"{_name(field)} is no text: no regular expression matches it")
    if not isinstance(pattern, str):
        raise RefusalError("a regular expression is a text, such as ^scan_[0-9]+$")
    _check_text(pattern)
    try:
        compiled(pattern)
    except RegexError as error:
        raise RefusalError(str(error)) from error
    return Matches(field, pattern)


def exists(field: Field) -> Leaf:
    """Return the condition that a field has any value."""
    known = _known(field)
    if known is not None and not known.is_optional:
        raise RefusalError(f"every file has {_name(field)}: for a key of the metadata write meta.{_name(field)}")
    return Exists(field)


def text(words: JsonValue) -> Leaf:
    """Return the condition that words are in the path or in texts of the metadata."""
    if not isinstance(words, str) or not any(char.isalnum() for char in words):
        raise RefusalError("a full-text search needs words: letters or digits")
    _check_text(words)
    return Text(" ".join(words.split()))


def _worded(op: str, value: JsonValue | Quantity) -> Node:
    if op not in ("=", "!=") or not isinstance(value, str):
        raise RefusalError("text takes = only, and words that all have to be there")
    return text(value) if op == "=" else negated(text(value))


def _known(field: Field) -> Known | None:
    return BUILTINS[field.name] if isinstance(field, Builtin) else None


def _name(field: Field) -> str:
    return field.name if isinstance(field, Builtin) else field.key


def _value(known: Known | None, value: JsonValue | Quantity) -> Value:
    if isinstance(value, str):
        _check_text(value)
    if known is None:
        return _free(value)
    match known.kind:
        case Kind.TEXT | Kind.LINK if isinstance(value, str):
            return value
        case Kind.SIZE if isinstance(value, str):
            return _size(value)
        case Kind.SIZE | Kind.NUMBER if isinstance(value, int | float) and not isinstance(value, bool):
            return _whole(value)
        case Kind.NUMBER if isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value):
            return int(value)
        case Kind.TIME if isinstance(value, str):
            return _time(value)
        case Kind.FLAG if isinstance(value, bool):
            return value
        case Kind.FLAG if value in ("true", "false"):
            return value == "true"
        case Kind.UID if isinstance(value, str):
            return _uid(value)
    raise RefusalError(f"{shown(value)} is no {known.kind}, which is what this field has")


def _free(value: JsonValue | Quantity) -> Value:
    """Return a value that metadata may have."""
    if isinstance(value, str):
        return value[:TEXT_CHARACTERS]
    if isinstance(value, Quantity):
        if not math.isfinite(value.value) or to_si(value.value, value.unit) is None:
            raise RefusalError(
                f"{shown(value.unit)} is no unit that is known: a text that begins with a digit goes in quotes"
            )
        return value
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        try:
            if math.isfinite(float(value)):
                return value
        except OverflowError:
            pass
        raise RefusalError("a number beyond what a double holds is refused")
    raise RefusalError("a value is a number, a text, true, false, null, or a number with its unit")


def _size(written: str) -> int:
    match = _SIZE.fullmatch(written.strip())
    factor = _SIZES.get(match[2].lower(), _SIZES.get(f"{match[2].lower()}b")) if match else None
    if match is None or factor is None:
        raise RefusalError(f"{shown(written)} is no size: write it like 500, 10kB, 1.5GB or 4GiB")
    return clamped(int(float(match[1]) * factor) if "." in match[1] else int(match[1]) * factor)


def _whole(value: float) -> int:
    if isinstance(value, float) and not (math.isfinite(value) and value == int(value)):
        raise RefusalError(f"{value} is no whole number, which is what this field has")
    return clamped(int(value))


def clamped(value: int) -> int:
    """Return a whole number that both databases have."""
    return max(-MAX_INT, min(value, MAX_INT))


def _time(written: str) -> Moment | Ago:
    if written == "now":
        return Ago(0)
    ago = _AGO.fullmatch(written)
    if ago is not None and ago[2] in _SECONDS:
        seconds = round(float(ago[1]) * _SECONDS[ago[2]])
        if seconds <= _LONGEST_AGO_S:
            return Ago(seconds)
    try:
        at = datetime.fromisoformat(written)
        return Moment((at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC))
    except (ValueError, OverflowError) as error:
        raise RefusalError(
            f"{shown(written)} is no time: write 2026-03-01, 2026-03-01T12:30, now, or how long ago: -7d (s min h d w)"
        ) from error


def _uid(written: str) -> str:
    try:
        return str(UUID(written))
    except ValueError as error:
        raise RefusalError(f"{shown(written)} is no uid") from error


def _check_text(value: str) -> None:
    if len(value) > MAX_VALUE:
        raise RefusalError(f"a text of {len(value)} characters is refused: at most {MAX_VALUE}")
    if "\0" in value or not _is_text(value):
        raise RefusalError("a text cannot have a NUL character or half of a surrogate pair")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: object) -> str:
    """Return what was written, short enough for a sentence."""
    written = str(value) if not isinstance(value, str) else f'"{value}"'
    return written.encode("utf-8", "replace").decode()[:80]
