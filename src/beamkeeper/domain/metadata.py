"""Free metadata: what is accepted of it, how a patch changes it, and where a dotted path leads."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

from pydantic import JsonValue
from pydantic_core import PydanticSerializationError, to_json

from beamkeeper.domain.errors import InvalidError, NotFoundError
from beamkeeper.domain.names import Metadata, Model, Title, Uid, UtcTime

EXTRACTION = "extraction"
"""Under this key a file's metadata say why there are no more of them."""

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_KEYS = 10_000
MAX_INT = 2**63 - 1
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 19
"""Digits in a row that may be beyond 64 bits, once each is a zero: so they are found at a tenth of a pattern's cost."""
_SMALL = 30_000
"""JSON of so many bytes has fewer keys than there may be, and is small: each key takes five of them at least."""


class MetadataChange(Model):
    """One change of metadata: who made it, when, as which merge patch, and what stood there before."""

    uid: Uid
    subject_uid: Uid
    changed_at: UtcTime
    changed_by: Title
    patch: Metadata
    before: Metadata
    """What the patch has touched, as it was; a key that is not here was not there."""
    version: int | None = None
    """The version of a file that came with other metadata; None where somebody changed the metadata."""


class MetadataHistory(Model):
    """Some changes, newest first, and the cursor that continues the list."""

    items: tuple[MetadataChange, ...]
    next: str | None = None


def check_metadata(metadata: Metadata) -> Metadata:
    """Return metadata that both databases and every JSON reader keep as it is; refuse other metadata."""
    keys = 0
    for value, depth in _walk(metadata):
        if depth > MAX_DEPTH:
            raise InvalidError(f"the metadata is nested deeper than {MAX_DEPTH} levels: flatten it")
        if isinstance(value, dict):
            keys += len(value)
            for key in value:
                _check_text(key)
        if keys > MAX_KEYS:
            raise InvalidError(f"the metadata has more than {MAX_KEYS} keys: keep such a table in a file")
        _check_scalar(value)
    size = len(json.dumps(metadata, ensure_ascii=False).encode())
    if size > MAX_BYTES:
        raise InvalidError(f"the metadata has {size} bytes, and {MAX_BYTES} are accepted: keep such a table in a file")
    return metadata


def checked_text(metadata: Metadata) -> str:
    """Return metadata as JSON text, after check_metadata where its text does not show already that it passes.

    Thousands of files a second are registered: to look at each value of each costs more than all the rest.
    """
    try:
        text = to_json(metadata)
    except PydanticSerializationError:  # half of a surrogate pair, or very deep
        return _slowly(metadata)
    is_finite = b"NaN" not in text and b"Infinity" not in text
    return text.decode() if is_finite and shows_accepted(text) else _slowly(metadata)


def shows_accepted(text: bytes) -> bool:
    """Return whether JSON text of finite numbers shows that check_metadata passes; where it does not, it still may.

    A colon in a text counts as a key, and a long number in one as a number.
    """
    return (
        (len(text) <= _SMALL or _is_within(text))
        and text.count(b"{") + text.count(b"[") <= MAX_DEPTH
        and b"\\u0000" not in text
        and _LONG_NUMBER not in text.translate(_DIGITS)
    )


def _is_within(text: bytes) -> bool:
    """Whether there is neither too much nor too many keys; with a space after each of both signs, as it is measured."""
    colons = text.count(b":")
    return len(text) + text.count(b",") + colons <= MAX_BYTES and colons <= MAX_KEYS


