"""What every Transfer must do, as tests that the author of a plugin runs on it.

Derive a test class from `TransferConformance` and give it two fixtures:

    class TestMine(TransferConformance):
        @pytest.fixture
        def transfer(self) -> Transfer:
            return MyTransfer(MyOptions())

        @pytest.fixture
        def place(self, tmp_path: Path) -> Place:
            return LocalPlace(tmp_path / "experiment")
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Protocol
from urllib.parse import quote
from uuid import UUID

import pytest
from blake3 import blake3
from uuid6 import uuid7

from beamkeeper.domain.errors import SourceError
from beamkeeper.domain.files import CHUNK_BYTES, SourceIdentity
from beamkeeper.domain.names import Algorithm, Checksum, RelPath
from beamkeeper.domain.storage import STAGING
from beamkeeper.plugins.api import Discarding, Fetching, Growing, Transfer, TransferItem, TransferResult

HOSTILE_NAMES = (
    b"plain.tif",
    b"with space",
    b"-rf",
    b"new\nline",
    b"tab\tand\x1b[31mescape",
    b"quote'\"`$(id)`;&|*?[]{}",
    b"percent%41%00+#?",
    b"back\\slash",
    b"not-utf8-\xff\xfe",
    "rtl-\u202egnp.exe".encode(),
    "caf\u00e9".encode(),
    "cafe\u0301".encode(),
    b"Case",
    b"case",
    b"...",
    b"x" * 255,
    b"\xff" * 255,
)
"""Names that Linux takes, and that programs trip over."""


class Place(Protocol):
    """Where a conformance suite lets a transfer put things."""

    def url(self, batch: str) -> str:
        """Return the staging URL of a batch."""
        ...

    def read(self, batch: str, path: RelPath) -> bytes | None:
        """Return what is staged under a path; None where nothing is."""
        ...


class LocalPlace:
    """A place in a directory of this host, for transfers whose destination is mounted."""

    def __init__(self, experiment: Path) -> None:
        self._staging = experiment / STAGING
        self._staging.mkdir(parents=True)

    def url(self, batch: str) -> str:
        """Return the staging URL of a batch."""
        return "file://" + quote(os.fsencode(self._staging / batch))

    def read(self, batch: str, path: RelPath) -> bytes | None:
        """Return what is staged under a path; None where nothing is."""
        where = os.path.join(os.fsencode(self._staging / batch), path)
        if not os.path.lexists(where):
            return None
        with open(where, "rb") as file:
            return file.read()


class Sources:
    """Makes source files, and the items that a station would make of them."""

    def __init__(self, directory: Path, *, is_flat: bool = False) -> None:
        self.directory = os.fsencode(directory)
        self._is_flat = is_flat

    def add(self, path: bytes, content: bytes = b"") -> TransferItem:
        """Write a file and return its item."""
        source = os.path.join(self.directory, path)
        os.makedirs(os.path.dirname(source), exist_ok=True)
        with open(source, "wb") as file:
            file.write(content)
        return self.item(path)

    def item(self, path: bytes) -> TransferItem:
        """Return the item of a file as it is now."""
        source = os.path.join(self.directory, path)
        return self._item(source, b"data/" + path, os.lstat(source))

    def _item(self, source: bytes, path: bytes, found: os.stat_result) -> TransferItem:
        uid = uuid7()
        staged = RelPath(str(uid).encode()) if self._is_flat else None
        return TransferItem(uid, source, RelPath(path), identity_of(found), staged)

    def unreadable(self) -> TransferItem:
        """Return the item of a file that we may not read, as root neither."""
        if os.geteuid():
            self.add(b"secret", b"secret")
            os.chmod(os.path.join(self.directory, b"secret"), 0)
            return self.item(b"secret")
        secret = next(Path("/sys/bus").glob("*/drivers_probe"))  # the kernel lets one write it only
        return self._item(os.fsencode(secret), b"data/secret", secret.lstat())


def identity_of(found: os.stat_result) -> SourceIdentity:
    """Return the identity of a file as a scan records it."""
    return SourceIdentity(
        dev=found.st_dev,
        ino=found.st_ino,
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
    )


def never(moved: int = 0, /) -> bool:
    """Stop no transfer."""
    return False


def send_all(transfer: Transfer, items: Sequence[TransferItem], staging: str) -> Mapping[UUID, TransferResult]:
    """Send the items without a stop; refuse two results of one item."""
    results = list(transfer.send(items, staging, never))
    found = {result.version_uid: result for result in results}
    assert len(found) == len(results), "one item has two results"
    return found


def digest(algorithm: Algorithm, content: bytes) -> str:
    """Return a checksum that was made on its own."""
    if algorithm is Algorithm.BLAKE3:
        return blake3(content).hexdigest()
    return hashlib.new(algorithm.value, content, usedforsecurity=False).hexdigest()


def source_code(result: TransferResult) -> object:
    """Return the code of a result's error, which must be the source's."""
    assert isinstance(result.error, SourceError), f"the source's fault became {result.error!r}"
    return result.error.details["code"]


class TransferConformance:
    """The contract of `Transfer`, each sentence of it as a test."""

    is_flat: ClassVar[bool] = False
    """Whether files are staged under their uids, as in every storage area that is not mounted."""

    @pytest.fixture
    def transfer(self) -> Transfer:
        """Return the transfer to be tested."""
        raise NotImplementedError

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        """Return where it puts things."""
        raise NotImplementedError

    @pytest.fixture
    def sources(self, tmp_path: Path) -> Sources:
        """Return a directory of source files."""
        (tmp_path / "source").mkdir()
        return Sources(tmp_path / "source", is_flat=self.is_flat)

    def test_each_item_arrives_whole_with_right_checksums(
        self, transfer: Transfer, place: Place, sources: Sources
    ) -> None:
        """Bytes, size and every checksum are those of the source."""
        contents = {b"scan/%d" % size: os.urandom(size) for size in (0, 1, 4095, 4096, 4097, 3_000_000)}
        items = [sources.add(path, content) for path, content in contents.items()]
        results = send_all(transfer, items, place.url("b1"))
        for item, content in zip(items, contents.values(), strict=True):
            result = results[item.version_uid]
            assert result.error is None
            assert result.size == len(content)
            assert place.read("b1", item.target) == content
            assert Checksum(algorithm=Algorithm.BLAKE3, value=blake3(content).hexdigest()) in result.checksums
            assert all(given.value == digest(given.algorithm, content) for given in result.checksums)

    def test_hostile_names_arrive_byte_for_byte(self, transfer: Transfer, place: Place, sources: Sources) -> None:
        """No name is changed, refused, or taken for something else."""
        items = [sources.add(b"dir " + name[:200] + b"/" + name, name) for name in HOSTILE_NAMES]
        results = send_all(transfer, items, place.url("b1"))
        assert [results[item.version_uid].error for item in items] == [None] * len(items)
        assert [place.read("b1", item.target) for item in items] == list(HOSTILE_NAMES)

    def test_a_source_that_changed_is_not_delivered(self, transfer: Transfer, place: Place, sources: Sources) -> None:
        """Bytes of another state are refused, whether it grew, was rewritten or was replaced."""
        grown, rewritten, replaced = (sources.add(name, b"before") for name in (b"grown", b"rewritten", b"replaced"))
        with open(grown.source, "ab") as file:
            file.write(b"more")
        with open(rewritten.source, "r+b") as file:
            file.write(b"AFTER!")
        os.utime(rewritten.source, ns=(1, 1))
        sources.add(b"new", b"before")
        os.replace(os.path.join(sources.directory, b"new"), replaced.source)
        results = send_all(transfer, [grown, rewritten, replaced], place.url("b1"))
        for item in (grown, rewritten, replaced):
            assert source_code(results[item.version_uid]) == "changed"
            assert place.read("b1", item.target) is None

    def test_what_was_staged_while_it_was_written_is_compared_when_it_is_finished(
        self, transfer: Transfer, place: Place, sources: Sources
    ) -> None:
        """A writer may change what it wrote long ago; and what is staged need not even be of this file."""
        if not isinstance(transfer, Growing):
            return  # it sends files that are finished, and promises no more
        writer = sources.add(b"large", os.urandom(CHUNK_BYTES + 5))
        ahead = transfer.stage_ahead(writer, place.url("b1"), never)
        assert CHUNK_BYTES <= ahead.size <= CHUNK_BYTES + 5
        with open(writer.source, "r+b") as file:
            file.write(b"changed at the head")
            file.seek(0, os.SEEK_END)
            file.write(os.urandom(CHUNK_BYTES))
        writer = replace(writer, identity=identity_of(os.lstat(writer.source)))
        ahead = transfer.stage_ahead(replace(writer, ahead=ahead), place.url("b1"), never)
        assert ahead.size >= 2 * CHUNK_BYTES
        with open(writer.source, "r+b") as file:
            file.truncate(CHUNK_BYTES + 100)
        done = replace(writer, identity=identity_of(os.lstat(writer.source)), ahead=ahead)
        result = send_all(transfer, [done], place.url("b1"))[done.version_uid]
        with open(writer.source, "rb") as file:
            content = file.read()
        assert (result.error, result.size) == (None, len(content))
        assert Checksum(algorithm=Algorithm.BLAKE3, value=blake3(content).hexdigest()) in result.checksums
        assert place.read("b1", done.target) == content

    def test_one_bad_source_does_not_hold_up_the_others(
        self, transfer: Transfer, place: Place, sources: Sources
    ) -> None:
        """A file that is gone, a link and a pipe are results of their own."""
        good, gone, link, pipe = (sources.add(name, name) for name in (b"good", b"gone", b"link", b"pipe"))
        for item in (gone, link, pipe):
            os.unlink(item.source)
        os.symlink(good.source, link.source)
        os.mkfifo(pipe.source)
        results = send_all(transfer, [gone, link, pipe, good], place.url("b1"))
        assert results[good.version_uid].error is None
        assert place.read("b1", good.target) == b"good"
        assert source_code(results[gone.version_uid]) == "vanished"
        assert source_code(results[link.version_uid]) == "special"
        assert source_code(results[pipe.version_uid]) == "special"
        assert [place.read("b1", item.target) for item in (gone, link, pipe)] == [None] * 3

    def test_a_source_that_we_may_not_read_says_so(self, transfer: Transfer, place: Place, sources: Sources) -> None:
        """Missing rights are the file's own fault, told apart from a change."""
        item = sources.unreadable()
        assert source_code(send_all(transfer, [item], place.url("b1"))[item.version_uid]) == "unreadable"
        assert place.read("b1", item.target) is None

    def test_sending_again_replaces_what_is_left_from_before(
        self, transfer: Transfer, place: Place, sources: Sources
    ) -> None:
        """After a crash the same batch goes to the same directory."""
        send_all(transfer, [sources.add(b"frame", b"of another, longer content")], place.url("b1"))
        item = sources.add(b"frame", b"short")
        for _ in range(2):
            assert send_all(transfer, [item], place.url("b1"))[item.version_uid].error is None
            assert place.read("b1", item.target) == b"short"

    def test_a_stop_ends_the_sending(self, transfer: Transfer, place: Place, sources: Sources) -> None:
        """What is not sent has no result, and what has a result is there."""
        items = [sources.add(b"%03d" % number, b"%d" % number) for number in range(200)]
        results: list[TransferResult] = []

        def stop(moved: int = 0, /) -> bool:
            return bool(results) or _count(place, items) > 3

        results.extend(transfer.send(items, place.url("b1"), stop))
        assert len(results) < len(items)
        paths = {item.version_uid: item.target for item in items}
        assert all(place.read("b1", paths[result.version_uid]) is not None for result in results)

    def test_discarding_removes_the_batch_only(self, transfer: Transfer, place: Place, sources: Sources) -> None:
        """Another batch stays, and discarding twice is no error; who cannot discard has the storage do it."""
        if not isinstance(transfer, Discarding):
            return
        item = sources.add(b"a/b/c/frame", b"content")
        for batch in ("b1", "b2"):
            send_all(transfer, [item], place.url(batch))
        for _ in range(2):
            transfer.discard(place.url("b1"))
            assert place.read("b1", item.target) is None
        assert place.read("b2", item.target) == b"content"

    def test_what_lies_there_is_brought_back_and_removed(
        self, transfer: Transfer, place: Place, sources: Sources, tmp_path: Path
    ) -> None:
        """All files of a directory come, over what is here; it is removed, twice without error, and no other."""
        if not isinstance(transfer, Fetching):
            return
        contents = {b"%d" % size: os.urandom(size) for size in (0, 1, 4097, 3_000_000)}
        items = [sources.add(path, content) for path, content in contents.items()]
        for batch in ("b1", "b2"):
            send_all(transfer, items, place.url(batch))
        into = tmp_path / "brought"
        into.mkdir()
        names = [os.path.basename(item.target) for item in items]
        (into / os.fsdecode(names[2])).write_bytes(bytes(4097))
        where = os.path.join(place.url("b1"), os.fsdecode(items[0].target.parent)).rstrip("/")
        transfer.fetch(where, into, lambda moved=0: False)
        brought = {os.fsencode(path.name): path.read_bytes() for path in into.iterdir()}
        assert brought == dict(zip(names, contents.values(), strict=True))
        for _ in range(2):
            transfer.remove(place.url("b1"))
            assert [place.read("b1", item.target) for item in items] == [None] * 4
        assert place.read("b2", items[3].target) == contents[b"3000000"]

    def test_two_threads_send_at_once(self, transfer: Transfer, place: Place, sources: Sources) -> None:
        """Batches do not disturb one another."""
        batches = {
            f"b{number}": [sources.add(b"%d/%d" % (number, index), os.urandom(5000)) for index in range(20)]
            for number in range(4)
        }
        with ThreadPoolExecutor(4) as pool:
            sent = pool.map(lambda name: send_all(transfer, batches[name], place.url(name)), batches)
        for (name, items), results in zip(batches.items(), sent, strict=True):
            for item in items:
                content = Path(os.fsdecode(item.source)).read_bytes()
                assert place.read(name, item.target) == content
                assert all(
                    given.value == digest(given.algorithm, content) for given in results[item.version_uid].checksums
                )


def _count(place: Place, items: Sequence[TransferItem]) -> int:
    return sum(place.read("b1", item.target) is not None for item in items[:8])
