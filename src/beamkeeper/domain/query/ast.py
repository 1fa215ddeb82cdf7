"""What a query is: conditions on fields, joined by and, or, not; made by both notations, and nothing else.

A tree is made by the functions below, which keep one shape for one meaning: `and` in `and` is one `and`, `not not` is
nothing, `!=` is `not =`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

Op = Literal["=", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Builtin:
    """A field that every file has, such as `size`; see `fields`."""

    name: str


@dataclass(frozen=True, slots=True)
class Meta:
    """A key of the metadata, by its parts: `sample.name` is ("sample", "name")."""

    parts: tuple[str, ...]

    @property
    def key(self) -> str:
        """The key as the index has it."""
        return ".".join(self.parts)


Field: TypeAlias = Builtin | Meta


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with a unit."""

    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time, aware and in UTC."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Ago:
    """So many seconds before the query is answered."""

    seconds: int


Value: TypeAlias = bool | int | float | str | Quantity | Moment | Ago


@dataclass(frozen=True, slots=True)
class Compare:
    """A field has a value that compares so."""

    field: Field
    op: Op
    value: Value


@dataclass(frozen=True, slots=True)
class In:
    """A field has one of these values."""

    field: Field
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Glob:
    """A field has a text of this shape: `*` is any characters, `?` is one."""

    field: Field
    pattern: str


@dataclass(frozen=True, slots=True)
class Matches:
    """A field has a text whose beginning this regular expression matches."""

    field: Field
    pattern: str


@dataclass(frozen=True, slots=True)
class Exists:
    """A field has any value."""

    field: Field


@dataclass(frozen=True, slots=True)
class Text:
    """All of these words are in the path or in texts of the metadata; `*` at a word's end is any ending."""

    words: str


@dataclass(frozen=True, slots=True)
class And:
    """All of them; of none at all, everything."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of them."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """What this does not mean."""

    item: Node


Leaf: TypeAlias = Compare | In | Glob | Matches | Exists | Text
Node: TypeAlias = Leaf | And | Or | Not

EVERYTHING = And(())
"""What a query without conditions means."""


def both(*nodes: Node) -> Node:
    """Join by `and`."""
    return _flat(And, nodes)


def either(*nodes: Node) -> Node:
    """Join by `or`."""
    return _flat(Or, nodes)


def negated(node: Node) -> Node:
    """Return what a query does not mean."""
    return node.item if isinstance(node, Not) else Not(node)


def _flat(kind: type[And | Or], nodes: tuple[Node, ...]) -> Node:
    items: list[Node] = []
    for node in nodes:
        items.extend(node.items if isinstance(node, kind) else (node,))
    return items[0] if len(items) == 1 else kind(tuple(items))


def leaves(node: Node) -> Iterator[Leaf]:
    """Yield every condition of a query."""
    match node:
        case And(items) | Or(items):
            for item in items:
                yield from leaves(item)
        case Not(item):
            yield from leaves(item)
        case _:
            yield node
