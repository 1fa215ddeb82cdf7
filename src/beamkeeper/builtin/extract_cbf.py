"""Metadata of CBF images, which Pilatus and Eiger detectors write: their header is read without any library.

fabio reads CBF as well, and loops for ever on a file that is cut at the wrong place (2026.6).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from beamkeeper.builtin.known import with_energy
from beamkeeper.builtin.pilatus import pilatus
from beamkeeper.builtin.values import text
from beamkeeper.plugins.extractors import ExtractionError

if TYPE_CHECKING:
    from pydantic import JsonValue

HEADER_BYTES = 256 * 1024
_CONTENTS = re.compile(rb"_array_data\.header_contents[^\n]*\r?\n;(?P<lines>.*?)\n;", re.DOTALL)
_BINARY = re.compile(rb"^\s*(?P<key>X-Binary-[A-Za-z-]+):\s*\"?(?P<value>[^\"\r\n]*)", re.MULTILINE)
_TYPES = {
    "signed 8-bit integer": "int8",
    "unsigned 8-bit integer": "uint8",
    "signed 16-bit integer": "int16",
    "unsigned 16-bit integer": "uint16",
    "signed 32-bit integer": "int32",
    "unsigned 32-bit integer": "uint32",
    "signed 32-bit real IEEE": "float32",
    "signed 64-bit real IEEE": "float64",
}


def binary_bytes(head: bytes) -> int:
    """Return how many bytes of pixels follow the header, as it says; 0 where it does not."""
    sizes = [text(match["value"]) for match in _BINARY.finditer(head) if match["key"] == b"X-Binary-Size"]
    return int(sizes[0]) if sizes and sizes[0].isdigit() and len(sizes[0]) < 15 else 0


def read_cbf(path: str) -> dict[str, JsonValue]:
    """Return the metadata of a CBF image."""
    with open(path, "rb") as file:
        head = file.read(HEADER_BYTES)
    if not head.startswith(b"###CBF"):
        raise ExtractionError("CBF cannot be read: it does not begin with ###CBF")
    found: dict[str, JsonValue] = {"format": "CBF"}
    binary = {match["key"].decode(): text(match["value"]) for match in _BINARY.finditer(head)}
    sizes = [binary.get(f"X-Binary-Size-{axis}-Dimension", "") for axis in ("Third", "Second", "Fastest")]
    if shape := [int(size) for size in sizes if size.isdigit() and len(size) < 10]:
        found["shape"] = [*shape]
    if dtype := _TYPES.get(binary.get("X-Binary-Element-Type", "")):
        found["dtype"] = dtype
    if contents := _CONTENTS.search(head):
        found |= pilatus(text(contents["lines"], HEADER_BYTES).splitlines())
    if len(found) == 1:
        raise ExtractionError("CBF cannot be read: there is no header in it")
    return with_energy(found)
