"""Metadata of plain text: `key: value` lines before the columns, and the names of these."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from beamkeeper.builtin.known import with_attributes
from beamkeeper.builtin.values import MAX_LINE, from_lines, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

HEADER_BYTES = 64 * 1024
HEADER_LINES = 1000
_COMMENTS = "#;!%/*"


def read_text(path: str) -> dict[str, JsonValue]:
    """Return what the beginning of a text says; nothing of what is no text."""
    with open(path, "rb") as file:
        head = file.read(HEADER_BYTES)
    if b"\0" in head:
        return {}  # many programs call what is no text .dat, and nothing is wrong with it
    lines = islice(header_lines(_decoded(head)), HEADER_LINES)
    return {"format": "text"} | with_attributes(from_lines(lines))


def _decoded(head: bytes) -> str:
    try:
        return head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start >= len(head) - 4:  # cut in the middle of a character
            return head[: error.start].decode("utf-8-sig")
        return head.decode("latin-1")


def header_lines(content: str) -> Iterator[str]:
    """Yield the lines until the columns begin, each without the sign of a comment."""
    for line in content.splitlines():
        plain = text(line.lstrip(_COMMENTS + " \t"), MAX_LINE)
        if line[:1] not in _COMMENTS and _is_row(plain):
            return
        yield plain


def _is_row(line: str) -> bool:
    words = line.replace(",", " ").replace(";", " ").split()
    if not words:
        return False
    try:
        for word in words[:50]:
            float(word)
    except ValueError:
        return False
    return True
