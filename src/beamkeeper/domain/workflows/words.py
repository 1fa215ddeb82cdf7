"""What a command is made of as a shell reads it: words, simple commands, and the places where variables stand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from beamkeeper.domain.errors import InvalidError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\[[^=]*\])?\+?=")
BEFORE_COMMANDS = frozenset({"if", "then", "else", "elif", "while", "until", "do", "!", "{", "time"})


class Quote(StrEnum):
    """In which quotes a variable stands."""

    BARE = "bare"
    DOUBLE = "double"
    SINGLE = "single"
    HERE = "here-document"
    LITERAL_HERE = "here-document with a quoted delimiter"
    ANSI = "$'...'"


class Form(StrEnum):
    """How a variable is written."""

    NAME = "$name"
    BRACED = "${name}"
    EXPANSION = "${name...}"
    IDENTIFIER = "name, in arithmetic"
    SPECIAL = "$1, $@ and the like"


@dataclass(slots=True)
class Reference:
    """A place where a variable stands; `reread` says what reads its value again, as code or as arithmetic."""

    start: int
    end: int
    name: str
    form: Form
    quote: Quote
    is_inner: bool = False
    is_placed: bool = False
    is_word: bool = False
    begins_word: bool = False
    is_command: bool = False
    is_number: bool = False
    reread: str = ""


@dataclass(slots=True)
class Word:
    """A word of a command: its text as far as it is certain, and the references in it."""

    start: int
    end: int
    text: str
    is_literal: bool
    references: list[Reference]
    script: tuple[int, int] | None = None
    """Where its text is, of a word that is one text in single quotes."""


@dataclass(slots=True)
class Simple:
    """A simple command, with every reference in its words, redirections, substitutions and here-documents."""

    words: list[Word] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    has_input: bool = False
    closes_group: bool = False


@dataclass(slots=True)
class HereDocument:
    """A here-document that begins at the end of the line."""

    delimiter: str
    is_literal: bool
    strips_tabs: bool
    command: Simple


@dataclass(slots=True)
class Reading:
    """A command as it was read."""

    text: str
    references: list[Reference] = field(default_factory=list)
    pipelines: list[list[Simple]] = field(default_factory=list)
    locals: set[str] = field(default_factory=set)
    scripts: list[tuple[int, int]] = field(default_factory=list)


def refusal(why: str) -> InvalidError:
    """Return the error of a command that cannot be made safe."""
    return InvalidError(f"the command cannot be made safe: {why}")


def identifiers(text: str, begin: int, end: int) -> Iterator[Reference]:
    """Yield the names in arithmetic that stand without a `$`."""
    for found in NAME.finditer(text, begin, end):
        if text[found.start() - 1 : found.start()] not in ("$", "{") and not text[found.start() - 1].isdigit():
            yield Reference(found.start(), found.end(), found[0], Form.IDENTIFIER, Quote.BARE)


def assigned(text: str) -> str:
    """Return the variable that a word assigns to; empty where it assigns to none."""
    found = ASSIGNMENT.match(text)
    return found[1] if found else ""


def is_beginning(command: Simple) -> bool:
    """Whether the name of the command is still to come."""
    return all(word.text in BEFORE_COMMANDS or word.text == "for" for word in command.words)


def is_test(command: Simple) -> bool:
    """Whether we are between `[[` and `]]`, where brackets and && are bash's own."""
    words = [word.text for word in command.words if word.text not in BEFORE_COMMANDS]
    return bool(words) and words[0] == "[[" and words[-1] != "]]"


def place(references: Iterable[Reference], text: str, start: int, end: int) -> None:
    """Note where in a word its variables stand; those of commands inside it have been placed in words of their own."""
    for reference in references:
        if not reference.is_placed:
            reference.is_placed = True
            reference.is_word = (reference.start, reference.end) == (start, end)
            reference.begins_word = text[start : reference.start] in ("", '"', "'")
