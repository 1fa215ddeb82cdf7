"""What a query means, in the slow and obvious way, and queries and files at random, for tests of searches."""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from pydantic import JsonValue

from beamkeeper.domain.query import fields
from beamkeeper.domain.query.ast import (
    EVERYTHING,
    Ago,
    And,
    Builtin,
    Compare,
    Exists,
    Field,
    Glob,
    In,
    Matches,
    Meta,
    Moment,
    Node,
    Not,
    Or,
    Quantity,
    Text,
    Value,
    both,
    either,
    negated,
)

NOW = datetime(2026, 3, 8, tzinfo=UTC)
UNITS = {
    "keV": ("energy", 1.602176634e-16),
    "eV": ("energy", 1.602176634e-19),
    "angstrom": ("length", 1e-10),
    "nm": ("length", 1e-9),
    "ms": ("time", 1e-3),
}
HC = 6.62607015e-34 * 299792458
OPS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Sample:
    """A file, as far as random queries ask."""

    path: str
    size: int
    modified: datetime
    is_verified: bool
    metadata: dict[str, JsonValue] = field(hash=False)
    experiment: str = ""

    def value(self, name: str) -> Any:
        """Return what a field that every file has is of this one."""
        directory, _, last = self.path.rpartition("/")
        stem, dot, suffix = last.rpartition(".")
        return {
            "path": self.path,
            "name": last,
            "directory": directory,
            "type": suffix.lower() if stem and dot else "",
            "size": self.size,
            "modified": self.modified,
            "verified": self.is_verified,
            "experiment": self.experiment,
            "kind": "file",
        }[name]


def means(node: Node, file: Sample) -> bool:
    """Say whether a query means a file."""
    match node:
        case And(items):
            return all(means(item, file) for item in items)
        case Or(items):
            return any(means(item, file) for item in items)
        case Not(item):
            return not means(item, file)
        case Text(words):
            there = set(re.findall(r"[a-z0-9]+", " ".join([file.path, *_texts(file.metadata)]).lower()))
            return all(_is_word_there(word.lower(), there) for word in words.split())
        case Compare(Builtin()) | In(Builtin()) | Glob(Builtin()) | Matches(Builtin()):
            return _means_of_file(node, file)
        case _:
            return _means_of_metadata(node, file)


def _means_of_file(node: Node, file: Sample) -> bool:
    match node:
        case Compare(Builtin(name), op, wanted):
            return OPS[op](file.value(name), _in_time(wanted))
        case In(Builtin(name), values):
            return file.value(name) in values
        case Glob(Builtin(name), pattern):
            return _is_like(file.value(name), pattern)
        case Matches(Builtin(name), pattern):
            return re.match(pattern, file.value(name), re.DOTALL) is not None
    raise AssertionError(node)


def _in_time(value: Value) -> Any:
    if isinstance(value, Ago):
        return NOW - timedelta(seconds=value.seconds)
    return value.at if isinstance(value, Moment) else value


def _means_of_metadata(node: Node, file: Sample) -> bool:
    match node:
        case Exists(Meta(parts)):
            return _is_anything(_at(file.metadata, parts))
        case Compare(Meta(parts), op, wanted):
            return any(_compares(stored, op, wanted) for stored in _scalars(file.metadata, parts))
        case In(Meta(parts), values):
            return any(_compares(stored, "=", each) for stored in _scalars(file.metadata, parts) for each in values)
        case Glob(Meta(parts), pattern):
            return any(isinstance(s, str) and _is_like(s, pattern) for s in _scalars(file.metadata, parts))
        case Matches(Meta(parts), pattern):
            return any(isinstance(s, str) and re.match(pattern, s) for s in _scalars(file.metadata, parts))
    raise AssertionError(node)


def _at(value: JsonValue, parts: tuple[str, ...]) -> JsonValue:
    for part in parts:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _scalars(metadata: JsonValue, parts: tuple[str, ...]) -> Iterator[Any]:
    value = _at(metadata, parts)
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict) and not isinstance(value, list):
            if isinstance(item.get("unit"), str) and type(item.get("value")) in (int, float):
                yield Quantity(float(item["value"]), str(item["unit"]))  # type: ignore[arg-type]
            if isinstance(item.get("value"), str | int | float):
                yield item["value"]
            elif isinstance(item.get("value"), list):
                yield from (x for x in item["value"] if type(x) in (int, float))  # type: ignore[union-attr]
        elif isinstance(item, str | int | float):
            yield item


