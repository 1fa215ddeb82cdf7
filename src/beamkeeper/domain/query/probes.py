"""What conditions on metadata ask of its terms: points, spans and shapes, with units brought to SI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from beamkeeper.domain.query.ast import (
    Ago,
    Builtin,
    Compare,
    Exists,
    Glob,
    In,
    Leaf,
    Matches,
    Moment,
    Op,
    Quantity,
    Text,
    Value,
)
from beamkeeper.domain.query.regex import prefix_of
from beamkeeper.domain.terms import BOOLEAN, PLAIN, TEXT
from beamkeeper.domain.units import SiValue, same_photon, to_si

EQUAL = 1e-4
"""Quantities are equal within this part of themselves: people write 16.9 keV of what was measured."""
ROUNDING = 1e-6
"""The end of a span counts within this part of itself: files hold single precision, and conversions round."""

_TURNED: dict[Op, Op] = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True, slots=True)
class Points:
    """A term of this key and dimension has one of these values."""

    key: str
    dimension: str
    values: tuple[float, ...] | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """A term of this key and dimension lies between two values, either of which may be left out."""

    key: str
    dimension: str
    low: float | str | None = None
    high: float | str | None = None
    is_low_in: bool = True
    is_high_in: bool = True

    def holds(self, value: float | str) -> bool:
        """Whether a value lies between; texts compare by their bytes, as code points do."""
        if self.low is not None and not (value > self.low or (self.is_low_in and value == self.low)):  # type: ignore[operator]
            return False
        return self.high is None or value < self.high or (self.is_high_in and value == self.high)  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class Shape:
    """A text of this key matches a glob, or a regular expression."""

    key: str
    pattern: str
    is_regex: bool = False

    @property
    def prefix(self) -> str:
        """What every such text begins with."""
        return prefix_of(self.pattern) if self.is_regex else glob_prefix(self.pattern)


@dataclass(frozen=True, slots=True)
class Below:
    """There is any term of this key, or of one below it."""

    key: str


Probe: TypeAlias = Points | Span | Shape | Below


def probes_of(leaf: Leaf) -> Sequence[Probe]:
    """Return what a condition on metadata asks: that any of these holds of any term."""
    if isinstance(leaf, Text) or isinstance(leaf.field, Builtin):
        raise TypeError("not a condition on metadata")
    key = leaf.field.key
    if not isinstance(leaf, Exists) and "." in key:
        key = key.removesuffix(".value")  # an object stands for its value, and the index has that under its own key
    match leaf:
        case Exists():
            return [Below(key)]
        case Glob(_, pattern):
            return [Shape(key, pattern)]
        case Matches(_, pattern):
            return [Shape(key, pattern, is_regex=True)]
        case In(_, values):
            return _of_list(key, values)
        case Compare(_, op, value):
            return _of_comparison(key, op, value)


def _of_list(key: str, values: Sequence[Value]) -> Sequence[Probe]:
    probes: list[Probe] = []
    texts = tuple(value for value in values if isinstance(value, str))
    flags = tuple(float(value) for value in values if isinstance(value, bool))
    numbers = tuple(float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool))
    if texts:
        probes.append(Points(key, TEXT, texts))
    if flags:
        probes.append(Points(key, BOOLEAN, flags))
    if numbers:
        probes.append(Points(key, PLAIN, numbers))
    for value in values:
        if isinstance(value, Quantity):
            probes.extend(_of_comparison(key, "=", value))
    return probes


def _of_comparison(key: str, op: Op, value: Value) -> Sequence[Probe]:
    if isinstance(value, Quantity):
        si = to_si(value.value, value.unit, key=key)
        other = same_photon(si) if si is not None else None
        found = [] if si is None else [_near(key, op, si)]
        return found if other is None else [*found, _near(key, _TURNED[op], other)]
    if isinstance(value, Moment | Ago):
        raise TypeError("metadata has no times")
    if isinstance(value, str):
        return [_span(key, TEXT, op, value)]
    if isinstance(value, bool):
        return [Points(key, BOOLEAN, (float(value),))]
    # A number without a unit means what was written, whatever the unit.
    return [_span(key, PLAIN, op, float(value))]


def _span(key: str, dimension: str, op: Op, value: float | str) -> Points | Span:
    if op == "=":
        return Points(key, dimension, (value,))  # type: ignore[arg-type] # one value is of one kind
    is_in = op in ("<=", ">=")
    if op in (">", ">="):
        return Span(key, dimension, low=value, is_low_in=is_in)
    return Span(key, dimension, high=value, is_high_in=is_in)


def _near(key: str, op: Op, si: SiValue) -> Points | Span:
    """Return the span of a quantity: what is as good as equal is equal, also at the end of a span."""
    slack = abs(si.value) * (EQUAL if op == "=" else ROUNDING)
    low, high = si.value - slack, si.value + slack
    match op:
        case "=":
            return Span(key, si.dimension, low, high)
        case ">=":
            return Span(key, si.dimension, low=low)
        case ">":
            return Span(key, si.dimension, low=high, is_low_in=False)
        case "<=":
            return Span(key, si.dimension, high=high)
        case "<":
            return Span(key, si.dimension, high=low, is_high_in=False)


def glob_prefix(pattern: str) -> str:
    """Return what every text of this shape begins with."""
    for special in "*?":
        pattern = pattern.partition(special)[0]
    return pattern
