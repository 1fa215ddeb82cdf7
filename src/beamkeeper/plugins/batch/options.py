"""Reading the command line of a command that submits, as far as one must: its options end where the script begins."""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from dataclasses import dataclass

from beamkeeper.domain.errors import InvalidError


@dataclass(frozen=True, slots=True)
class Given:
    """What a user's command line says: its options with their values, and where the script stands."""

    options: Sequence[tuple[str, str]]
    script: str
    """Empty where there is none, such as with `--wrap`."""
    at: int
    """Where the options end: what is put there wins over what the user says."""

    def last(self, *names: str) -> str | None:
        """Return the value of an option, which its last one decides."""
        values = [value for name, value in self.options if name in names]
        return values[-1] if values else None

    def has(self, *names: str) -> bool:
        """Whether an option is given."""
        return self.last(*names) is not None

    def script_text(self) -> str:
        """Return the beginning of the script, in which it may have options too; empty where it cannot be read."""
        try:
            with open(self.script, encoding="utf-8", errors="replace") as file:
                return file.read(100_000)
        except OSError:
            return ""


def read(argv: Sequence[str], *, valued: Container[str], flags: Container[str], are_letters: bool) -> Given:
    """Read options up to the script.

    `valued` are options that take the next word, `flags` long ones that do not: of other long ones, `--x=y` has its
    value with it, and `--x` the next word. With `are_letters`, `-Jname` is `-J name`.
    """
    found: list[tuple[str, str]] = []
    words = list(argv[1:])
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            takes = not equals and name not in flags
        elif are_letters and len(word) > 2:
            name, value, takes = word[:2], word[2:], False
        else:
            name, value, takes = word, "", word in valued
        found.append((name, words.pop(0) if takes and words else value))
    return Given(found, words[0] if words else "", len(argv) - len(words))


def refuse(given: Given, names: Sequence[str], why: str) -> None:
    """Refuse options that would take from us what we do."""
    for name in names:
        if given.has(name):
            raise InvalidError(f"{name} cannot be used here: {why}")


def own_name(given: Given, *names: str) -> str:
    """Return the name that a user gives a job: by an option, or that of the script."""
    return given.last(*names) or os.path.basename(given.script) or "job"