def _compares(stored: Any, op: str, wanted: Any) -> bool:
    if isinstance(stored, Quantity) or isinstance(wanted, Quantity):
        return isinstance(stored, Quantity) and isinstance(wanted, Quantity) and _is_near(stored, op, wanted)
    if isinstance(stored, bool) != isinstance(wanted, bool) or isinstance(stored, str) != isinstance(wanted, str):
        return False
    if isinstance(stored, bool) and op != "=":
        return False
    if isinstance(stored, int | float):
        return OPS[op](float(stored), float(wanted))
    return OPS[op](stored, wanted)


def _is_near(stored: Quantity, op: str, wanted: Quantity) -> bool:
    (kind, factor), (wanted_kind, wanted_factor) = UNITS[stored.unit], UNITS[wanted.unit]
    ours, theirs = stored.value * factor, wanted.value * wanted_factor
    if kind != wanted_kind:
        if {kind, wanted_kind} != {"energy", "length"} or theirs <= 0:
            return False
        theirs = HC / theirs
        op = op.translate(str.maketrans("<>", "><"))
    slack = abs(theirs) * (1e-4 if op == "=" else 1e-6)
    return {
        "=": abs(ours - theirs) <= slack,
        ">=": ours >= theirs - slack,
        ">": ours > theirs + slack,
        "<=": ours <= theirs + slack,
        "<": ours < theirs - slack,
    }[op]


def _is_like(text: str, pattern: str) -> bool:
    return re.fullmatch(fnmatch.translate(pattern.replace("[", "[[]")), text) is not None


def _texts(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _is_word_there(word: str, there: set[str]) -> bool:
    return any(each.startswith(word[:-1]) for each in there) if word.endswith("*") else word in there


def _is_anything(value: JsonValue) -> bool:
    if isinstance(value, dict):
        return any(_is_anything(each) for each in value.values())
    return any(type(each) in (str, int, float, bool) for each in (value if isinstance(value, list) else [value]))


def document_of(node: Node) -> dict[str, Any]:
    """Return a query in the notation of MongoDB."""
    if node == EVERYTHING:
        return {}
    match node:
        case And(items):
            return {"$and": [document_of(item) for item in items]}
        case Or(items):
            return {"$or": [document_of(item) for item in items]}
        case Not(item):
            return {"$not": document_of(item)}
        case Text(words):
            return {"$text": words}
        case Compare(of, op, value):
            names = {"=": "$eq", "<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte"}
            return {_name(of): {names[op]: _written(value)}}
        case In(of, values):
            return {_name(of): {"$in": [_written(value) for value in values]}}
        case Glob(of, pattern):
            return {_name(of): {"$glob": pattern}}
        case Matches(of, pattern):
            return {_name(of): {"$regex": pattern}}
        case Exists(of):
            return {_name(of): {"$exists": True}}
    raise AssertionError(node)


def _name(of: Field) -> str:
    if isinstance(of, Builtin):
        return of.name
    is_other = (len(of.parts) == 1 and of.parts[0] in fields.BUILTINS) or of.parts[0] == "meta"
    return f"meta.{of.key}" if is_other else of.key


def _written(value: Any) -> JsonValue:
    match value:
        case Quantity(number, unit):
            return {"value": number, "unit": unit}
        case Moment(at):
            return at.isoformat()
        case Ago(seconds):
            return f"-{seconds}s"
        case _:
            plain: JsonValue = value
            return plain


TEXTS = st.sampled_from(
    ["", "Ag", "AgBeh", "Au", "ag", "é", "\U0001f52c", "a%b", "a_b", "[x]", "A*", "x\ny", "'", "\\"]
)
NUMBERS: st.SearchStrategy[int | float] = st.integers(-2, 3) | st.sampled_from(
    [0.1, 2.5, 16.9, 12400.0, 2**53 + 1, 1e300]
)
QUANTITIES = st.builds(
    Quantity,
    st.sampled_from([16.9, 16900.0, 0.7336, 12.0, 12000.0, 1.0332, 0.07336, -3.0, 0.0]),
    st.sampled_from([*UNITS]),
)
KEYS = st.sampled_from(["a", "b", "value", "size", "meta", "odd key", "é", "and"])
STORED: st.SearchStrategy[JsonValue] = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    TEXTS,
    QUANTITIES.map(lambda quantity: {"value": quantity.value, "unit": quantity.unit}),
)
DOCUMENTS: st.SearchStrategy[dict[str, JsonValue]] = st.dictionaries(
    KEYS,
    st.recursive(
        STORED, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=2), max_leaves=5
    ),
    max_size=4,
)
PATHS = st.sampled_from(
    ["data/Ag_1.tif", "data/Ag_2.TIF", "data/s/x.h5", "data/s/[x].tif", "data/.hid", "top", "data/100%"]
)
GLOBS = st.text(st.sampled_from(["A", "g", "a", "*", "?", "[", "_", "%", "é", "x"]), max_size=4) | st.sampled_from(
    ["*_1.tif", "Ag_?.tif", "*.tif", "*.hid", "?hid", "*_2.TIF", "data/*", "data/s/*.tif", "*1*", "Ag_1*", "*.h5"]
)
REGEXES = st.sampled_from(["^A", "^A[gu]$", "^.*g", "^(A|a)g", "^data/.*[.]tif$", "^a.b", "^$", "^x?"])
WORDS = st.sampled_from(["ag", "Ag", "agbeh", "ag*", "x", "tif h5", "data ag*", "au"])


