"""Staging a file while it is written: nothing is sent twice that has not changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3

from beamkeeper.builtin.pieces import Copied, Copier
from beamkeeper.builtin.rsync import RsyncOptions, RsyncTransfer
from beamkeeper.domain.storage import STAGING
from beamkeeper.testing.conformance import Sources, identity_of, never, send_all
from beamkeeper.testing.remotes import Sshd

CHUNK = 8192


class Disk:
    """A source, and a copier with small chunks; `written` are the places that were written to last."""

    def __init__(self, root: Path) -> None:
        self.source, self.target = root / "source", root / "target"
        self.is_over = False
        descriptor = os.open(root, os.O_RDONLY)
        self.copier = Copier(
            descriptor, ["blake3"], chunk_bytes=CHUNK, buffer_bytes=5000, stop=lambda moved: self.is_over and moved > 0
        )

    def extend(self, known: list[str]) -> list[str]:
        return self.copier.extend(os.fsencode(self.source), b"target", known, 10 * CHUNK)

    def finish(self, known: list[str]) -> Copied:
        found = os.stat(self.source)
        identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        return self.copier.copy(os.fsencode(self.source), b"target", identity, known)

    def poke(self, path: Path, offset: int) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(b"poked")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    yield made
    made.copier.close()


def test_only_whole_chunks_are_copied_ahead_and_each_once(disk: Disk) -> None:
    content = os.urandom(3 * CHUNK)
    disk.source.write_bytes(content[: 2 * CHUNK - 1])
    assert disk.extend([]) == [blake3(content[:CHUNK]).hexdigest()]
    disk.source.write_bytes(content)
    disk.poke(disk.target, 0)
    assert disk.extend([blake3(content[:CHUNK]).hexdigest()]) == [
        blake3(content[start : start + CHUNK]).hexdigest() for start in range(0, 3 * CHUNK, CHUNK)
    ]
    assert disk.target.read_bytes() == b"poked" + content[5:]


def test_at_the_end_what_changed_since_is_copied_again_and_nothing_else(disk: Disk) -> None:
    disk.source.write_bytes(os.urandom(4 * CHUNK))
    known = disk.extend([])
    disk.poke(disk.source, 2 * CHUNK)
    disk.poke(disk.target, 5)  # who writes there is found out when it is read back
    with disk.source.open("ab") as file:
        file.write(b"the end")
    size, digests, chunks = disk.finish(known)
    content = disk.source.read_bytes()
    assert (size, digests) == (len(content), [blake3(content).hexdigest()])
    assert chunks == [blake3(content[start : start + CHUNK]).hexdigest() for start in range(0, size, CHUNK)]
    assert disk.target.read_bytes() == content[:5] + b"poked" + content[10:]


def test_what_is_staged_no_more_is_copied_anew(disk: Disk) -> None:
    content = os.urandom(3 * CHUNK)
    disk.source.write_bytes(content)
    known = disk.extend([])
    disk.target.unlink()
    assert disk.extend(known) == known
    assert disk.target.read_bytes() == content
    disk.target.write_bytes(content[:CHUNK])
    disk.finish(known)
    assert disk.target.read_bytes() == content


def test_a_copy_that_is_stopped_tells_of_whole_chunks_only(disk: Disk) -> None:
    content = os.urandom(3 * CHUNK)
    disk.source.write_bytes(content)
    disk.is_over = True
    assert disk.extend([blake3(content[:CHUNK]).hexdigest()]) == []
    disk.target.write_bytes(content[:CHUNK])
    assert disk.extend([blake3(content[:CHUNK]).hexdigest()]) == [blake3(content[:CHUNK]).hexdigest()]


def test_rsync_writes_at_the_end_into_what_it_brought_before(tmp_path: Path, ssh_server: Sshd) -> None:
    transfer = RsyncTransfer(RsyncOptions(key_file=ssh_server.key, known_hosts=ssh_server.known_hosts))
    (tmp_path / "source").mkdir()
    (tmp_path / STAGING).mkdir(parents=True)
    item = Sources(tmp_path / "source", is_flat=True).add(b"a", os.urandom(1_000_000))
    url, there = f"{ssh_server.url(tmp_path)}/{STAGING}/b1", tmp_path / STAGING / "b1" / os.fsdecode(item.target)
    ahead = transfer.stage_ahead(item, url, never)
    assert ahead.size == there.stat().st_size == 1_000_000
    inode = there.stat().st_ino
    times = os.stat(item.source)
    with open(item.source, "r+b") as file:
        file.write(b"changed")
    os.utime(item.source, ns=(times.st_atime_ns, times.st_mtime_ns))  # by size and time it is the same
    done = replace(item, identity=identity_of(os.stat(item.source)), ahead=ahead)
    assert send_all(transfer, [done], url)[done.version_uid].error is None
    assert there.read_bytes() == Path(os.fsdecode(item.source)).read_bytes()
    assert there.stat().st_ino == inode
