"""Publishing and looking in an object store, on a real S3 server."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from beamkeeper.db.base import new_uid
from beamkeeper.db.publishes import Work
from beamkeeper.domain.errors import DestinationError
from beamkeeper.domain.files import ReadFrom, Verify
from beamkeeper.domain.names import Algorithm, Checksum, RelPath, from_b64, to_b64
from beamkeeper.domain.storage import (
    STAGING,
    CheckMode,
    CheckOutcome,
    NewCheck,
    NewCheckItem,
    NewListing,
    NewPublishItem,
    Outcome,
    Replaced,
    StorageArea,
)
from beamkeeper.engine.objects import ObjectStore
from beamkeeper.plugins.rclone import Rclone, RcloneOptions, Refused, key_of, path_of, place_of
from beamkeeper.testing.conformance import HOSTILE_NAMES
from beamkeeper.testing.objects import BUCKET, S3, write_config


def checksum(content: bytes) -> Checksum:
    return Checksum(algorithm=Algorithm.BLAKE3, value=blake3(content).hexdigest())


class Bucket:
    """An experiment in a bucket, and what a transfer has staged for it."""

    def __init__(self, server: S3, rclone: Rclone, name: str) -> None:
        self.root = server.root / BUCKET / name / "e"
        self.rclone, self.url = rclone, f"{server.url(name)}/e"
        area = StorageArea(
            uid=new_uid(),
            name="objects",
            station_url=server.url(name),
            path=server.url(name),
            transfer="rclone",
            created_at=datetime.now(UTC),
        )
        self.store = ObjectStore(rclone, area, "e")

    def put(self, key: str, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as made:
            (Path(made) / "file").write_bytes(content)
            target = {"dstFs": place_of(self.url), "dstRemote": key}
            self.rclone.call("operations/copyfile", srcFs=made, srcRemote="file", **target)

    def at(self, key: str) -> bytes | None:
        where = self.root / key
        return where.read_bytes() if where.is_file() else None

    def stage(self, path: bytes, content: bytes, **changes: Any) -> Work:
        uid, version = new_uid(), new_uid()
        self.put(f"{STAGING}/{uid}/{version}", content)
        told: dict[str, Any] = {"path_b64": to_b64(path), "version_uid": version, "number": 1, "size": len(content)}
        told |= {"checksums": (checksum(content),), "staged_b64": to_b64(str(version).encode()), **changes}
        return Work(1, uid, new_uid(), Verify.READ_BACK, 0, [NewPublishItem(**told)])

    def outcome(self, work: Work) -> Outcome:
        return self.store.publish(work)[0][0]


@pytest.fixture(scope="module")
def rclone(s3_server: S3) -> Iterator[Rclone]:
    made = Rclone(RcloneOptions(config=s3_server.config))
    yield made
    made.close()


@pytest.fixture
def bucket(s3_server: S3, rclone: Rclone, tmp_path: Path) -> Bucket:
    return Bucket(s3_server, rclone, tmp_path.name)


def test_what_was_staged_gets_its_name_once_it_was_read_back(bucket: Bucket) -> None:
    work = bucket.stage(b"data/a/b", b"frame")
    assert bucket.store.publish(work) == [(Outcome.STORED, "", ReadFrom.OTHER_HOST)]
    assert bucket.at("data/a/b") == b"frame"
    assert bucket.at(f"{STAGING}/{work.uid}/{work.items[0].version_uid}") is None
    assert bucket.outcome(work) is Outcome.STORED  # asked again after a crash


def test_other_bytes_than_were_sent_get_no_name(bucket: Bucket) -> None:
    assert bucket.outcome(bucket.stage(b"data/a", b"frame", checksums=(checksum(b"fRame"),))) is Outcome.DAMAGED
    assert bucket.outcome(bucket.stage(b"data/a", b"frame", size=6)) is Outcome.DAMAGED
    assert bucket.at("data/a") is None


def test_a_file_that_was_never_staged_is_missing_and_a_link_has_no_place(bucket: Bucket) -> None:
    gone = bucket.stage(b"data/a", b"frame")
    bucket.store.discard(str(gone.uid))
    assert bucket.outcome(gone) is Outcome.MISSING
    link = bucket.stage(b"data/b", b"", link_target_b64=to_b64(b"a"))
    assert bucket.outcome(link) is Outcome.FAILED


def test_bytes_that_are_not_known_are_never_replaced(bucket: Bucket) -> None:
    bucket.put("data/a", b"frame")
    assert bucket.outcome(bucket.stage(b"data/a", b"frame")) is Outcome.STORED
    assert bucket.outcome(bucket.stage(b"data/a", b"other")) is Outcome.CONFLICT
    wrong = Replaced(number=1, checksum=checksum(b"guess"))
    assert bucket.outcome(bucket.stage(b"data/a", b"other", number=2, replaces=wrong)) is Outcome.CONFLICT
    assert bucket.at("data/a") == b"frame"


def test_a_new_version_keeps_the_one_before(bucket: Bucket) -> None:
    bucket.put("data/a", b"first")
    replaces = Replaced(number=1, checksum=checksum(b"first"))
    work = bucket.stage(b"data/a", b"second", number=2, replaces=replaces)
    assert bucket.outcome(work) is Outcome.STORED
    assert (bucket.at("data/a"), bucket.at(".dm/versions/data/a/1")) == (b"second", b"first")


def test_checks_see_what_is_there(bucket: Bucket) -> None:
    for name, content in (("good", b"frame"), ("bad", b"grime"), ("short", b"fra")):
        bucket.put(f"data/{name}", content)
    bucket.put(".dm/versions/data/old/1", b"frame")
    items = [
        NewCheckItem(path=f"data/{name}", version_uid=new_uid(), number=1, size=5, checksum=checksum(b"frame"))
        for name in ("good", "bad", "short", "gone", "old")
    ]
    asked = NewCheck(uid=new_uid(), experiment_uid=new_uid(), mode=CheckMode.READ, items=tuple(items))
    o = CheckOutcome
    assert [item.outcome for item in bucket.store.look(asked)] == [
        *(o.MATCH, o.DIFFERENT, o.DIFFERENT, o.MISSING, o.MATCH)
    ]


def test_names_come_as_they_are_in_the_order_of_their_bytes(bucket: Bucket) -> None:
    paths = [RelPath(b"data/" + name) for name in HOSTILE_NAMES]
    for path in paths:
        if len(key_of(path).rpartition("/")[2]) <= 200:  # longer ones the disk below this store has no room for
            bucket.put(key_of(path), b"x")
        assert path_of(key_of(path)) == path
    found = bucket.store.names(NewListing(uid=new_uid(), experiment_uid=new_uid()))
    wanted = sorted(path for path in paths if len(key_of(path).rpartition("/")[2]) <= 200)
    assert [item["path_b64"] for item in found["items"]] == [to_b64(path) for path in wanted]
    page = bucket.store.names(NewListing(uid=new_uid(), experiment_uid=new_uid(), after_b64=to_b64(wanted[2]), limit=2))
    assert ([item["path_b64"] for item in page["items"]], page["is_end"]) == ([*map(to_b64, wanted[3:5])], False)


def test_a_page_of_names_lists_only_the_directories_that_it_needs(bucket: Bucket) -> None:
    paths = [f"data/{d}/{name}".encode() for d in ("a", "a!", "b", "b/c", "d", "e") for name in ("x", "y")]
    paths += [b"data/a.x", *(b"data/z/%d" % number for number in range(40))]
    for path in paths:
        bucket.put(path.decode(), b"x")
    wanted = sorted(path for path in paths if path <= b"data/e/x")
    got: list[bytes] = []
    listed = []
    while True:
        before = bucket.rclone.call("core/stats")["listed"]
        after = to_b64(got[-1]) if got else None
        asked = NewListing(
            uid=new_uid(), experiment_uid=new_uid(), after_b64=after, upto_b64=to_b64(b"data/e/x"), limit=3
        )
        page = bucket.store.names(asked)
        listed.append(bucket.rclone.call("core/stats")["listed"] - before)
        got += [from_b64(item["path_b64"]) for item in page["items"]]
        if page["is_end"]:
            break
    assert got == wanted
    assert max(listed) < 40


def test_a_secret_that_is_wrong_says_so(bucket: Bucket, s3_server: S3, tmp_path: Path) -> None:
    config, work = tmp_path / "rclone.conf", bucket.stage(b"data/a", b"frame")
    write_config(config, s3_server.port, "another")
    rclone = Rclone(RcloneOptions(config=config))
    try:
        with pytest.raises(DestinationError) as caught:
            Bucket(s3_server, rclone, tmp_path.name).outcome(work)
    finally:
        rclone.close()
    assert caught.value.details["code"] == "credential", caught.value.message
    assert bucket.at("data/a") is None


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("operation error S3: PutObject, dial tcp 127.0.0.1:1: connect: connection refused", "unreachable"),
        ("operation error S3: ListObjects, StatusCode: 404, NoSuchBucket: no such bucket", "unreachable"),
        ("operation error S3: HeadObject, https response error StatusCode: 403, api error Forbidden", "credential"),
        ("operation error S3: PutObject, https response error StatusCode: 500, api error InternalError", "unreachable"),
        ("tls: failed to verify certificate: x509: certificate signed by unknown authority", "certificate"),
        ("write /data/x: no space left on device", "full"),
        ("something that nobody has seen yet", "failed"),
    ],
)
def test_what_rclone_says_has_a_class(said: str, code: str) -> None:
    assert Refused(said, 500).fault("far").details["code"] == code
