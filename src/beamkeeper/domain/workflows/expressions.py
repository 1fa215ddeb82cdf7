"""The expressions of `runIf` and `repeatUntil`: comparisons of texts and numbers, joined by and, or and not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

from beamkeeper.domain.errors import InvalidError

MAX_LENGTH = 4096
MAX_DEPTH = 20
MAX_COMPARISONS = 100

_TOKEN = re.compile(
    r"\s*(?:(?P<text>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')|(?P<op>==|!=|<=|>=|<|>)|(?P<mark>[()])"
    r"|(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?(?![\w$]))"
    r"|(?P<variable>\$(?:\{\w+\}|\w+))|(?P<word>[A-Za-z]+)|(?P<end>$))",
    re.DOTALL | re.ASCII,
)
_REFERENCE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_KEYWORDS = frozenset({"and", "or", "not", "in"})
_CONSTANTS = {"true": True, "false": False}

Values = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Condition:
    """An expression that has been understood; values are only ever compared, so none can become an operator."""

    text: str
    names: frozenset[str]
    holds: Callable[[Values], bool]


@dataclass(frozen=True, slots=True)
class _Term:
    """One side of a comparison: a text in which variables may stand, or a number."""

    template: str
    is_number: bool = False

    def value(self, values: Values) -> str:
        """Return its text, with each variable replaced; one that is not set is empty."""
        return _REFERENCE.sub(lambda found: values.get(found[1] or found[2], ""), self.template)


@lru_cache(maxsize=512)
def condition(text: str) -> Condition:
    """Return what an expression means; refuse it with the position of what is wrong."""
    if len(text) > MAX_LENGTH:
        raise InvalidError(f"an expression of {len(text)} characters is refused: at most {MAX_LENGTH}")
    return _Parser(text).parse()


def holds(text: str, values: Values) -> bool:
    """Whether an expression is true of these variables."""
    return condition(text).holds(values)


def _number(text: str) -> float | None:
    try:
        return float(text) if re.fullmatch(r"\s*[+-]?[\d.][\d.eE+-]*\s*", text) else None
    except ValueError:
        return None


def _compared(left: str, op: str, right: str, as_numbers: bool) -> bool:
    """Compare as numbers where one side is written as a number, and in order where both are; otherwise as texts."""
    if op == "in":
        return left in right
    numbers = (_number(left), _number(right)) if as_numbers or op not in ("==", "!=") else (None, None)
    one: float | str | None = numbers[0]
    other: float | str | None = numbers[1]
    if one is None or other is None:
        one, other = left, right
    results = {
        "==": one == other,
        "!=": one != other,
        "<": one < other,  # type: ignore[operator]
        "<=": one <= other,  # type: ignore[operator]
        ">": one > other,  # type: ignore[operator]
        ">=": one >= other,  # type: ignore[operator]
    }
    return results[op]


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._split())
        self._place = 0
        self._depth = 0
        self._comparisons = 0
        self._names: set[str] = set()

    def parse(self) -> Condition:
        """Return the meaning of the whole."""
        found = self._either()
        if self._kind != "end":
            self._refuse('expected "and", "or" or the end')
        return Condition(self._text, frozenset(self._names), found)

    def _split(self) -> Iterator[tuple[str, str, int]]:
        at = 0
        while True:
            match = _TOKEN.match(self._text, at)
            if match is None:
                at += len(self._text[at:]) - len(self._text[at:].lstrip())
                raise InvalidError(
                    f"expression {self._text[:200]!r}, character {at + 1}: not understood: texts stand in quotes",
                    position=at + 1,
                )
            kind = match.lastgroup or "end"
            yield kind, match[kind], match.start(kind)
            if kind == "end":
                return
            at = match.end()

    @property
    def _kind(self) -> str:
        return self._tokens[self._place][0]

    @property
    def _word(self) -> str:
        kind, text, _ = self._tokens[self._place]
        return text.lower() if kind in ("word", "mark", "op") else ""

    def _take(self) -> str:
        text = self._tokens[self._place][1]
        self._place += self._kind != "end"
        return text

    def _refuse(self, why: str) -> NoReturn:
        at = self._tokens[self._place][2]
        raise InvalidError(f"expression {self._text[:200]!r}, character {at + 1}: {why}", position=at + 1)

    def _either(self) -> Callable[[Values], bool]:
        parts = [self._both()]
        while self._word == "or":
            self._take()
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else lambda values: any(part(values) for part in parts)

    def _both(self) -> Callable[[Values], bool]:
        parts = [self._unary()]
        while self._word == "and":
            self._take()
            parts.append(self._unary())
        return parts[0] if len(parts) == 1 else lambda values: all(part(values) for part in parts)

    def _unary(self) -> Callable[[Values], bool]:
        is_negated = False
        while self._word == "not":
            self._take()
            is_negated = not is_negated
        found = self._group() if self._word == "(" else self._comparison()
        return (lambda values: not found(values)) if is_negated else found

    def _group(self) -> Callable[[Values], bool]:
        self._take()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"nested deeper than {MAX_DEPTH} levels")
        found = self._either()
        if self._word != ")":
            self._refuse('expected ")"')
        self._take()
        self._depth -= 1
        return found

    def _comparison(self) -> Callable[[Values], bool]:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            self._refuse(f"more than {MAX_COMPARISONS} comparisons")
        if self._word in _CONSTANTS:
            constant = _CONSTANTS[self._take().lower()]
            return lambda values: constant
        left = self._term()
        op, is_negated = self._operator()
        right = self._term()
        as_numbers = left.is_number or right.is_number
        return lambda values: _compared(left.value(values), op, right.value(values), as_numbers) is not is_negated

    def _operator(self) -> tuple[str, bool]:
        if self._kind == "op":
            return self._take(), False
        is_negated = self._word == "not"
        if is_negated:
            self._take()
        if self._word != "in":
            self._refuse('expected ==, !=, <, > or in: a value alone is no condition, write "$value" != ""')
        self._take()
        return "in", is_negated

    def _term(self) -> _Term:
        kind, text, _ = self._tokens[self._place]
        if kind not in ("text", "number", "variable"):
            hint = ": texts stand in quotes" if kind == "word" and text.lower() not in _KEYWORDS else ""
            self._refuse(f'expected a text such as "$name", or a number{hint}')
        self._take()
        if kind == "text":
            text = re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
        self._names.update(found[1] or found[2] for found in _REFERENCE.finditer(text))
        return _Term(text, kind == "number")
