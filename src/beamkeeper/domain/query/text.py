"""The short notation for people: `size > 1GB and sample.name ~ "Ag*" and energy >= 12keV and modified > -7d`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NoReturn, TypeVar

from pydantic import JsonValue

from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.query import fields
from beamkeeper.domain.query.ast import EVERYTHING, Builtin, Field, Meta, Node, Quantity, both, either, negated
from beamkeeper.domain.query.fields import BUILTINS, MAX_DEPTH, MAX_NODES, Kind, RefusalError, shown

MAX_QUERY = 8192
KEYWORDS = frozenset({"and", "or", "not", "in", "exists", "matches", "true", "false", "null"})
OPERATORS = ("<=", ">=", "!=", "!~", "=", "<", ">", "~")

ResultT = TypeVar("ResultT")

_WORD = r"[^\s\"'(),=<>!~]+"
_STRING = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'"
_TOKEN = re.compile(
    rf"\s*(?:(?P<op>{'|'.join(OPERATORS)})|(?P<mark>[(),])|(?P<term>(?:{_WORD}|{_STRING})+)|(?P<end>$))", re.DOTALL
)
_PIECE = re.compile(rf"(?P<string>{_STRING})|(?P<word>{_WORD})", re.DOTALL)
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)([A-Za-zµμÅåÅ°%Ω][^\s]*)?")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int

    @property
    def keyword(self) -> str:
        """The keyword that this is, in small letters; empty of anything else."""
        return self.text.lower() if self.kind == "term" and self.text.lower() in KEYWORDS else ""

    def is_term(self) -> bool:
        """Whether it is a name or a value."""
        return self.kind == "term" and (not self.keyword or self.keyword in ("true", "false", "null"))


def parse_text(query: str) -> Node:
    """Return what a query means; refuse it with the position of what is wrong."""
    if len(query) > MAX_QUERY:
        raise InvalidError(f"a query of {len(query)} characters is refused: at most {MAX_QUERY}")
    return _Parser(query).parse()


class _Parser:
    def __init__(self, query: str) -> None:
        self._query = query
        self._tokens = list(self._split())
        self._place = 0
        self._depth = 0
        self._nodes = 0

    def parse(self) -> Node:
        """Return the meaning of the whole query."""
        if self._next.kind == "end":
            return EVERYTHING
        found = self._either()
        if self._next.kind != "end":
            self._refuse(f'expected "and", "or" or the end, and not {shown(self._next.text)}', self._next)
        return found

    def _split(self) -> Iterator[_Token]:
        at = 0
        while True:
            match = _TOKEN.match(self._query, at)
            if match is None:
                at += len(self._query[at:]) - len(self._query[at:].lstrip())
                opened = self._query[at : at + 1] in ('"', "'")
                why = "this quote is never closed" if opened else f"{shown(self._query[at : at + 1])} is not understood"
                self._refuse(why, _Token("", "", at))
            kind = match.lastgroup or "end"
            yield _Token(kind, match[kind], match.start(kind))
            if kind == "end":
                return
            at = match.end()

    @property
    def _next(self) -> _Token:
        return self._tokens[self._place]

    def _take(self) -> _Token:
        taken = self._next
        if taken.kind != "end":
            self._place += 1
        return taken

    def _refuse(self, why: str, token: _Token) -> NoReturn:
        near = self._query[token.at : token.at + 20].split("\n")[0]
        where = f"character {token.at + 1} (at {near!r})" if near else "the end"
        raise InvalidError(f"query, {where}: {why}", position=token.at + 1)

    def _at(self, token: _Token, make: Callable[[], ResultT]) -> ResultT:
        try:
            return make()
        except RefusalError as refusal:
            self._refuse(str(refusal), token)

    def _either(self) -> Node:
        found = [self._both()]
        while self._next.keyword == "or":
            self._take()
            found.append(self._both())
        return either(*found)

    def _both(self) -> Node:
        found = [self._unary()]
        while self._next.keyword == "and":
            self._take()
            found.append(self._unary())
        return both(*found)

    def _unary(self) -> Node:
        is_negated = False
        while self._next.keyword == "not":
            self._take()
            is_negated = not is_negated
        found = self._group() if self._next.text == "(" and self._next.kind == "mark" else self._condition()
        return negated(found) if is_negated else found

    def _group(self) -> Node:
        opened = self._take()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"a query nested deeper than {MAX_DEPTH} levels is refused", opened)
        found = self._either()
        closed = self._take()
        if closed.text != ")" or closed.kind != "mark":
            self._refuse('expected ")"' if closed.kind == "end" else 'expected "and", "or" or ")"', closed)
        self._depth -= 1
        return found

    def _condition(self) -> Node:
        token = self._take()
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._refuse(f"a query of more than {MAX_NODES} conditions is refused", token)
        if not token.is_term():
            self._refuse("expected a condition, such as size > 1GB", token)
        following = self._next
        if following.kind == "op" or following.keyword in ("exists", "matches", "in", "not"):
            return self._tested(token)
        return self._bare(token)

    def _tested(self, token: _Token) -> Node:
        field = self._at(token, lambda: _field(token.text))
        op = self._take()
        word = op.keyword or op.text
        if word == "not":
            if self._next.keyword != "in":
                self._refuse('expected "in"', self._next)
            self._take()
            return negated(self._listed(field))
        if word == "exists":
            return self._at(token, lambda: fields.exists(field))
        if word == "in":
            return self._listed(field)
        if word in ("~", "!~", "matches"):
            pattern = self._take_term()
            text = _unquoted(pattern.text)
            make = fields.matches if word == "matches" else fields.glob
            found: Node = self._at(pattern, lambda: make(field, text))
            return negated(found) if word == "!~" else found
        value = self._next
        return self._at(value, partial(fields.compared, field, word, self._value(field)))

    def _listed(self, field: Field) -> Node:
        opened = self._take()
        if opened.text != "(":
            self._refuse('expected a list, such as ("Ag", "Au")', opened)
        values: list[JsonValue | Quantity] = []
        while True:
            values.append(self._value(field))
            mark = self._take()
            if mark.text not in (",", ")") or mark.kind != "mark":
                self._refuse('expected "," or ")"', mark)
            if mark.text == ")":
                return self._at(opened, lambda: fields.one_of(field, values))

    def _take_term(self) -> _Token:
        token = self._take()
        if token.kind != "term":
            self._refuse("expected a value", token)
        return token

    def _value(self, field: Field) -> JsonValue | Quantity:
        token = self._take_term()
        if _is_string(token.text):
            return _unquoted(token.text)
        unit = self._unit_after(token.text)
        if isinstance(field, Builtin):
            return f"{token.text} {unit}" if unit else _unquoted(token.text)
        if token.keyword in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[token.keyword]
        number = _NUMBER.fullmatch(token.text)
        if number is None:
            return _unquoted(token.text)
        unit = unit or number[2]
        if unit:
            return Quantity(float(number[1]), unit)
        return int(number[1]) if re.fullmatch(r"[+-]?\d{1,400}", number[1]) else float(number[1])

    def _unit_after(self, text: str) -> str:
        """Take the unit that follows a number after a space, if one does."""
        number = _NUMBER.fullmatch(text)
        if number is None or number[2] or self._next.kind != "term" or self._next.keyword:
            return ""
        if self._next.text[0] in "0123456789.+-" and not self._next.text.startswith("1/"):
            return ""
        return _unquoted(self._take().text)

    def _bare(self, token: _Token) -> Node:
        """Return what a word or text alone means: a claim, a path or words to be found."""
        if _is_string(token.text):
            return self._at(token, lambda: fields.text(_unquoted(token.text)))
        known = BUILTINS.get(token.text)
        if known is not None and known.kind is Kind.FLAG:
            return self._at(token, lambda: fields.compared(Builtin(token.text), "=", True))
        if known is not None:
            self._refuse(f"expected an operator after {token.text}: {' '.join(OPERATORS)} in matches", self._next)
        if any(char in token.text for char in "*?/"):
            return self._at(token, lambda: fields.glob(Builtin("path"), _unquoted(token.text)))
        return self._at(token, lambda: fields.text(_unquoted(token.text)))


def _is_string(text: str) -> bool:
    match = _PIECE.fullmatch(text)
    return match is not None and match["string"] is not None


def _unquoted(text: str) -> str:
    """Return a term without its quotes."""
    return "".join(_plain(piece) for piece in _PIECE.finditer(text))


def _plain(piece: re.Match[str]) -> str:
    return piece[0] if piece["string"] is None else re.sub(r"\\([\"'\\])", r"\1", piece[0][1:-1])


def _field(text: str) -> Field:
    """Return the field that a term names; what is in quotes is one key, whatever it looks like."""
    parts = [""]
    for piece in _PIECE.finditer(text):
        if piece["string"] is not None:
            if "." in _plain(piece):
                raise RefusalError("a key with a dot in it cannot be asked for")
            parts[-1] += _plain(piece)
        else:
            first, *others = piece[0].split(".")
            parts[-1] += first
            parts.extend(others)
    is_quoted = text[:1] in ('"', "'")
    if is_quoted:
        fields.field_of(["meta", *parts])  # refuses what no key can be
        return Meta(tuple(parts))
    return fields.field_of(parts)
