"""Queries as documents, in the notation of MongoDB: `{"size": {"$gt": 1e9}, "sample.name": "Ag"}`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn, TypeVar

from pydantic import JsonValue

from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.query import fields
from beamkeeper.domain.query.ast import EVERYTHING, Field, Node, Quantity, both, either, negated
from beamkeeper.domain.query.fields import MAX_DEPTH, MAX_NODES, RefusalError, shown

ORDERS = {"$eq": "=", "$ne": "!=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
FIELD_OPERATORS = (*ORDERS, "$in", "$nin", "$exists", "$regex", "$glob", "$not")
OPERATORS = ("$and", "$or", "$not", "$text")
_HINTS = {
    "$options": "write the flags into the expression: ^(?i)ag",
    "$nor": "write $not with $or",
    "$where": "no code is run here",
    "$expr": "no code is run here",
    "$function": "no code is run here",
}

ResultT = TypeVar("ResultT")


def parse_document(document: Mapping[str, JsonValue]) -> Node:
    """Return what a query means; refuse it with the path to what is wrong."""
    if not document:
        return EVERYTHING
    return _Parser().document(document, "filter", 1)


class _Parser:
    def __init__(self) -> None:
        self._nodes = 0

    def document(self, document: JsonValue | Mapping[str, JsonValue], path: str, depth: int) -> Node:
        """Return what one document means: all its conditions."""
        if not isinstance(document, Mapping):
            _refuse(path, "expected an object of conditions")
        if not document:
            _refuse(path, "expected a condition: an empty object means everything, and stands alone only")
        if depth > MAX_DEPTH:
            _refuse(path, f"a query nested deeper than {MAX_DEPTH} levels is refused")
        return both(*(self._entry(name, value, f"{path}{_step(name)}", depth) for name, value in document.items()))

    def _entry(self, name: str, value: JsonValue, path: str, depth: int) -> Node:
        if name in ("$and", "$or"):
            if not isinstance(value, list) or not value:
                _refuse(path, "expected a list of conditions, and not an empty one")
            self._count(path, len(value))
            found = [self.document(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]
            return both(*found) if name == "$and" else either(*found)
        if name == "$not":
            return negated(self.document(value, path, depth + 1))
        if name == "$text":
            words = value["$search"] if isinstance(value, dict) and set(value) == {"$search"} else value
            self._count(path)
            return _at(path, lambda: fields.text(words))
        if name.startswith("$"):
            _refuse(path, f"{shown(name)} is not known: {_HINTS.get(name, f'only {_listed(OPERATORS)} stand here')}")
        return self._field(_at(path, lambda: fields.field_named(name)), value, path, depth)

    def _field(self, field: Field, value: JsonValue, path: str, depth: int) -> Node:
        if depth > MAX_DEPTH:
            _refuse(path, f"a query nested deeper than {MAX_DEPTH} levels is refused")
        if not _is_operators(value):
            self._count(path)
            return _at(path, lambda: fields.compared(field, "=", _value(value)))
        assert isinstance(value, dict)  # noqa: S101 - what _is_operators says
        if not value:
            _refuse(path, "expected a value or an operator: dotted paths lead into objects")
        return both(*(self._operator(field, op, each, f"{path}.{op}", depth) for op, each in value.items()))

    def _operator(self, field: Field, op: str, value: JsonValue, path: str, depth: int) -> Node:
        self._count(path)
        if op in ORDERS:
            return _at(path, lambda: fields.compared(field, ORDERS[op], _value(value)))
        if op in ("$in", "$nin"):
            if not isinstance(value, list):
                _refuse(path, "expected a list of values")
            found = _at(path, lambda: fields.one_of(field, [_value(item) for item in value]))
            return found if op == "$in" else negated(found)
        if op == "$exists":
            if not isinstance(value, bool):
                _refuse(path, "expected true or false")
            found = _at(path, lambda: fields.exists(field))
            return found if value else negated(found)
        if op == "$regex":
            return _at(path, lambda: fields.matches(field, value))
        if op == "$glob":
            return _at(path, lambda: fields.glob(field, value))
        if op == "$not":
            if not _is_operators(value):
                _refuse(path, "expected an object of operators")
            return negated(self._field(field, value, path, depth + 1))
        _refuse(path, f"{shown(op)} is not known: {_HINTS.get(op, f'only {_listed(FIELD_OPERATORS)} stand here')}")

    def _count(self, path: str, more: int = 1) -> None:
        self._nodes += more
        if self._nodes > MAX_NODES:
            _refuse(path, f"a query of more than {MAX_NODES} conditions is refused")


def _is_operators(value: JsonValue) -> bool:
    return isinstance(value, dict) and (not value or any(key.startswith("$") for key in value))


def _value(value: JsonValue) -> JsonValue | Quantity:
    """Return a value, which may be a number with its unit."""
    if isinstance(value, list):
        raise RefusalError("a list is no value to compare with: use $in")
    if not isinstance(value, dict):
        return value
    number, unit = value.get("value"), value.get("unit")
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if set(value) != {"value", "unit"} or not is_number or not isinstance(unit, str):
        raise RefusalError(
            'an object is no value to compare with, but for {"value": 12, "unit": "keV"}: use dotted paths'
        )
    try:
        return Quantity(float(number), unit)  # type: ignore[arg-type] # what is_number says
    except OverflowError as error:
        raise RefusalError("a number beyond what a double holds is refused") from error


def _step(name: str) -> str:
    return f".{name[:80]}"


def _listed(names: tuple[str, ...]) -> str:
    return " ".join(names)


def _at(path: str, make: Callable[[], ResultT]) -> ResultT:
    try:
        return make()
    except RefusalError as refusal:
        _refuse(path, str(refusal))


def _refuse(path: str, why: str) -> NoReturn:
    where = path.encode("utf-8", "replace").decode().replace("\0", "?")[-300:]
    raise InvalidError(f"{where}: {why}", path=where)
