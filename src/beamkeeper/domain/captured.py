"""What a command writes: kept in files, the head and the tail of it, without secrets; and reading it back.

A stream `stdout` lies in up to three files: `stdout` has its first bytes, `stdout.tail` is a ring with the last ones,
and `stdout.size` says how many there were in all, where that is more than the head. Imports next to nothing, since
every runner has it in memory.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

STREAMS = ("stdout", "stderr")
REDACTED = b"[redacted]"


class Redactor:
    """Takes exact values out of a stream, also where one is cut in two by how it arrives."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = sorted((secret for secret in secrets if secret), key=len, reverse=True)
        self._kept = b""

    def feed(self, data: bytes) -> bytes:
        """Return what may be written now; what may be the beginning of a secret is kept back."""
        if not self._secrets:
            return data
        data = self._clean(self._kept + data)
        cut = len(data)
        for secret in self._secrets:
            for size in range(min(len(secret) - 1, len(data)), 0, -1):
                if data.endswith(secret[:size]):
                    cut = min(cut, len(data) - size)
                    break
        data, self._kept = data[:cut], data[cut:]
        return data

    def end(self) -> bytes:
        """Return what was kept back."""
        rest, self._kept = self._kept, b""
        return rest

    def _clean(self, data: bytes) -> bytes:
        for secret in self._secrets:
            data = data.replace(secret, REDACTED)
        return data


class Capture:
    """Writes one stream: `head` bytes from its beginning, and a ring of its last `tail` bytes."""

    def __init__(self, path: str, *, head: int, tail: int, secrets: Sequence[bytes] = ()) -> None:
        self._path, self._head, self._tail = path, head, tail
        self._redactor = Redactor(secrets)
        self._files: dict[str, int] = {}
        self.total = 0

    def write(self, data: bytes) -> None:
        """Take a piece of the stream."""
        self._put(self._redactor.feed(data))

    def close(self) -> None:
        """Write what was kept back, and close the files."""
        self._put(self._redactor.end())
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def _put(self, data: bytes) -> None:
        if not data:
            return
        if self.total < self._head:
            first = data[: self._head - self.total]
            _write_all(self._file(""), first)
            self.total += len(first)
            data = data[len(first) :]
        if data:
            self._put_tail(data)

    def _put_tail(self, data: bytes) -> None:
        at = self.total - self._head
        self.total += len(data)
        if len(data) > self._tail:
            at += len(data) - self._tail
            data = data[-self._tail :]
        ring = self._file(".tail")
        at %= self._tail
        first = data[: self._tail - at]
        os.pwrite(ring, first, at)
        if len(first) < len(data):
            os.pwrite(ring, data[len(first) :], 0)
        os.pwrite(self._file(".size"), b"%20d" % self.total, 0)

    def _file(self, ending: str) -> int:
        if ending not in self._files:
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if not ending else 0)
            self._files[ending] = os.open(self._path + ending, flags, 0o600)
        return self._files[ending]


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def size_of(path: str) -> int:
    """Return how many bytes a stream has had so far."""
    try:
        with open(path + ".size", "rb") as file:
            return int(file.read() or b"0")
    except (FileNotFoundError, ValueError):
        pass
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def read(path: str, offset: int, limit: int) -> tuple[bytes, int, int]:
    """Return bytes of a stream from an offset on, where they begin, and the size of the stream.

    They begin later than asked for where what lies between is kept no more.
    """
    total = size_of(path)
    head = _stat_size(path)
    if offset < head:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(min(limit, head - offset)), offset, max(total, head)
    kept = _stat_size(path + ".tail")
    begin = max(offset, total - kept)
    count = min(limit, total - begin)
    if count <= 0 or not kept:
        return b"", min(begin, total), total
    # Until the ring is full it is as long as what it holds, and its first byte is the first after the head.
    with open(path + ".tail", "rb") as file:
        ring = file.read()
    at = (begin - head) % len(ring) if total - head >= len(ring) else begin - head
    return (ring[at:] + ring[:at])[:count], begin, total


def _stat_size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def ends(path: str, limit: int) -> bytes:
    """Return the beginning and the end of a stream, about `limit` bytes, with a line that says what is left out."""
    total = size_of(path)
    if total <= limit:
        first, _, _ = read(path, 0, limit)
        rest, _, _ = read(path, len(first), limit - len(first))
        return first + rest
    first, _, _ = read(path, 0, limit // 2)
    last, begin, _ = read(path, max(len(first), total - limit // 2), limit // 2)
    if begin + len(last) < total:  # the wanted end reaches over both files
        more, _, _ = read(path, begin + len(last), total)
        last += more
    return first + b"\n[... %d bytes left out ...]\n" % (total - len(first) - len(last)) + last
