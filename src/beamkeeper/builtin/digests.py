"""Digests of a file that is read once: every checksum that is wanted, and BLAKE3 of each chunk of a large file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

from blake3 import blake3


class _Hash(Protocol):
    """What blake3 and hashlib have in common."""

    def update(self, data: memoryview, /) -> object: ...

    def hexdigest(self) -> str: ...


def _new_hash(algorithm: str) -> _Hash:
    return blake3() if algorithm == "blake3" else hashlib.new(algorithm, usedforsecurity=False)


class Digests:
    """Grows with each piece of the file; chunks are digested only where the file is larger than one."""

    def __init__(self, algorithms: Sequence[str], size: int, chunk_bytes: int) -> None:
        self._whole = [_new_hash(algorithm) for algorithm in algorithms]
        self._chunk: _Hash | None = blake3() if size > chunk_bytes else None
        self._chunk_bytes = self._room = chunk_bytes
        self._chunks: list[str] = []

    def update(self, piece: memoryview) -> None:
        """Take the next piece of the file."""
        for whole in self._whole:
            whole.update(piece)
        while self._chunk is not None and len(piece):
            part = piece[: self._room]
            self._chunk.update(part)
            self._room -= len(part)
            piece = piece[len(part) :]
            if not self._room:
                self._chunks.append(self._chunk.hexdigest())
                self._chunk, self._room = blake3(), self._chunk_bytes

    @property
    def last_chunk(self) -> str:
        """The digest of the chunk that was completed last."""
        return self._chunks[-1]

    def values(self) -> list[str]:
        """Return the checksums of what was taken, in the order that was asked for."""
        return [whole.hexdigest() for whole in self._whole]

    def chunks(self) -> list[str]:
        """Return the BLAKE3 digest of each chunk; empty where there are none. Call it once, at the end."""
        if self._chunk is not None and self._room < self._chunk_bytes:
            self._chunks.append(self._chunk.hexdigest())
        return self._chunks
