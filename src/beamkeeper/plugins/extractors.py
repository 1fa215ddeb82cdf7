"""Extractors: what reads the metadata of the files of a format, and how the right one is found for a file.

Nothing here imports pydantic: the process that runs extractors starts with it.
"""

from __future__ import annotations

import importlib.util
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from beamkeeper.plugins.helpers import Report

EXTRACTORS = "beamkeeper.extractors"
"""The entry point group."""

HEAD_BYTES = 4096
"""So much of a file's beginning is looked at to tell its format."""


class ExtractionError(Exception):
    """Metadata could not be had from a file; the message is kept in place of it."""


_TEXT_BYTES = bytes({7, 8, 9, 10, 12, 13, 27} | set(range(0x20, 0x100)) - {0x7F})
"""Bytes that a text may have, in UTF-8 or an older encoding."""


@dataclass(frozen=True, slots=True)
class Format:
    """How the files of a format are told: by bytes at offsets (all of them), by the end of the name, or by both.

    `needs_both` is for formats whose first bytes other files have as well, such as the `{` of EDF. A suffix alone
    counts too, so that a damaged file is reported and not passed over, but bytes go before names. `is_text` is for
    formats that any text may be: other files of such a name are left alone.
    """

    name: str
    magic: tuple[tuple[int, bytes], ...] = ()
    suffixes: tuple[str, ...] = ()
    needs_both: bool = False
    is_text: bool = False

    def strength(self, head: bytes, name: str) -> int:
        """Return how sure it is that a file is of this format; 0 where it is not. `name` has small letters."""
        has_magic = bool(self.magic) and all(head.startswith(part, offset) for offset, part in self.magic)
        has_suffix = name.endswith(self.suffixes)
        if not has_magic and not has_suffix:
            return 0
        if self.is_text and not _is_text(head):
            return 0
        length = sum(len(part) for _, part in self.magic)
        if has_magic and has_suffix:
            return 2000 + length
        if self.needs_both:
            return 0
        return 1000 + length if has_magic else int(has_suffix)


@runtime_checkable
class Extractor(Protocol):
    """Reads the metadata of the files of some formats.

    The entry point names the class, which is built without arguments. It is called in a process of its own, with
    limits of memory and time, for one file after the other: it may crash, hang or use all memory without harm to
    more than that file's metadata. It must not write, and must not read other files than the one it is given.
    It imports the libraries that it needs inside `extract`: the class is loaded by services that read no file.
    """

    formats: ClassVar[tuple[Format, ...]]
    """The formats that it reads."""

    summary: ClassVar[str]
    """One sentence for `dm plugin list`."""

    requires: ClassVar[Mapping[str, str]]
    """Modules that it imports, each with what to `pip install` for it."""

    def extract(self, path: str) -> Mapping[str, object]:
        """Return what the file says; the same each time.

        Keys are as in NeXus where it has a name for it (title, sample.name, energy: see the reference). A number with
        a unit is `{"value": 12.4, "unit": "keV"}`. numpy's values are fine, and made safe for JSON by the caller. Raise
        ExtractionError with one sentence where the file is broken; any other exception counts as that too.
        """
        ...


@dataclass(frozen=True, slots=True)
class Recognised:
    """Which extractor a file is for."""

    extractor: str
    format: str


def missing_of(requires: Mapping[str, str]) -> dict[str, None]:
    """Return what is to be installed so that all these modules are there, in order."""
    return {package: None for module, package in requires.items() if not _is_there(module)}


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # the package around it is not there, or it was put out of reach
        return False


def _is_text(head: bytes) -> bool:
    """Whether a file begins as a text does; an empty one does not."""
    return bool(head) and not head.translate(None, _TEXT_BYTES)


