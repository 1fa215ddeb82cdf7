"""Copying: whole or not at all, whatever the names, the holes, the writer and the destination do."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from uuid6 import uuid7

from beamkeeper.builtin.copying import CopyOptions, CopyTransfer
from beamkeeper.domain.errors import DestinationError, InvalidError
from beamkeeper.domain.files import CHUNK_BYTES
from beamkeeper.domain.names import Algorithm, RelPath
from beamkeeper.plugins.api import TRANSFERS, Transfer, TransferItem, TransferResult
from beamkeeper.plugins.load import build
from beamkeeper.testing.conformance import (
    LocalPlace,
    Place,
    Sources,
    TransferConformance,
    digest,
    identity_of,
    never,
    send_all,
    source_code,
)

SMALL = CopyOptions(buffer_bytes=4096, threads=1)


class TestCopyTransfer(TransferConformance):
    """The shipped transfer passes the suite that any plugin's author runs."""

    @pytest.fixture(params=[{}, {"buffer_bytes": 4096, "threads": 4, "checksums": ["md5", "sha256", "blake3"]}])
    def transfer(self, request: pytest.FixtureRequest) -> Transfer:
        built = build(TRANSFERS, "copy", request.param)
        assert isinstance(built, Transfer)
        return built

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return LocalPlace(tmp_path / "100% experiment#1")


@pytest.fixture
def place(tmp_path: Path) -> LocalPlace:
    return LocalPlace(tmp_path / "experiment")


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    (tmp_path / "source").mkdir()
    return Sources(tmp_path / "source")


def send_one(item: TransferItem, place: Place, options: CopyOptions = SMALL) -> TransferResult:
    return send_all(CopyTransfer(options), [item], place.url("b1"))[item.version_uid]


def staged(tmp_path: Path, item: TransferItem) -> bytes:
    return os.path.join(os.fsencode(tmp_path / "experiment/.dm/staging/b1"), item.path)


