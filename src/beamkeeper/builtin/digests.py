"""Digests of a file that is read once: every checksum that is wanted, and BLAKE3 of each 64 MiB chunk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

from blake3 import blake3

from beamkeeper.domain.files import CHUNK_BYTES
from beamkeeper.domain.names import Algorithm, Checksum


class _Hash(Protocol):
    """What blake3 and hashlib have in common."""

    def update(self, data: memoryview, /) -> object: ...

    def hexdigest(self) -> str: ...


def _new_hash(algorithm: Algorithm) -> _Hash:
    if algorithm is Algorithm.BLAKE3:
        return blake3()
    return hashlib.new(algorithm.value, usedforsecurity=False)


class Digests:
    """Grows with each piece of the file; chunks are digested only where the file is larger than one."""

    def __init__(self, algorithms: Sequence[Algorithm], size: int) -> None:
        self._whole = {algorithm: _new_hash(algorithm) for algorithm in algorithms}
        self._chunk: _Hash | None = blake3() if size > CHUNK_BYTES else None
        self._room = CHUNK_BYTES
        self._chunks: list[str] = []

    def update(self, piece: memoryview) -> None:
        """Take the next piece of the file."""
        for whole in self._whole.values():
            whole.update(piece)
        while self._chunk is not None and len(piece):
            part = piece[: self._room]
            self._chunk.update(part)
            self._room -= len(part)
            piece = piece[len(part) :]
            if not self._room:
                self._chunks.append(self._chunk.hexdigest())
                self._chunk, self._room = blake3(), CHUNK_BYTES

    def checksums(self) -> tuple[Checksum, ...]:
        """Return the checksums of what was taken, in the order that was asked for."""
        return tuple(Checksum(algorithm=name, value=whole.hexdigest()) for name, whole in self._whole.items())

    def chunks(self) -> tuple[str, ...]:
        """Return the BLAKE3 digest of each chunk; empty where there are none. Call it once, at the end."""
        if self._chunk is not None and self._room < CHUNK_BYTES:
            self._chunks.append(self._chunk.hexdigest())
        return tuple(self._chunks)