def head_of(path: bytes) -> bytes | None:
    """Return the first bytes of a file; None where it is no plain file. A pipe is not waited for."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        return os.pread(file, HEAD_BYTES, 0)
    finally:
        os.close(file)


class Recogniser:
    """Tells which extractor a file is for, out of those that are here by name.

    The surest wins: bytes and name, then bytes, then the name; the more bytes the better. Of equals, the first by
    name. Every stored file is asked, so that only the formats are tried that its first bytes or its name suggest.
    """

    def __init__(self, formats: Mapping[str, Sequence[Format]]) -> None:
        self._by_start: dict[bytes, list[_Candidate]] = {}
        self._by_suffix: dict[str, list[_Candidate]] = {}
        self._always: list[_Candidate] = []
        for place, (extractor, known) in enumerate((e, known) for e in sorted(formats) for known in formats[e]):
            candidate = place, extractor, known
            starts = [part[:2] for offset, part in known.magic if offset == 0 and len(part) > 1]
            if starts:
                self._by_start.setdefault(starts[0], []).append(candidate)
            is_plain = all(suffix.startswith(".") and suffix.count(".") < 3 for suffix in known.suffixes)
            if not is_plain or (known.magic and not starts):
                self._always.append(candidate)
            for suffix in known.suffixes if is_plain else ():
                self._by_suffix.setdefault(suffix, []).append(candidate)

    def recognise(self, path: bytes) -> Recognised | None:
        """Return the extractor for a file; None where nobody knows it."""
        head = head_of(path)
        if head is None:
            return None
        name = os.fsdecode(os.path.basename(path)).lower()
        parts = name.rsplit(".", 2)
        found = [
            *self._by_start.get(head[:2], ()),
            *self._by_suffix.get(f".{parts[-1]}", ()),
            *self._by_suffix.get(f".{parts[-2]}.{parts[-1]}" if len(parts) > 2 else "", ()),
            *self._always,
        ]
        rated = [(known.strength(head, name), -place, extractor, known.name) for place, extractor, known in found]
        best = max(rated, default=(0, 0, "", ""))
        return Recognised(best[2], best[3]) if best[0] else None


_Candidate = tuple[int, str, Format]


def packed(formats: Mapping[str, Sequence[Format]]) -> dict[str, list[list[Any]]]:
    """Return formats as JSON has them, for the order of a helper process."""
    return {extractor: [_packed(one) for one in known] for extractor, known in formats.items()}


def _packed(known: Format) -> list[Any]:
    magic = [[offset, part.decode("latin-1")] for offset, part in known.magic]
    return [known.name, magic, list(known.suffixes), known.needs_both, known.is_text]


def _unpacked(packed: Sequence[Any]) -> Format:
    name, magic, suffixes, needs_both, is_text = packed
    parts = tuple((offset, part.encode("latin-1")) for offset, part in magic)
    return Format(name, parts, tuple(suffixes), needs_both=needs_both, is_text=is_text)


def work(order: dict[str, Any], report: Report) -> None:
    """Recognise the files of an order, in a helper process; one report for each that somebody knows or nobody can read.

    Its place, and the names of extractor and format, or the number of the error.
    """
    known = Recogniser({name: [_unpacked(one) for one in formats] for name, formats in order["formats"].items()})
    for place, path in enumerate(order["paths"]):
        try:
            found = known.recognise(os.fsencode(path))
        except OSError as error:
            report.add([place, error.errno])
        else:
            if found is not None:
                report.add([place, [found.extractor, found.format]])


def recognise(path: bytes, formats: Mapping[str, Sequence[Format]]) -> Recognised | None:
    """Return the extractor for one file."""
    return Recogniser(formats).recognise(path)


def shipped(without: Iterable[str] = ()) -> dict[str, Sequence[Format]]:
    """Return the formats of the extractors that are installed, by their names; one that cannot be loaded has none."""
    left_out = frozenset(without)
    return {entry.name: _formats(entry) for entry in entry_points(group=EXTRACTORS) if entry.name not in left_out}


def _formats(entry: EntryPoint) -> Sequence[Format]:
    try:
        return tuple(entry.load().formats)
    except Exception:  # somebody's broken package must not keep a service from starting; `dm plugin list` tells
        return ()
