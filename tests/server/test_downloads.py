"""Getting files back over HTTP: whole and in parts, as one tar, cut off ten times, and only for those who may."""

from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import event, text

from beamkeeper.client import Client
from beamkeeper.client.downloads import Downloads
from beamkeeper.client.fetching import Fetcher, Got
from beamkeeper.client.http import Http
from beamkeeper.client.landing import Landing
from beamkeeper.core.recording import Recorder
from beamkeeper.db import downloads as db_downloads
from beamkeeper.domain.downloads import Delivery, FileSet
from beamkeeper.domain.errors import ConflictError, NotFoundError, NotPermittedError
from beamkeeper.domain.files import File, FileQuery
from beamkeeper.domain.names import to_b64
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import Publicity, Role
from beamkeeper.testing.services import Running, running
from beamkeeper.testing.shelf import Shelf, breaking
from beamkeeper.testing.station import until

HOSTILE = (b"data/a b.tif", b"data/\xff\x01\n.tif", "data/\N{SNOWMAN}.tif".encode(), b"data/" + b"n" * 250)
RANDOM = random.Random(4)
BIG = RANDOM.randbytes(6_000_000)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(Service.CATALOG, directory=tmp_path_factory.mktemp("site")) as beamline:
        yield beamline


@pytest.fixture
def shelf(site: Running) -> Shelf:
    return Shelf(site)


def get(client: Client, path: str, **headers: str) -> httpx2.Response:
    credentials = client.credentials.headers()
    return httpx2.get(client.url + path, headers={**credentials, **headers}, trust_env=False)


def content_of(shelf: Shelf, path: bytes) -> str:
    return f"/api/v1/experiments/{shelf.experiment.uid}/content?path_b64={to_b64(path)}"


def files(shelf: Shelf) -> Iterator[File]:
    return shelf.client.files.find(FileQuery(experiment_uid=shelf.experiment.uid))


def frozen(shelf: Shelf) -> FileSet:
    return shelf.client.downloads.freeze(shelf.experiment.uid, "coffee", files(shelf))


def test_a_file_is_got_whole_or_in_parts(shelf: Shelf) -> None:
    content = bytes(range(200))
    shelf.put(b"data/x.bin", content)
    path = content_of(shelf, b"data/x.bin")
    whole = get(shelf.client, path)
    assert (whole.status_code, whole.content) == (200, content)
    etag = whole.headers["etag"]
    for asked, status, body in (
        ("bytes=0-0", 206, content[:1]),
        ("bytes=190-", 206, content[190:]),
        ("bytes=-5", 206, content[-5:]),
        ("bytes=5-1000000", 206, content[5:]),
        ("bytes=0-9,5-19", 206, content[:20]),
        ("bytes=200-", 416, b""),
        ("bytes=9-2", 200, content),
        ("lines=1-2", 200, content),
    ):
        part = get(shelf.client, path, Range=asked)
        assert (part.status_code, part.content) == (status, body), asked
    assert get(shelf.client, path, Range="bytes=1-2").headers["content-range"] == "bytes 1-2/200"
    several = get(shelf.client, path, Range="bytes=0-1,100-101")
    assert several.headers["content-type"].startswith("multipart/byteranges; boundary=")
    assert b"Content-Range: bytes 100-101/200\r\n\r\n" + content[100:102] in several.content
    assert get(shelf.client, path, **{"If-None-Match": etag}).status_code == 304
    assert get(shelf.client, path, **{"Range": "bytes=1-2", "If-Range": etag}).status_code == 206
    shelf.path(b"data/x.bin").write_bytes(content[::-1])
    assert get(shelf.client, path, **{"Range": "bytes=1-2", "If-Range": etag}).content == content[::-1]
    head = httpx2.head(shelf.client.url + path, headers=shelf.client.credentials.headers(), trust_env=False)
    assert (head.headers["content-length"], head.headers["accept-ranges"], head.content) == ("200", "bytes", b"")


