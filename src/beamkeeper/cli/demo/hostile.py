"""What a file system allows and a careless program breaks on: hostile names, links, pipes, empty and sparse files."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping

from blake3 import blake3

from beamkeeper.cli.demo.target import BLOCK_BYTES, Target
from beamkeeper.cli.demo.truth import Kind, Written

OUTSIDE = b"must-not-arrive"
"""A directory beside the detector's, which a link points to: nothing of it may be stored."""

NAMES: tuple[bytes, ...] = (
    b"new\nline.dat",
    b"carriage\rreturn\ttab.dat",
    b"not-utf8-\xff\xfe\xe4.dat",
    b"x" * 251 + b".dat",
    b"escape-\x1b[31mred\x1b]0;title\x07.dat",
    b"-rf",
    b"--help.dat",
    "override-\u202etad.exe".encode(),
    "zero\u200bwidth\ufeff.dat".encode(),
    b"$(touch pwned).dat",
    b"`touch pwned`; touch pwned & .dat",
    b"quotes '\" .dat",
    b"'; DROP TABLE files; --.dat",
    b"<script>alert(1)<br>.dat",
    b"back\\slash\\x0a.dat",
    b"glob-*?[a-z]{b,c}.dat",
    b"percent-%2e%2e%2f%00-{experiment}.dat",
    b" spaces at both ends ",
    b".hidden",
    b"...",
    b"~",
    b"CON",
    b".dm/staging/not-ours.dat",
    b"dir\nwith\xffnewline/$HOME/in it.dat",
    "caf\u00e9.dat".encode(),
    "cafe\u0301.dat".encode(),
)


def write_names(target: Target) -> Generator[float, None, None]:
    """Write a small file under each hostile name."""
    for number, name in enumerate(NAMES):
        target.put(b"torture/" + name, b"file %d of the torture\n" % number * (number + 1))
        yield 0.01


def write_oddities(target: Target) -> Generator[float, None, None]:
    """Make links of every kind, a pipe and empty files."""
    beside = os.path.join(target.top, b"..", OUTSIDE)
    os.makedirs(beside, exist_ok=True)
    with open(os.path.join(beside, b"secret.dat"), "wb") as file:
        file.write(b"This must not be stored: only a link leads here.\n")
    target.put(b"torture/empty.dat", b"")
    target.put(b"torture/empty twin.dat", b"")
    target.put(b"torture/links/whole.dat", b"A file that a link points to.\n")
    yield 0.01
    for name, goal in (
        (b"dangling", b"no such file"),
        (b"to-a-file", b"whole.dat"),
        (b"outside", os.path.realpath(beside)),
        (b"loop-a", b"loop-b"),
        (b"loop-b", b"loop-a"),
        (b"around", b"."),
        (b"odd-target", b"line\nbreak \xff $(x)"),
    ):
        target.link(b"torture/links/" + name, goal)
        yield 0.01
    target.fifo(b"torture/pipe")


def write_sparse(target: Target, size: int) -> Generator[float, None, None]:
    """Make a file that is nearly all hole."""
    path = b"torture/sparse.dat"
    if target.is_finished(path):
        return
    islands = dict.fromkeys((0, size // 2 // BLOCK_BYTES * BLOCK_BYTES + 12345, size - 6), b"island")
    with open(target.absolute(path), "wb", buffering=0) as file:
        file.truncate(size)
        for offset, island in islands.items():
            os.pwrite(file.fileno(), island, offset)
            yield 0.01
    written_at_ns = time.time_ns()
    # Reading a gigabyte of hole would stop the other writers, and fill the page cache.
    hasher = blake3()
    for start in range(0, size, BLOCK_BYTES):
        hasher.update(_sparse_block(start, min(BLOCK_BYTES, size - start), islands))
        yield 0.001
    target.truth.add(Written(path, size, hasher.hexdigest(), written_at_ns, Kind.FILE))


def _sparse_block(start: int, length: int, islands: Mapping[int, bytes]) -> bytes:
    block = bytearray(length)
    for offset, island in islands.items():
        if start <= offset < start + length:
            block[offset - start : offset - start + len(island)] = island
    return bytes(block)