names = st.binary(min_size=1, max_size=255).filter(lambda b: not set(b) & {0, 0x2F} and b not in {b".", b".."})


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(names, min_size=1, max_size=4), content=st.binary(max_size=9000))
def test_any_name_and_content_arrive_as_they_are(parts: list[bytes], content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = LocalPlace(Path(directory) / "experiment")
        item = Sources(Path(directory) / "source").add(b"/".join(parts), content)
        result = send_one(item, place)
        assert result.error is None
        assert place.read("b1", item.path) == content
        assert [c.value for c in result.checksums] == [blake3(content).hexdigest()]


def test_checksums_are_made_in_the_order_asked_for(place: LocalPlace, sources: Sources) -> None:
    options = CopyOptions(checksums=(Algorithm.SHA256, Algorithm.BLAKE3, Algorithm.MD5, Algorithm.MD5))
    result = send_one(sources.add(b"a", b"content"), place, options)
    assert [(c.algorithm, c.value) for c in result.checksums] == [
        (name, digest(name, b"content")) for name in (Algorithm.SHA256, Algorithm.BLAKE3, Algorithm.MD5)
    ]


def test_a_transfer_without_blake3_is_refused() -> None:
    with pytest.raises(ValidationError, match="blake3 must be among them"):
        CopyOptions(checksums=(Algorithm.MD5,))


def test_a_sparse_file_keeps_its_holes_and_its_logical_digest(
    tmp_path: Path, place: LocalPlace, sources: Sources
) -> None:
    source = os.path.join(sources.directory, b"sparse")
    with open(source, "wb") as file:
        file.write(b"head")
        file.seek(20_000_000)
        file.write(b"middle")
        file.truncate(40_000_001)
    item = sources.item(b"sparse")
    result = send_one(item, place, CopyOptions())
    content = Path(os.fsdecode(source)).read_bytes()
    assert result.checksums[0].value == digest(Algorithm.BLAKE3, content)
    assert place.read("b1", item.path) == content
    assert os.stat(staged(tmp_path, item)).st_blocks * 512 < 1_000_000


def test_a_file_of_holes_only_keeps_its_size(tmp_path: Path, place: LocalPlace, sources: Sources) -> None:
    with open(os.path.join(sources.directory, b"empty"), "wb") as file:
        file.truncate(1_000_003)
    item = sources.item(b"empty")
    assert send_one(item, place).checksums[0].value == digest(Algorithm.BLAKE3, bytes(1_000_003))
    found = os.stat(staged(tmp_path, item))
    assert (found.st_size, found.st_blocks) == (1_000_003, 0)


def test_files_larger_than_a_chunk_have_a_digest_of_each(place: LocalPlace, sources: Sources) -> None:
    for name, size in ((b"one", CHUNK_BYTES), (b"two", CHUNK_BYTES + 1)):
        with open(os.path.join(sources.directory, name), "wb") as file:
            file.write(b"begin")
            file.truncate(size)
    options = CopyOptions(buffer_bytes=3_000_000)
    assert send_one(sources.item(b"one"), place, options).chunks == ()
    result = send_one(sources.item(b"two"), place, options)
    whole = b"begin" + bytes(CHUNK_BYTES - 5)
    assert result.chunks == (blake3(whole).hexdigest(), blake3(b"\0").hexdigest())
    assert result.checksums[0].value == blake3(whole + b"\0").hexdigest()


def test_the_copy_is_private_and_keeps_the_time_of_its_source(
    tmp_path: Path, place: LocalPlace, sources: Sources
) -> None:
    sources.add(b"a/b", b"content")
    os.utime(os.path.join(sources.directory, b"a/b"), ns=(1_600_000_000_123_456_789, 1_500_000_000_987_654_321))
    item = sources.item(b"a/b")
    send_one(item, place)
    found = os.stat(staged(tmp_path, item))
    assert found.st_mtime_ns == 1_500_000_000_987_654_321
    assert found.st_mode & 0o7777 == 0o600
    assert os.stat(os.path.dirname(staged(tmp_path, item))).st_mode & 0o7777 == 0o700


def make_deep(sources: Sources, *, levels: int) -> TransferItem:
    """Make a file whose path is longer than one call to the kernel takes; return its item."""
    name = b"d" * 200
    here = os.open(sources.directory, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    target = os.open(b"frame", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=here)
    os.close(here)
    os.write(target, b"deep")
    identity = identity_of(os.fstat(target))
    os.close(target)
    path = RelPath(b"/".join([*[name] * levels, b"frame"]))
    return TransferItem(uuid7(), os.path.join(sources.directory, path), path, identity)


def test_a_path_beyond_path_max_is_copied_and_discarded(tmp_path: Path, place: LocalPlace, sources: Sources) -> None:
    item = make_deep(sources, levels=25)
    with pytest.raises(OSError, match="too long"):
        os.stat(item.source)
    result = send_one(item, place)
    assert result.error is None
    assert result.checksums[0].value == digest(Algorithm.BLAKE3, b"deep")
    CopyTransfer(SMALL).discard(place.url("b1"))
    assert os.listdir(tmp_path / "experiment/.dm/staging") == []


def test_a_source_that_changes_during_the_copy_is_not_delivered(place: LocalPlace, sources: Sources) -> None:
    """The writer comes back between two buffers; each kind of change is seen by one of the two looks at the end."""

    def append(source: bytes) -> None:
        with open(source, "ab") as file:
            file.write(b"more")

    def rewrite(source: bytes) -> None:
        with open(source, "r+b") as file:
            file.write(b"other")

    def replace(source: bytes) -> None:
        twin = sources.add(b"twin", bytes(100_000)).source
        os.replace(twin, source)

    changes: dict[Callable[[bytes], object], str] = {append: "changed", rewrite: "changed", replace: "changed"}
    for change, code in (changes | {os.unlink: "vanished"}).items():
        item = sources.add(b"frame", bytes(100_000))
        assert source_code(send_while(item, place, change)) == code
        assert place.read("b1", item.path) is None


def test_a_source_that_is_cut_short_during_the_copy_is_not_delivered(place: LocalPlace, sources: Sources) -> None:
    item = sources.add(b"frame", bytes(100_000))
    assert source_code(send_while(item, place, lambda source: os.truncate(source, 10))) == "changed"


def test_a_source_replaced_by_a_link_during_the_copy_is_not_delivered(place: LocalPlace, sources: Sources) -> None:
    def relink(source: bytes) -> None:
        os.rename(source, source + b".moved")
        os.symlink(source + b".moved", source)

    item = sources.add(b"frame", bytes(100_000))
    assert source_code(send_while(item, place, relink)) == "changed"


def test_a_directory_exchanged_during_the_copy_delivers_nothing(place: LocalPlace, sources: Sources) -> None:
    """What is open is whole and unchanged, yet the name means another file by now."""

    def exchange(source: bytes) -> None:
        os.rename(os.path.dirname(source), os.path.join(sources.directory, b"moved"))
        sources.add(b"scan/frame", bytes(100_000))

    item = sources.add(b"scan/frame", bytes(100_000))
    assert source_code(send_while(item, place, exchange)) == "changed"


def send_while(item: TransferItem, place: Place, change: Callable[[bytes], object]) -> TransferResult:
    """Send one item and change its source once some of it is copied: `stop` is asked before each buffer."""
    asked = 0

    def stop(moved: int = 0, /) -> bool:
        nonlocal asked
        asked += 1
        if asked == 5:
            change(item.source)
        return False

    (result,) = CopyTransfer(SMALL).send([item], place.url("b1"), stop)
    assert asked >= 5
    return result


def test_a_stop_in_the_middle_of_a_file_leaves_nothing_of_it(place: LocalPlace, sources: Sources) -> None:
    item = sources.add(b"frame", bytes(100_000))
    asked = iter([False] * 5)

    def stop(moved: int = 0, /) -> bool:
        return next(asked, True)

    assert list(CopyTransfer(SMALL).send([item], place.url("b1"), stop)) == []
    assert place.read("b1", item.path) is None


def test_who_stops_listening_ends_the_batch(place: LocalPlace, sources: Sources) -> None:
    items = [sources.add(b"%03d" % number, bytes(10_000)) for number in range(300)]
    sending = CopyTransfer(SMALL).send(items, place.url("b1"), never)
    next(sending)
    sending.close()
    there = sum(place.read("b1", item.path) is not None for item in items)
    assert 1 <= there < len(items)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("copy")] == []


def test_a_link_in_staging_is_not_followed(tmp_path: Path, place: LocalPlace, sources: Sources) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "frame").write_bytes(b"precious")
    staging = tmp_path / "experiment/.dm/staging/b1"
    staging.mkdir()
    (staging / "data").symlink_to(outside)
    by_directory = sources.add(b"frame", b"new")
    result = send_one(by_directory, place)
    assert isinstance(result.error, DestinationError)
    (staging / "data").unlink()
    (staging / "data").mkdir()
    (staging / "data/frame").symlink_to(outside / "frame")
    assert send_one(by_directory, place).error is None
    assert (staging / "data/frame").read_bytes() == b"new"
    assert (outside / "frame").read_bytes() == b"precious"