def test_nothing_outside_of_the_trees_is_got(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (shelf.root / "data" / "out").symlink_to(tmp_path)
    (shelf.root / "data" / "file").symlink_to(tmp_path / "secret")
    os.mkfifo(shelf.root / "data" / "pipe")
    for path in (b"data/out/secret", b"data/file", b"data/pipe", b".dm/staging", b"system/x", b"data/absent", b"data"):
        assert get(shelf.client, content_of(shelf, path)).status_code in (404, 409, 422), path
    assert get(shelf.client, content_of(shelf, b"data/../../x")).status_code == 422


@pytest.fixture
def archived(shelf: Shelf) -> tuple[FileSet, bytes]:
    """A set of many kinds of files, and its archive."""
    shelf.put_all({path: path * 3 for path in HOSTILE})
    shelf.put(b"data/deep/" + b"/".join([b"d" * 90] * 3) + b"/x.h5", BIG[:1_500_001])
    shelf.put_all({f"data/{n}.tif".encode(): BIG[n : n + n] for n in range(0, 1100)})
    shelf.link(b"data/link", b"a b.tif")
    made = frozen(shelf)
    return made, get(shelf.client, f"/api/v1/sets/{made.uid}/archive").content


def test_a_set_is_one_tar_that_can_be_read_from_any_byte_on(
    shelf: Shelf, archived: tuple[FileSet, bytes], tmp_path: Path
) -> None:
    made, whole = archived
    assert (len(whole), made.files) == (made.size, len(shelf.files) + 1)
    with tarfile.open(fileobj=io.BytesIO(whole), encoding="utf-8", errors="surrogateescape") as tar:
        found = {os.fsencode(member.name): member for member in tar}
        for path, content in shelf.files.items():
            opened = tar.extractfile(found[b"coffee/" + path])
            assert opened is not None
            assert opened.read() == content
        assert found[b"coffee/data/link"].linkname == "a b.tif"
    for _ in range(60):
        begin = RANDOM.randrange(len(whole))
        end = min(len(whole), begin + RANDOM.choice((1, 511, 512, 3000, 10**7)))
        part = get(shelf.client, f"/api/v1/sets/{made.uid}/archive", Range=f"bytes={begin}-{end - 1}")
        assert part.content == whole[begin:end]
    (tmp_path / "x.tar").write_bytes(whole)
    subprocess.run(["tar", "-xf", "x.tar"], cwd=tmp_path, check=True, capture_output=True)
    for path, content in shelf.files.items():
        assert Path(os.fsdecode(os.fsencode(tmp_path) + b"/coffee/" + path)).read_bytes() == content


def test_an_archive_that_is_cut_off_ten_times_ends_byte_identical(
    shelf: Shelf, archived: tuple[FileSet, bytes], tmp_path: Path
) -> None:
    made, whole = archived
    target = tmp_path / "coffee.tar"
    with breaking(shelf.client.url, after=len(whole) // 12, times=10) as wire:
        for tries in range(11):
            token = f"Authorization: Bearer {shelf.client.credentials.token}"
            command = [
                "curl",
                "-sfo",
                str(target),
                "-C",
                "-",
                "-H",
                token,
                f"{wire.url}/api/v1/sets/{made.uid}/archive",
            ]
            done = subprocess.run(command, check=False)
            assert (done.returncode == 0) == (tries == 10)
    assert target.read_bytes() == whole


def test_a_frozen_set_never_gives_other_bytes(shelf: Shelf) -> None:
    shelf.put(b"data/x", b"one")
    made = frozen(shelf)
    before = get(shelf.client, f"/api/v1/sets/{made.uid}/archive")
    (shelf.root / ".dm/versions/data/x").mkdir(parents=True)
    shelf.path(b"data/x").rename(shelf.root / ".dm/versions/data/x/1")
    shelf.path(b"data/x").write_bytes(b"two")  # as publishing version 2 does
    after = get(shelf.client, f"/api/v1/sets/{made.uid}/archive")
    assert (after.content, after.headers["etag"]) == (before.content, before.headers["etag"])
    (shelf.root / ".dm/versions/data/x/1").write_bytes(b"bad")
    with pytest.raises(httpx2.RemoteProtocolError):
        get(shelf.client, f"/api/v1/sets/{made.uid}/archive")
    last = latest(shelf, lambda each: bool(each.message))
    assert (last.is_whole, last.end_byte) == (False, 0)
    assert "changed" in last.message


def latest(shelf: Shelf, is_it: Any = lambda each: True) -> Delivery:
    def look() -> Delivery | None:
        return next((each for each in shelf.client.downloads.deliveries(shelf.experiment.uid) if is_it(each)), None)

    return until(look, "a delivery")


def test_sets_are_made_of_what_the_catalogue_and_the_storage_agree_on(shelf: Shelf) -> None:
    shelf.put(b"data/x", b"one")
    shelf.path(b"data/x").write_bytes(b"longer")
    with pytest.raises(ConflictError, match="6 bytes in the storage and 3 in the catalogue"):
        frozen(shelf)


def test_a_download_that_is_cut_off_ten_times_ends_byte_identical(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put(b"data/big.h5", BIG)
    with breaking(shelf.client.url, after=500_000, times=10) as wire, Landing(tmp_path) as landing:
        with closing(Http(wire.url, shelf.client.credentials)) as http:
            (done,) = Fetcher(Downloads(lambda: http), landing).fetch_all(files(shelf), jobs=2)
        assert (done.got, done.message, wire.left) == (Got.GOT, "", 0)
    assert (tmp_path / "data/big.h5").read_bytes() == BIG
    assert not (tmp_path / ".dm-download").exists()


def fetched(shelf: Shelf, directory: Path, **options: Any) -> dict[bytes, tuple[Got, str]]:
    with Landing(directory) as landing:
        fetcher = Fetcher(shelf.client.downloads, landing, **options)
        return {bytes(each.file.relpath): (each.got, each.message) for each in fetcher.fetch_all(files(shelf), jobs=3)}


def test_a_download_brings_every_name_and_goes_on_with_what_is_there(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put_all({path: path * 3 for path in HOSTILE})
    shelf.link(b"data/inside", b"a b.tif")
    shelf.link(b"data/outside", b"../../etc/passwd")
    first = fetched(shelf, tmp_path)
    assert first.pop(b"data/outside")[0] is Got.FAILED
    assert {got for got, _ in first.values()} == {Got.GOT}
    for path in HOSTILE:
        assert Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + path)).read_bytes() == path * 3
    assert (tmp_path / "data/inside").readlink() == Path("a b.tif")
    (tmp_path / "data/a b.tif").write_bytes(b"mine")
    again = fetched(shelf, tmp_path)
    assert "--overwrite" in again.pop(b"data/a b.tif")[1]
    again.pop(b"data/outside")
    assert {got for got, _ in again.values()} == {Got.SAME}
    assert (tmp_path / "data/a b.tif").read_bytes() == b"mine"
    assert fetched(shelf, tmp_path, overwrite=True)[b"data/a b.tif"] == (Got.GOT, "")


def test_a_slow_file_keeps_nobody_from_hearing_of_the_others(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put_all({b"data/a": b"slow" * 9, **{f"data/b{n}".encode(): b"fast" for n in range(40)}})
    others_told = Event()
    heard = []

    def progress(count: int) -> None:
        if count == 36:
            heard.append(others_told.wait(20))

    with Landing(tmp_path) as landing:
        for each in Fetcher(shelf.client.downloads, landing, progress=progress).fetch_all(files(shelf), jobs=2):
            if each.file.size == 4:
                others_told.set()
    assert heard == [True]
    assert len(list((tmp_path / "data").iterdir())) == 41


def test_a_download_leaves_its_directory_by_no_link(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put(b"data/sub/x", b"one")
    (tmp_path / "target").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "to/data").symlink_to(tmp_path / "target")
    got, message = fetched(shelf, tmp_path / "to")[b"data/sub/x"]
    assert got is Got.FAILED
    assert "stands in the way" in message
    assert list((tmp_path / "target").iterdir()) == []


def test_other_bytes_than_the_catalogue_knows_get_no_name(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put(b"data/x", b"one")
    shelf.path(b"data/x").write_bytes(b"two")
    got, message = fetched(shelf, tmp_path)[b"data/x"]
    assert (got, "another checksum" in message) == (Got.FAILED, True)
    assert list(tmp_path.rglob("*x*")) == []


@pytest.mark.parametrize(
    ("role", "is_bound", "may"),
    [
        (Role.ADMINISTRATOR, False, True),
        (Role.STATION_MANAGER, False, True),
        (Role.STATION_VIEWER, False, False),
        (Role.PI, False, True),
        (Role.MANAGER, False, True),
        (Role.USER, False, True),
        (Role.USER, True, True),
        (None, False, False),
    ],
)
def test_only_those_who_may_read_the_experiment_get_anything(
    shelf: Shelf, role: Role | None, is_bound: bool, may: bool
) -> None:
    shelf.put(b"data/x", b"one")
    made = frozen(shelf)
    person = shelf.person(role, is_bound=is_bound)
    statuses = [
        get(person, path).status_code
        for path in (content_of(shelf, b"data/x"), f"/api/v1/sets/{made.uid}/archive", f"/api/v1/sets/{made.uid}")
    ]
    if may:
        assert statuses == [200, 200, 200]
        assert person.downloads.freeze(shelf.experiment.uid, "mine", files(shelf)).files == 1
        return
    assert statuses == [403 if role else 404, 404, 404]
    with pytest.raises((NotPermittedError, NotFoundError)):
        person.downloads.freeze(shelf.experiment.uid, "mine", files(shelf))
    assert get(shelf.site.as_(), f"/api/v1/sets/{made.uid}/archive").status_code == 401


def test_a_long_download_ends_with_the_right_to_it(site: Running, shelf: Shelf) -> None:
    shelf.put(b"data/big", BIG * 8)  # more than the sockets of Linux hold
    name, person = shelf.named(Role.USER)
    context = site.contexts[Service.STORAGE]
    context.recheck_s = 0.0
    try:
        with person.http(Service.STORAGE).stream(content_of(shelf, b"data/big")) as response:
            blocks = response.iter_bytes(1000)
            next(blocks)
            shelf.client.experiments.remove_user(shelf.experiment.uid, name)
            with pytest.raises(httpx2.RemoteProtocolError):
                list(blocks)
    finally:
        context.recheck_s = 5.0
    last = latest(shelf, lambda each: bool(each.message))
    assert (last.username, last.is_whole) == (name, False)
    assert 0 < last.end_byte < 8 * len(BIG)


def test_who_got_what_and_how_far_is_recorded(shelf: Shelf) -> None:
    shelf.put(b"data/x", b"0123456789")
    name, person = shelf.named(Role.USER)
    get(person, content_of(shelf, b"data/x"), Range="bytes=2-7")
    last = latest(shelf, lambda each: each.is_whole)
    assert (last.username, last.path_b64, last.size) == (name, to_b64(b"data/x"), 10)
    assert (last.first_byte, last.end_byte) == (2, 8)
    with pytest.raises(NotPermittedError):
        list(person.downloads.deliveries(shelf.experiment.uid))


def test_what_was_delivered_is_recorded_once_the_database_takes_it(shelf: Shelf, site: Running) -> None:
    shelf.put(b"data/x", b"0123456789")
    get(shelf.client, content_of(shelf, b"data/x"))
    told = latest(shelf, lambda each: each.is_whole).model_copy(update={"uid": uuid4(), "username": "late"})
    recorder, engine = Recorder(site.database), site.database.engine.execution_options(beamkeeper_write=True)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE deliveries RENAME TO elsewhere")
    try:
        recorder.tell(told)
        recorder.write()
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO deliveries")
    recorder.close()
    assert latest(shelf, lambda each: each.username == "late") == told


def test_an_open_experiment_is_got_by_everybody_at_the_site(site: Running) -> None:
    shelf = Shelf(site, Publicity.FACILITY)
    shelf.put(b"data/x", b"one")
    assert get(shelf.person(None), content_of(shelf, b"data/x")).content == b"one"


def test_freezing_a_set_reads_nothing_of_what_is_in_it(shelf: Shelf, site: Running) -> None:
    shelf.put_all({f"data/{n}".encode(): b"%d" % n for n in range(1001)})
    read: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT file_set_items"):
            read.append(statement)

    event.listen(site.database.engine, "before_cursor_execute", note)
    try:
        made = frozen(shelf)
    finally:
        event.remove(site.database.engine, "before_cursor_execute", note)
    assert (read, made.files, made.is_frozen) == ([], 1001, True)
    assert frozen(shelf).etag == made.etag
    shelf.put(b"data/more", b"")
    assert frozen(shelf).etag != made.etag


def test_old_sets_are_forgotten_a_part_at_a_time_and_given_no_more(
    shelf: Shelf, site: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db_downloads, "SWEPT", 2)
    shelf.put_all({f"data/{n}".encode(): b"1" for n in range(5)})
    made = frozen(shelf)
    with site.database.engine.execution_options(beamkeeper_write=True).begin() as connection:
        ours = text("SELECT id FROM file_sets WHERE uid = :uid").bindparams(uid=made.uid.hex)
        (number,) = connection.execute(ours).one()
        connection.execute(text("UPDATE file_sets SET created_at = 0 WHERE id = :id").bindparams(id=number))
    left = []
    for _ in range(3):
        with pytest.raises(NotFoundError, match="30 days"):
            shelf.client.downloads.get_set(made.uid)
        with site.database.write() as tx:
            tx.downloads.sweep()
        with site.database.engine.connect() as connection:
            count = text("SELECT count(*) FROM file_set_items WHERE set_id = :id").bindparams(id=number)
            left.append(connection.execute(count).scalar_one())
    assert left == [3, 1, 0]


def test_adding_to_a_set_twice_adds_once(shelf: Shelf) -> None:
    shelf.put(b"data/x", b"one")
    made = frozen(shelf)
    again = {"start": 0, "files": [{"path_b64": to_b64(b"data/x"), "version": 1, "size": 3}], "is_end": True}
    url = f"{shelf.client.url}/api/v1/sets/{made.uid}/files"
    sent = httpx2.post(url, json=again, headers=shelf.client.credentials.headers(), trust_env=False)
    assert (sent.status_code, FileSet.model_validate(sent.json())) == (200, made)
    more = httpx2.post(url, json={**again, "start": 1}, headers=shelf.client.credentials.headers(), trust_env=False)
    assert more.status_code == 409
    assert get(shelf.client, f"/api/v1/sets/{uuid4()}/archive").status_code == 404
