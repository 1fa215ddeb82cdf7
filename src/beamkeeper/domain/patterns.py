"""Patterns of paths with named parts, such as `data/scan{run}_*.tif`, matched in time that stays small."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Self

from beamkeeper.domain.errors import InvalidError

MAX_PARTS = 32

_PART = re.compile(
    r"\{(?P<name>[A-Za-z_][A-Za-z0-9_]{0,31})\}|(?P<any>\*+)|(?P<one>\?)|(?P<text>[^*?{}]+)|(?P<bad>[{}])"
)


class _Part(NamedTuple):
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern: `*` is any characters, `?` one, `{name}` some that are no slash, as few as will do."""

    parts: Sequence[_Part]

    @classmethod
    def parse(cls, text: str, required: str) -> Self:
        """Return the pattern that a text is; it has to have the part that is required."""
        return cls(_parsed(text, required))

    @property
    def glob(self) -> str:
        """The pattern without names: all that it matches, and more."""
        return "".join({"name": "?*", "any": "*", "one": "?"}.get(part.kind, part.text) for part in self.parts)

    def match(self, text: str) -> dict[str, str] | None:
        """Return the named parts of a text; None where it does not match.

        No place is looked at twice for the same part, so the time grows with the product of the two lengths only.
        """
        seen: set[tuple[int, int, bool]] = set()
        waiting = [_State(0, 0, None, {})]
        while waiting:
            state = waiting.pop()
            key = (state.part, state.at, state.begin is None)
            if key in seen:
                continue
            seen.add(key)
            if state.part == len(self.parts):
                if state.at == len(text):
                    return dict(state.names)
            else:
                waiting.extend(_next(self.parts[state.part], text, state))
        return None


class _State(NamedTuple):
    """How far a match has come: to which part, where in the text, and where a name in it began."""

    part: int
    at: int
    begin: int | None
    names: Mapping[str, str]


def _next(part: _Part, text: str, state: _State) -> Iterator[_State]:
    """Yield how a match may go on, the preferred way last."""
    here, at, begin, names = state
    if part.kind == "text":
        if text.startswith(part.text, at):
            yield _State(here + 1, at + len(part.text), None, names)
    elif part.kind == "one":
        if at < len(text):
            yield _State(here + 1, at + 1, None, names)
    elif part.kind == "any":
        if at < len(text):
            yield _State(here, at + 1, None, names)
        yield _State(here + 1, at, None, names)
    else:
        start = at if begin is None else begin
        if at < len(text) and text[at] != "/":
            yield _State(here, at + 1, start, names)
        if at > start:
            yield _State(here + 1, at, None, {**names, part.text: text[start:at]})


@lru_cache(maxsize=256)
def _parsed(text: str, required: str) -> tuple[_Part, ...]:
    parts = []
    for found in _PART.finditer(text):
        kind = found.lastgroup or "text"
        if kind == "bad":
            raise InvalidError(f'pattern "{text}" has a brace without its partner, or no name in it: write {{run}}')
        parts.append(_Part(kind, found[kind]))
    names = [part.text for part in parts if part.kind == "name"]
    if required not in names:
        raise InvalidError(f'pattern "{text}" has no {{{required}}}: it has to tell the {required}')
    if len(names) != len(set(names)):
        raise InvalidError(f'pattern "{text}" has a name twice: use each once')
    if len(parts) > MAX_PARTS:
        raise InvalidError(f'pattern "{text}" has more than {MAX_PARTS} parts: write a shorter one')
    return tuple(parts)