def test_discarding_follows_no_link(tmp_path: Path, place: LocalPlace, sources: Sources) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "frame").write_bytes(b"precious")
    send_one(sources.add(b"a/b/frame", b"new"), place)
    staging = tmp_path / "experiment/.dm/staging"
    (staging / "b1/data/a/link").symlink_to(outside)
    (staging / "b2").symlink_to(outside)
    for batch in ("b1", "b2"):
        CopyTransfer(SMALL).discard(place.url(batch))
    assert list(staging.iterdir()) == []
    assert (outside / "frame").read_bytes() == b"precious"


def test_a_storage_that_is_not_there_stops_the_batch(tmp_path: Path, sources: Sources) -> None:
    """Nothing is made below a mount point whose storage is not mounted."""
    items = [sources.add(b"frame", b"content")]
    url = f"file://{tmp_path}/mount/experiment/.dm/staging/b1"
    with pytest.raises(DestinationError, match="see that the storage is mounted") as caught:
        list(CopyTransfer(SMALL).send(items, url, never))
    assert caught.value.details == {"code": "failed", "errno": errno.ENOENT}
    assert not (tmp_path / "mount").exists()


@pytest.mark.parametrize("url", ["/plain/path", "s3://bucket/x", "file://otherhost/x", "file:///", "file:relative", ""])
def test_a_url_of_another_kind_is_refused(url: str, sources: Sources) -> None:
    with pytest.raises(InvalidError, match="use file:///absolute/path"):
        list(CopyTransfer(SMALL).send([sources.add(b"frame")], url, never))
    with pytest.raises(InvalidError, match="use file:///absolute/path"):
        CopyTransfer(SMALL).discard(url)


SEND = """
import os, resource, sys
from pathlib import Path
from beamkeeper.builtin.copying import CopyOptions, CopyTransfer
from beamkeeper.domain.errors import DestinationError
from beamkeeper.testing.conformance import LocalPlace, Sources, send_all

limit, mount, root = int(sys.argv[1]), sys.argv[2] == "mount", Path(sys.argv[3])
if mount:
    os.system("mount -t tmpfs -o size=1m,mode=0755 tmpfs " + str(root))
sources, place = Sources(root.with_name("source")), LocalPlace(root / "experiment")
items = [sources.add(b"small", b"x" * 5000), sources.add(b"large", os.urandom(3_000_000)), sources.add(b"late", b"y")]
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    results = send_all(CopyTransfer(CopyOptions(threads=1)), items, place.url("b1"))
    print([getattr(results[item.version_uid].error, "details", None) for item in items])
except DestinationError as error:
    print("raised", dict(error.details))
print([len(place.read("b1", item.path) or b"") for item in items])
"""


def run_send(tmp_path: Path, *, limit: int = 0, mount: bool = False) -> list[str]:
    """Send three files in a process of its own, with a limited file size or to a full disk of 1 MiB."""
    (tmp_path / "place").mkdir()
    (tmp_path / "source").mkdir()
    space = ["unshare", "--mount", *(["--user", "--map-root-user"] if os.geteuid() else [])] if mount else []
    argv = [*space, sys.executable, "-c", SEND, str(limit), "mount" if mount else "-", str(tmp_path / "place")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if mount and "unshare failed" in done.stderr:
        pytest.skip("this kernel lets nobody but root mount a small disk: " + done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_write_that_is_cut_short_is_never_taken_for_whole(tmp_path: Path) -> None:
    """The kernel writes what fits below the limit without an error, and refuses the rest: that file's fault."""
    results, lengths = run_send(tmp_path, limit=1_000_000)
    assert results == str([None, {"code": "refused", "errno": errno.EFBIG}, None])
    assert lengths == "[5000, 0, 1]"


def test_a_full_destination_stops_the_batch(tmp_path: Path) -> None:
    raised, lengths = run_send(tmp_path, mount=True)
    assert raised == "raised " + str({"code": "full", "errno": errno.ENOSPC})
    assert lengths == "[5000, 0, 0]"