def samples() -> st.SearchStrategy[list[Sample]]:
    """Return some files with paths of their own."""
    one = st.builds(
        Sample,
        path=PATHS,
        size=st.integers(0, 3),
        modified=st.sampled_from([NOW - timedelta(days=days) for days in (1, 7, 30)]),
        is_verified=st.booleans(),
        metadata=DOCUMENTS,
    )
    return st.lists(one, min_size=1, max_size=5, unique_by=lambda sample: sample.path)


def _metadata_fields() -> st.SearchStrategy[Field]:
    return st.lists(KEYS, min_size=1, max_size=2).map(lambda parts: Meta(tuple(parts)))


def _between(field: Field, ends: tuple[Any, Any]) -> Node:
    low, high = ends
    return both(fields.compared(field, ">=", low), fields.compared(field, "<", high))


_TEXT_FIELDS = st.sampled_from([Builtin(name) for name in ("path", "name", "directory", "type", "experiment")])
_OPS = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
LEAVES: st.SearchStrategy[Node] = st.one_of(
    st.builds(fields.compared, _metadata_fields(), _OPS, st.one_of(NUMBERS, TEXTS, QUANTITIES)),
    st.builds(fields.compared, _metadata_fields(), st.sampled_from(["=", "!="]), st.booleans() | st.none()),
    st.builds(
        fields.one_of,
        _metadata_fields(),
        st.lists(NUMBERS | TEXTS | QUANTITIES | st.booleans(), min_size=1, max_size=3),
    ),
    st.builds(fields.glob, _metadata_fields() | _TEXT_FIELDS, GLOBS),
    st.builds(fields.matches, _metadata_fields() | _TEXT_FIELDS, REGEXES),
    st.builds(fields.exists, _metadata_fields()),
    st.builds(fields.text, WORDS),
    st.builds(fields.compared, _TEXT_FIELDS, _OPS, PATHS | st.sampled_from(["tif", "data", "Ag_1.tif", "one"])),
    st.builds(fields.compared, st.just(Builtin("size")), _OPS, st.integers(0, 3)),
    st.builds(fields.one_of, _TEXT_FIELDS, st.lists(PATHS | st.sampled_from(["tif", "data", "h5"]), min_size=1)),
    st.builds(
        _between, _metadata_fields(), st.one_of(*(st.tuples(each, each) for each in (NUMBERS, TEXTS, QUANTITIES)))
    ),
    st.builds(_between, st.just(Builtin("size")), st.tuples(st.integers(0, 3), st.integers(0, 3))),
    st.builds(
        fields.compared, st.just(Builtin("modified")), _OPS, st.sampled_from(["-7d", "-8d", "2026-03-01", "now"])
    ),
    st.builds(fields.compared, st.just(Builtin("verified")), st.just("="), st.booleans()),
)
QUERIES: st.SearchStrategy[Node] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda items: both(*items)),
        st.lists(inner, min_size=2, max_size=3).map(lambda items: either(*items)),
        inner.map(negated),
    ),
    max_leaves=5,
)
"""Queries of every kind of condition."""
