"""In which line of a TOML text each key stands; tomllib tells the values, but not where they were."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from collections.abc import Mapping

KeyPath = tuple[str | int, ...]
"""The names that lead to a value; a number counts the elements of an array."""

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SEPARATORS = re.compile(r"(?:[ \t\r\n,]|#[^\n]*)*")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*'""")
_DOT = re.compile(r"[ \t]*\.[ \t]*")
_STRING = re.compile(r'''"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?'{3,5}|"(?:[^"\\]|\\.)*"|'[^']*\'''', re.DOTALL)
_SCALAR = re.compile(r"[^,\]}\n#]+")


def key_lines(text: str) -> Mapping[KeyPath, int]:
    """Return the line, counted from 1, of every key, table and array element of a text that tomllib has read."""
    return _Scanner(text).scan()


class _Scanner:
    """Goes through a valid TOML text once and notes where keys begin."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._breaks = [match.start() for match in re.finditer("\n", text)]
        self._at = 0
        self._lines: dict[KeyPath, int] = {}
        self._arrays: dict[KeyPath, int] = {}

    def scan(self) -> Mapping[KeyPath, int]:
        table: KeyPath = ()
        while self._skip(_SPACE):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    def _header(self) -> KeyPath:
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        self._skip(_SPACE)
        start, parts = self._at, self._key()
        self._skip(_SPACE)
        self._at += 2 if is_array else 1
        path: KeyPath = ()
        for part in parts[:-1]:
            path = self._within((*path, part), start)
        path = (*path, parts[-1])
        self._note(path, start)
        if not is_array:
            return path
        self._arrays[path] = self._arrays.get(path, -1) + 1
        return self._within(path, start)

    def _within(self, path: KeyPath, start: int) -> KeyPath:
        """Return the path of what an outer name means: of an array of tables, its newest element."""
        self._note(path, start)
        if path in self._arrays:
            path = (*path, self._arrays[path])
            self._note(path, start)
        return path

    def _pair(self, table: KeyPath) -> None:
        start, path = self._at, table
        for part in self._key():
            path = (*path, part)
            self._note(path, start)
        self._skip(_SPACE)
        self._at += 1  # the equals sign
        self._value(path)

    def _key(self) -> list[str]:
        parts = [self._part()]
        while match := _DOT.match(self._text, self._at):
            self._at = match.end()
            parts.append(self._part())
        return parts

    def _part(self) -> str:
        part = self._take(_PART)
        return str(tomllib.loads(f"key = {part}")["key"]) if part[0] in "\"'" else part

    def _value(self, path: KeyPath) -> None:
        self._skip(_SPACE)
        opening = self._text[self._at]
        if opening == "{":
            self._at += 1
            while self._skip(_SEPARATORS) and self._text[self._at] != "}":
                self._pair(path)
            self._at += 1
        elif opening == "[":
            self._at += 1
            count = 0
            while self._skip(_SEPARATORS) and self._text[self._at] != "]":
                self._note((*path, count), self._at)
                self._value((*path, count))
                count += 1
            self._at += 1
        else:
            self._take(_STRING if opening in "\"'" else _SCALAR)

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise ValueError(f"no TOML at character {self._at}")
        self._at = match.end()
        return match.group()

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        """Go over what `pattern` matches; tell whether there is more of the text."""
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._at < len(self._text)

    def _note(self, path: KeyPath, start: int) -> None:
        if path not in self._lines:
            self._lines[path] = bisect_left(self._breaks, start) + 1