def _slowly(metadata: Metadata) -> str:
    check_metadata(metadata)
    return json.dumps(metadata, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def acceptable_text(metadata: Metadata) -> str:
    """Return `acceptable(metadata)` as JSON text."""
    try:
        return checked_text(metadata)
    except InvalidError as error:
        return json.dumps(refusal(error), ensure_ascii=False)


def refusal(error: InvalidError) -> Metadata:
    """Return what a file has in place of metadata that was refused."""
    return {EXTRACTION: {"error": error.message}}


def acceptable(metadata: Metadata) -> Metadata:
    """Return metadata that can be kept: as given, or why it was refused. A file is never lost for its metadata."""
    try:
        checked_text(metadata)
    except InvalidError as error:
        return refusal(error)
    return metadata


def _walk(metadata: JsonValue) -> Iterator[tuple[JsonValue, int]]:
    waiting: list[tuple[JsonValue, int]] = [(metadata, 1)]
    while waiting:
        value, depth = waiting.pop()
        yield value, depth
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        waiting.extend((item, depth + isinstance(item, dict | list)) for item in inside)


def _check_scalar(value: JsonValue) -> None:
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidError(f"the metadata has the number {value}, which JSON does not know: leave it out")
    elif isinstance(value, int) and not -MAX_INT - 1 <= value <= MAX_INT:
        raise InvalidError("the metadata has an integer beyond 64 bits: write it as text")


def _check_text(text: str) -> None:
    if "\0" in text:
        raise InvalidError("the metadata has a text with a NUL character, which PostgreSQL does not keep: leave it out")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidError("the metadata has a text that is not Unicode (half of a surrogate pair)") from error


def merge(target: JsonValue, patch: JsonValue) -> JsonValue:
    """Return what a merge patch (RFC 7396) makes of a value: null removes a key, objects are merged."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def patched(metadata: Metadata, patch: Metadata) -> Metadata:
    """Return metadata with a merge patch applied."""
    merged = merge(metadata, patch)
    return merged if isinstance(merged, dict) else {}


def joined(first: Metadata, second: Metadata) -> Metadata:
    """Return one patch that does what two do one after the other; what they remove is remembered as null."""
    both: Metadata = dict(first)
    for key, value in second.items():
        before = both.get(key)
        both[key] = joined(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return both


def touched(metadata: Metadata, patch: Metadata) -> Metadata:
    """Return the part of metadata that a merge patch touches."""
    found: Metadata = {}
    for key, value in patch.items():
        if key in metadata:
            held = metadata[key]
            found[key] = touched(held, value) if isinstance(held, dict) and isinstance(value, dict) else held
    return found


def undone(after: Metadata, patch: Metadata, before: Metadata) -> Metadata:
    """Return what metadata was before a patch, of which `before` is what it touched."""
    found = dict(after)
    for key, value in patch.items():
        now, then = found.get(key), before.get(key)
        if key not in before:
            found.pop(key, None)
        elif isinstance(now, dict) and isinstance(then, dict) and isinstance(value, dict):
            found[key] = undone(now, value, then)
        else:
            found[key] = then
    return found


def difference(old: Metadata, new: Metadata) -> Metadata:
    """Return the merge patch from one document to another; a null that is new in it counts as nothing."""
    patch: Metadata = {key: None for key in old if key not in new}
    for key, value in new.items():
        held = old.get(key)
        if key in old and isinstance(held, dict) and isinstance(value, dict):
            if inner := difference(held, value):
                patch[key] = inner
        elif key not in old or json.dumps(held) != json.dumps(value):  # to Python True is 1, and 1 is 1.0
            patch[key] = value
    return patch


def dotted(key: str) -> list[str]:
    """Return the parts of a dotted path such as `sample.name`."""
    parts = key.split(".")
    if not all(parts):
        raise InvalidError(f'metadata key "{key[:200]}" has an empty part: write it like sample.name')
    return parts


def removal(metadata: Metadata, key: str) -> Metadata:
    """Return the patch that removes a key: one at the top of exactly that name, else at the dotted path."""
    parts = [key] if key in metadata else dotted(key)
    here: JsonValue = metadata
    for part in parts:
        if not isinstance(here, dict) or part not in here:
            raise NotFoundError(f'the file has no metadata "{key[:200]}"')
        here = here[part]
    patch: JsonValue = None
    for part in reversed(parts):
        patch = {part: patch}
    return patch if isinstance(patch, dict) else {}
