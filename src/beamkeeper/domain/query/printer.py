"""From a query back to the short notation: what is printed means the same when it is read again."""

from __future__ import annotations

import re

from beamkeeper.domain.query.ast import (
    Ago,
    And,
    Builtin,
    Compare,
    Exists,
    Field,
    Glob,
    In,
    Matches,
    Moment,
    Node,
    Not,
    Or,
    Quantity,
    Text,
    Value,
)
from beamkeeper.domain.query.fields import BUILTINS
from beamkeeper.domain.query.text import KEYWORDS

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def printed(node: Node) -> str:
    """Return a query in the short notation."""
    match node:
        case And(items):
            return " and ".join(_inner(item) for item in items)
        case Or(items):
            return " or ".join(_inner(item) for item in items)
        case Not(item):
            return f"not {_inner(item)}"
        case Compare(field, op, value):
            return f"{_field(field)} {op} {_value(value)}"
        case In(field, values):
            return f"{_field(field)} in ({', '.join(map(_value, values))})"
        case Glob(field, pattern):
            return f"{_field(field)} ~ {_quoted(pattern)}"
        case Matches(field, pattern):
            return f"{_field(field)} matches {_quoted(pattern)}"
        case Exists(field):
            return f"{_field(field)} exists"
        case Text(words):
            return f"text = {_quoted(words)}"


def _inner(node: Node) -> str:
    return f"({printed(node)})" if isinstance(node, And | Or) else printed(node)


def _field(field: Field) -> str:
    if isinstance(field, Builtin):
        return field.name
    parts = ".".join(_key(part) for part in field.parts)
    is_other = (len(field.parts) == 1 and field.parts[0] in BUILTINS) or field.parts[0] == "meta"
    return f"meta.{parts}" if is_other else parts


def _key(part: str) -> str:
    return part if _PLAIN_KEY.fullmatch(part) and part.lower() not in KEYWORDS else _quoted(part)


def _value(value: Value) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return _quoted(value)
        case Quantity(number, unit):
            return f"{number!r} {_quoted(unit)}"
        case Moment(at):
            return at.isoformat()
        case Ago(seconds):
            return f"-{seconds}s"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
