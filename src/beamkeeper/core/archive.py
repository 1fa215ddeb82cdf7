"""One tar of many files whose every byte has its place before any is read, so that a download can go on anywhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

from beamkeeper.core.arrays import Opened
from beamkeeper.core.copies_read import CopiesRead, Places
from beamkeeper.core.stored import Stored
from beamkeeper.db.downloads import SetItem
from beamkeeper.domain.arrays import FileChoice
from beamkeeper.domain.errors import ConflictError, DmError
from beamkeeper.domain.names import path_fields, show_path

BLOCK = 1024 * 1024
"""How much is read and sent at a time: larger reads gain nothing, smaller ones cost hops between threads."""

LARGE = 256 * 1024
"""From so many bytes on a file is sent by the kernel: below, opening it costs more than copying."""

RECORD = 512
END = bytes(2 * RECORD)
"""What ends an archive: two empty records."""


@dataclass(frozen=True, slots=True)
class FilePart:
    """Bytes of a file that is open, from `begin` up to `end`."""

    descriptor: int
    begin: int
    end: int
    name: str

    def __len__(self) -> int:
        return self.end - self.begin

    def after(self, count: int) -> FilePart:
        """Return what is left once so many bytes are sent."""
        return replace(self, begin=self.begin + count)

    def read(self) -> bytes:
        """Return some bytes of its beginning; raises DmError where there are none, or others by now."""
        try:
            found = os.pread(self.descriptor, min(BLOCK, len(self)), self.begin)
        except OSError as error:
            raise self.unreadable(error) from error
        if not found:
            raise self.shorter()
        return found

    def unreadable(self, error: OSError) -> DmError:
        """Return the error of a file that the kernel cannot read."""
        return DmError(f'"{self.name}" cannot be read: {os.strerror(error.errno or 0)}')

    def shorter(self) -> DmError:
        """Return the error of a file that ends too early."""
        return ConflictError(f'"{self.name}" has become shorter while it was read')


Piece = bytes | FilePart


class Source(Protocol):
    """Bytes that can be read from any position on, always the same."""

    size: int

    def pieces(self, begin: int, end: int) -> Generator[Piece]:
        """Yield the bytes from `begin` up to `end`; raises DmError where they are others by now.

        A part of a file stays open until the next piece is asked for.
        """
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


def blocks(pieces: Generator[Piece]) -> Generator[bytes]:
    """Yield the bytes of pieces, read."""
    with closing(pieces):
        for piece in pieces:
            if isinstance(piece, FilePart):
                yield from _read(piece)
            else:
                yield piece


class FileSource:
    """The bytes of one file that is open; it takes the descriptor over, and knows where else the file may be."""

    def __init__(self, descriptor: int, size: int, *, copies: CopiesRead, where: Places, choice: FileChoice) -> None:
        self.size = size
        self._descriptor = descriptor
        self._copies = copies
        self._where = where
        self._choice = choice

    def pieces(self, begin: int, end: int) -> Generator[Piece]:
        """Yield the bytes of a part; of another copy, where this one cannot be read from there on."""
        if begin >= end:
            return
        name = show_path(self._choice.relpath)
        try:
            os.pread(self._descriptor, 1, begin)
        except OSError:
            with self._copies.opened(self._where, self._choice, size=self.size, begin=begin) as other:
                yield FilePart(other.descriptor, begin, end, name)
            return
        os.posix_fadvise(self._descriptor, begin, end - begin, os.POSIX_FADV_SEQUENTIAL)
        yield FilePart(self._descriptor, begin, end, name)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class StoredSource:
    """The bytes of one object."""

    def __init__(self, stored: Stored) -> None:
        self.size = stored.size
        self._stored = stored

    def pieces(self, begin: int, end: int) -> Generator[Piece]:
        """Yield the bytes of a part."""
        if begin < end:
            yield from self._stored.pieces(begin, end)

    def close(self) -> None:
        """Nothing stays open between pieces."""


class ArchiveSource:
    """The tar of a frozen set: `items` gives some of its files from a position on."""

    def __init__(
        self, copies: CopiesRead, where: Places, name: str, size: int, items: Callable[[int], Sequence[SetItem]]
    ) -> None:
        self.size = size
        self._copies = copies
        self._where = where
        self._name = name
        self._items = items

    def pieces(self, begin: int, end: int) -> Generator[Piece]:
        """Yield the bytes of a part; many small files make one piece."""
        waiting: list[bytes] = []
        waits = 0
        for piece in self._pieces(begin, end):
            if isinstance(piece, FilePart):
                if waiting:
                    yield b"".join(waiting)
                yield piece
                waiting, waits = [], 0
                continue
            waiting.append(piece)
            waits += len(piece)
            if waits >= BLOCK:
                yield b"".join(waiting)
                waiting, waits = [], 0
        if waiting:
            yield b"".join(waiting)

    def close(self) -> None:
        """Nothing stays open between pieces."""

    def _pieces(self, begin: int, end: int) -> Iterator[Piece]:
        at = begin
        while at < end:
            found = self._items(at)
            for item in found:
                for piece in self._member(item, at, end):
                    at += len(piece)
                    yield piece
                if at >= end:
                    return
            if at >= self.size - len(END):
                yield END[at - (self.size - len(END)) : end - (self.size - len(END))]
                return
            if not found:
                raise ConflictError("the set of files is damaged: make another")

    def _member(self, item: SetItem, at: int, end: int) -> Iterator[Piece]:
        """Yield what lies between two positions of the archive and belongs to this file."""
        head = header(self._name, item)
        body = item.begin + len(head)
        if at < body:
            yield head[max(0, at - item.begin) : end - item.begin]
            at = body
        stop = body + item.size
        if at < min(stop, end) and item.link_target is None:
            known = {"version": item.version, "state": item.state, "checksum": item.checksum or None}
            choice = FileChoice.model_validate({**path_fields(item.path), **known})
            with self._copies.readable(self._where, choice, size=item.size, begin=at - body) as file:
                yield from _part(file, at - body, min(stop, end) - body, item)
            at = min(stop, end)
        after = item.begin + length(self._name, item, head=len(head))
        if at < min(after, end):
            yield bytes(min(after, end) - at)


def header(name: str, item: SetItem) -> bytes:
    """Return what stands before a file in the archive: one header, and another before it where its name needs that.

    Names are bytes: what is not UTF-8 is kept, and told as POSIX wants it (hdrcharset=BINARY).
    """
    import tarfile

    info = tarfile.TarInfo(f"{name}/" + os.fsdecode(item.path))
    info.size, info.mtime, info.mode = item.size, max(0, item.modified_s), 0o644
    if item.link_target is not None:
        info.type, info.linkname, info.size = tarfile.SYMTYPE, os.fsdecode(item.link_target), 0
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def length(name: str, item: SetItem, *, head: int | None = None) -> int:
    """Return how many bytes of the archive a file has, with its header and what fills it up."""
    size = 0 if item.link_target is not None else item.size
    return (len(header(name, item)) if head is None else head) + -(-size // RECORD) * RECORD


def _part(file: Opened | Stored, begin: int, end: int, item: SetItem) -> Iterator[Piece]:
    if isinstance(file, Stored):
        yield from file.pieces(begin, end)
        return
    part = FilePart(file.descriptor, begin, end, show_path(item.path))
    if len(part) < LARGE:
        yield from _read(part)
    else:
        yield part


def _read(part: FilePart) -> Iterator[bytes]:
    while part:
        block = part.read()
        part = part.after(len(block))
        yield block
