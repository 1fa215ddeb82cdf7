"""One tar of many files whose every byte has its place before any is read, so that a download can go on anywhere."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from beamkeeper.core.arrays import opened
from beamkeeper.db.downloads import SetItem
from beamkeeper.domain.arrays import FileChoice
from beamkeeper.domain.errors import ConflictError, DmError
from beamkeeper.domain.names import path_fields, show_path

BLOCK = 1024 * 1024
"""How much is read and sent at a time: larger reads gain nothing, smaller ones cost hops between threads."""

RECORD = 512
END = bytes(2 * RECORD)
"""What ends an archive: two empty records."""


class Source(Protocol):
    """Bytes that can be read from any position on, always the same."""

    size: int

    def blocks(self, begin: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `begin` up to `end`, in blocks; raises DmError where they are others by now."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


class FileSource:
    """The bytes of one file that is open; it takes the descriptor over."""

    def __init__(self, descriptor: int, size: int, name: str) -> None:
        self.size = size
        self._descriptor = descriptor
        self._name = name

    def blocks(self, begin: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of a part."""
        os.posix_fadvise(self._descriptor, begin, end - begin, os.POSIX_FADV_SEQUENTIAL)
        yield from _read(self._descriptor, begin, end, self._name)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class ArchiveSource:
    """The tar of a frozen set: `items` gives some of its files from a position on."""

    def __init__(self, directory: str, name: str, size: int, items: Callable[[int], Sequence[SetItem]]) -> None:
        self.size = size
        self._directory = directory
        self._name = name
        self._items = items

    def blocks(self, begin: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of a part; many small files make one block."""
        waiting, waits = [], 0
        for piece in self._pieces(begin, end):
            waiting.append(piece)
            waits += len(piece)
            if waits >= BLOCK:
                yield b"".join(waiting)
                waiting, waits = [], 0
        if waits:
            yield b"".join(waiting)

    def close(self) -> None:
        """Nothing stays open between blocks."""

    def _pieces(self, begin: int, end: int) -> Iterator[bytes]:
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

    def _member(self, item: SetItem, at: int, end: int) -> Iterator[bytes]:
        """Yield what lies between two positions of the archive and belongs to this file."""
        head = header(self._name, item)
        body = item.begin + len(head)
        if at < body:
            yield head[max(0, at - item.begin) : end - item.begin]
            at = body
        stop = body + item.size
        if at < min(stop, end) and item.link_target is None:
            choice = FileChoice(**path_fields(item.path), version=item.version, state=item.state)
            with opened(self._directory, choice) as file:
                yield from _read(file.descriptor, at - body, min(stop, end) - body, show_path(item.path))
            at = min(stop, end)
        after = item.begin + length(self._name, item, head=len(head))
        if at < min(after, end):
            yield bytes(min(after, end) - at)


def header(name: str, item: SetItem) -> bytes:
    """Return what stands before a file in the archive: one header, and another before it where its name needs that.

    Names are bytes: what is not UTF-8 is kept, and told as POSIX wants it (hdrcharset=BINARY).
    """
    info = tarfile.TarInfo(f"{name}/" + os.fsdecode(item.path))
    info.size, info.mtime, info.mode = item.size, max(0, item.modified_s), 0o644
    if item.link_target is not None:
        info.type, info.linkname, info.size = tarfile.SYMTYPE, os.fsdecode(item.link_target), 0
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def length(name: str, item: SetItem, *, head: int | None = None) -> int:
    """Return how many bytes of the archive a file has, with its header and what fills it up."""
    size = 0 if item.link_target is not None else item.size
    return (len(header(name, item)) if head is None else head) + -(-size // RECORD) * RECORD


def _read(descriptor: int, begin: int, end: int, name: str) -> Iterator[bytes]:
    while begin < end:
        try:
            block = os.pread(descriptor, min(BLOCK, end - begin), begin)
        except OSError as error:
            raise DmError(f'"{name}" cannot be read: {os.strerror(error.errno or 0)}') from error
        if not block:
            raise ConflictError(f'"{name}" has become shorter while it was read')
        begin += len(block)
        yield block
