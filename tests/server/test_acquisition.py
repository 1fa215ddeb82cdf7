"""DAQs, uploads, puts and plugins over HTTP: the real client on real services, on both databases."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest

from beamkeeper.client import Client
from beamkeeper.client.acquisition import PAGE
from beamkeeper.db.base import new_uid
from beamkeeper.db.journal import Seen
from beamkeeper.domain.acquisition import (
    PUT_CHUNK_BYTES,
    Acquisition,
    Announced,
    JournalState,
    NewDaq,
    NewPut,
    NewUpload,
    State,
)
from beamkeeper.domain.errors import (
    ConflictError,
    InvalidError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    OverlapError,
    SourceError,
    TooLargeError,
    UnavailableError,
)
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.names import RelPath, Uid, path_fields, to_b64
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewGrant, NewUser, Role
from beamkeeper.testing.servers import PostgresServer, drop_database, fresh_database
from beamkeeper.testing.services import Running, running

PASSWORD = "correct horse"


@dataclass
class Site:
    """Services that run for all tests of this module; each test takes an experiment and directories of its own."""

    beamline: Running
    detector: Path
    counter: Iterator[int] = field(default_factory=count)

    @property
    def client(self) -> Client:
        return self.beamline.client

    def experiment(self) -> Experiment:
        station = self.client.stations.list()[0].name
        return self.client.experiments.create(NewExperiment(name=f"exp-{next(self.counter)}", station=station))

    def member(self, *of: Experiment) -> Client:
        name = f"user{next(self.counter)}"
        self.client.users.create(NewUser.model_validate({"username": name, "password": PASSWORD}))
        for experiment in of:
            self.client.experiments.add_user(experiment.uid, name, Role.USER)
        return self.beamline.as_(username=name, password=PASSWORD)

    def viewer(self) -> Client:
        name = f"user{next(self.counter)}"
        self.client.users.create(NewUser.model_validate({"username": name, "password": PASSWORD}))
        station = self.client.stations.list()[0]
        self.client.users.grant(NewGrant(username=name, role=Role.STATION_VIEWER, station_uid=station.uid))
        return self.beamline.as_(username=name, password=PASSWORD)

    def directory(self, *, files: int = 0) -> Path:
        made = self.detector / f"scan{next(self.counter)}"
        made.mkdir()
        for number in range(files):
            (made / f"{number}.tif").write_bytes(b"frame")
        return made

    def daq(self, directory: Path, experiment: Experiment, **options: Any) -> NewDaq:
        return NewDaq(experiment_uid=experiment.uid, **at(directory), **options)

    def upload(self, directory: Path, experiment: Experiment, **options: Any) -> NewUpload:
        return NewUpload(experiment_uid=experiment.uid, **at(directory), **options)

    def see(self, found: Acquisition, *files: Seen) -> None:
        with self.beamline.contexts[Service.ACQUISITION].database.write() as tx:
            tx.journal.see(found.uid, files)

    def end(self, uid: Uid, state: State = State.ABORTED) -> None:
        with self.beamline.contexts[Service.ACQUISITION].database.write() as tx:
            tx.acquisitions.mark_ended(uid, state)

    @property
    def spool(self) -> Path:
        return self.beamline.settings.acquisition.spool


def at(directory: Path) -> dict[str, Any]:
    return {"path_b64": path_fields(os.fsencode(directory).lstrip(b"/"))["path_b64"]}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    detector = directory / "det"
    detector.mkdir()
    server: PostgresServer | None = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
    url = fresh_database(server) if server else None
    settings: dict[str, Any] = {Service.ACQUISITION: {"roots": [detector]}}
    with running(Service.ACQUISITION, directory=directory, url=url, settings=settings) as beamline:
        yield Site(beamline, detector)
    if server and url:
        drop_database(server, url)


def test_a_daq_is_started_shown_listed_and_stopped(site: Site) -> None:
    experiment = site.experiment()
    member = site.member(experiment)
    started = member.daqs.start(site.daq(site.directory(), experiment, metadata={"sample": "Si"}, include=["*.tif"]))
    assert (started.state, started.experiment, started.metadata) == (State.PENDING, experiment.name, {"sample": "Si"})
    assert member.daqs.get(started.uid) == started
    assert [found.uid for found in member.daqs.list(experiment_uid=experiment.uid, active=True)] == [started.uid]
    stopped = member.daqs.stop(started.uid)
    assert stopped.state is State.STOPPING
    assert member.daqs.stop(started.uid) == stopped
    site.end(started.uid)
    assert list(member.daqs.list(experiment_uid=experiment.uid, active=True)) == []
    assert [found.state for found in member.daqs.list(experiment_uid=experiment.uid)] == [State.ABORTED]


def test_a_request_that_is_sent_twice_starts_one(site: Site) -> None:
    experiment = site.experiment()
    new = site.upload(site.directory(files=1), experiment, uid=new_uid())
    assert site.client.uploads.start(new) == site.client.uploads.start(new)
    assert len(list(site.client.uploads.list(experiment_uid=experiment.uid))) == 1


def test_a_daq_is_no_upload_and_an_upload_is_no_daq(site: Site) -> None:
    experiment = site.experiment()
    daq = site.client.daqs.start(site.daq(site.directory(), experiment))
    upload = site.client.uploads.start(site.upload(site.directory(files=1), experiment))
    for ask in (site.client.uploads.get, site.client.uploads.stop, lambda uid: list(site.client.uploads.entries(uid))):
        with pytest.raises(NotFoundError, match="no upload"):
            ask(daq.uid)
    with pytest.raises(NotFoundError, match="no DAQ"):
        site.client.daqs.get(upload.uid)
    assert [found.uid for found in site.client.daqs.list(experiment_uid=experiment.uid)] == [daq.uid]
    assert [found.uid for found in site.client.uploads.list(experiment_uid=experiment.uid)] == [upload.uid]


def test_an_overlap_crosses_the_wire_with_its_facts(site: Site) -> None:
    experiment, scan = site.experiment(), site.directory()
    daq = site.client.daqs.start(site.daq(scan, experiment))
    with pytest.raises(OverlapError, match=experiment.name) as refused:
        site.client.daqs.start(site.daq(scan, experiment))
    assert refused.value.details["daq_uid"] == str(daq.uid)
    taken = site.client.daqs.start(site.daq(scan, experiment, take_over=True))
    assert (taken.state, site.client.daqs.get(daq.uid).state) == (State.PENDING, State.STOPPING)


def test_directories_that_cannot_be_taken_are_refused_in_a_sentence(site: Site) -> None:
    experiment = site.experiment()
    member = site.member(experiment)
    with pytest.raises(SourceError, match="no files"):
        member.uploads.start(site.upload(site.directory(), experiment))
    with pytest.raises(SourceError, match="does not exist"):
        member.daqs.start(site.daq(site.detector / "missing", experiment))
    with pytest.raises(NotPermittedError, match="not one from which members"):
        member.daqs.start(site.daq(Path("/usr"), experiment))
    with pytest.raises(InvalidError, match="Beamkeeper's own"):
        site.client.daqs.start(site.daq(site.beamline.area, experiment))


def test_announced_paths_reach_the_engine_once_each_and_as_bytes(site: Site) -> None:
    experiment = site.experiment()
    daq = site.client.daqs.start(site.daq(site.directory(), experiment))
    member = site.member(experiment)
    paths = [b"scan/\xff.tif", *(b"%d.tif" % number for number in range(1200))]
    assert member.daqs.announce(daq.uid, paths) == 1201
    assert member.daqs.announce(daq.uid, paths[:2]) == 2
    with site.beamline.contexts[Service.ACQUISITION].database.read() as tx:
        assert sorted(path for _, path in tx.announcements.after(daq.uid)) == sorted(paths)


@pytest.mark.parametrize("paths", [[], [{"path": "../a"}], [{"path": "/a"}], [{"path": "a"}] * 1001, [{}]])
def test_announcements_that_name_nothing_below_the_directory_are_refused(site: Site, paths: list[Any]) -> None:
    daq = site.client.daqs.start(site.daq(site.directory(), site.experiment()))
    with pytest.raises(InvalidError):
        site.client.http(Service.ACQUISITION).call(
            "POST", f"/api/v1/daqs/{daq.uid}/files:announce", Announced, body={"paths": paths}
        )


def test_who_only_looks_may_not_announce_nor_may_anybody_to_what_has_ended(site: Site) -> None:
    experiment = site.experiment()
    daq = site.client.daqs.start(site.daq(site.directory(), experiment))
    with pytest.raises(NotPermittedError):
        site.viewer().daqs.announce(daq.uid, [b"a.tif"])
    site.end(daq.uid)
    with pytest.raises(ConflictError, match="has ended"):
        site.client.daqs.announce(daq.uid, [b"a.tif"])


def quarantine(site: Site, found: Acquisition, *paths: bytes) -> None:
    site.see(found, *(Seen(path, JournalState.QUARANTINED, reason_code="damaged", reason="other") for path in paths))


def test_quarantined_files_are_tried_again_while_it_runs_and_after_it_has_failed(site: Site) -> None:
    experiment = site.experiment()
    member = site.member(experiment)
    daq = member.daqs.start(site.daq(site.directory(), experiment))
    with pytest.raises(ConflictError, match="it has no quarantined files"):
        member.daqs.retry(daq.uid)
    quarantine(site, daq, b"scan/a.tif", b"b.dat")
    with pytest.raises(ConflictError, match=r'no quarantined file matches "\*.h5"'):
        member.daqs.retry(daq.uid, "*.h5")
    picked = member.daqs.retry(daq.uid, "*.tif")
    assert (picked.files, picked.acquisition.state) == (1, State.PENDING)
    assert [(t.state, t.files) for t in picked.acquisition.tallies] == [("candidate", 1), ("quarantined", 1)]
    site.end(daq.uid, State.FAILED)
    picked = member.daqs.retry(daq.uid)
    assert (picked.files, picked.acquisition.state, picked.acquisition.ended_at) == (1, State.STOPPING, None)
    site.end(daq.uid)
    with pytest.raises(ConflictError, match="start another for its directory"):
        member.daqs.retry(daq.uid)


def test_what_has_failed_and_runs_again_is_in_nobodys_way(site: Site) -> None:
    experiment, scan = site.experiment(), site.directory()
    daq = site.client.daqs.start(site.daq(scan, experiment))
    quarantine(site, daq, b"a")
    site.end(daq.uid, State.FAILED)
    other = site.client.daqs.start(site.daq(scan, experiment))
    assert site.client.daqs.retry(daq.uid).files == 1
    site.end(other.uid)
    site.end(site.client.daqs.start(site.daq(scan, experiment)).uid)


def test_files_are_put_first_until_it_has_ended(site: Site) -> None:
    experiment = site.experiment()
    daq = site.client.daqs.start(site.daq(site.directory(), experiment, first=("*.h5",)))
    assert daq.first == ("*.h5",)
    site.see(daq, Seen(b"scan/a.tif", JournalState.CANDIDATE), Seen(b"b.dat", JournalState.CANDIDATE))
    picked = site.member(experiment).daqs.prioritise(daq.uid, ["scan/*"])
    assert (picked.files, picked.acquisition.first) == (1, ("scan/*",))
    assert site.client.daqs.prioritise(daq.uid, []).acquisition.first == ()
    site.end(daq.uid)
    with pytest.raises(ConflictError, match="nothing left to put first"):
        site.client.daqs.prioritise(daq.uid, ["*"])


def test_who_only_looks_may_neither_try_again_nor_put_first(site: Site) -> None:
    experiment, scan = site.experiment(), site.directory(files=1)
    daq, viewer = site.client.daqs.start(site.daq(scan, experiment)), site.viewer()
    quarantine(site, daq, b"a")
    stranger = site.member()
    with pytest.raises(NotPermittedError):
        viewer.daqs.retry(daq.uid)
    with pytest.raises(NotPermittedError):
        viewer.daqs.prioritise(daq.uid, ["*"])
    with pytest.raises(NotFoundError):
        stranger.daqs.retry(daq.uid)
    with pytest.raises(NotFoundError, match="no upload"):
        site.client.uploads.retry(daq.uid)
    site.end(daq.uid)
    upload = site.client.uploads.start(site.upload(scan, experiment))
    quarantine(site, upload, b"a")
    assert site.client.uploads.prioritise(upload.uid, ["*"]).files == 0
    assert site.client.uploads.retry(upload.uid).files == 1
    with pytest.raises(NotFoundError):
        stranger.uploads.prioritise(upload.uid, ["*"])


def test_an_upload_takes_no_announcements(site: Site) -> None:
    scan = site.directory()
    (scan / "a.tif").write_bytes(b"x")
    upload = site.client.uploads.start(site.upload(scan, site.experiment()))
    with pytest.raises(NotFoundError, match="no DAQ"):
        site.client.daqs.announce(upload.uid, [b"a.tif"])


def test_who_may_not_learns_nothing(site: Site) -> None:
    experiment = site.experiment()
    daq = site.client.daqs.start(site.daq(site.directory(), experiment))
    put = site.client.http(Service.ACQUISITION).call(
        "POST", "/api/v1/puts", Acquisition, body=NewPut(experiment_uid=experiment.uid)
    )
    stranger, nobody = site.member(), site.beamline.as_()
    chunk = f"/api/v1/puts/{put.uid}/files/{to_b64(b'a')}"
    asks = (
        lambda client: client.daqs.get(daq.uid),
        lambda client: client.daqs.stop(daq.uid),
        lambda client: list(client.daqs.entries(daq.uid)),
        lambda client: list(client.daqs.masters(daq.uid)),
        lambda client: client.daqs.announce(daq.uid, [b"a.tif"]),
        lambda client: client.daqs.start(site.daq(site.detector, experiment)),
        lambda client: client.uploads.stop(put.uid),
        lambda client: client.uploads.put(NewPut(experiment_uid=experiment.uid), []),
        lambda client: client.http(Service.ACQUISITION).call(
            "PUT", chunk, content=b"x", query={"offset": 0, "size": 1}
        ),
        lambda client: client.http(Service.ACQUISITION).call("POST", f"/api/v1/puts/{put.uid}:close"),
    )
    for ask in asks:
        with pytest.raises(NotFoundError):
            ask(stranger)
        with pytest.raises(NotAuthenticatedError):
            ask(nobody)
    assert list(stranger.daqs.list()) == []
    with pytest.raises(NotAuthenticatedError):
        nobody.plugins.list()
    with pytest.raises(NotAuthenticatedError):
        list(nobody.uploads.list())
    assert site.client.daqs.get(daq.uid) == daq
    assert not (site.spool / str(put.uid)).exists()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/daqs", {"path": "det", "speed": 3}),
        ("POST", "/daqs", {"path": "../det"}),
        ("POST", "/daqs", {}),
        ("POST", "/daqs", {"path": "det", "max_run_time_s": -1}),
        ("POST", "/uploads", {"path": "det", "take_over": True}),
        ("GET", "/daqs?limit=0", None),
        ("GET", "/daqs?colour=red", None),
        ("GET", "/daqs?after=nonsense", None),
        ("GET", "/daqs/1", None),
    ],
)
def test_what_is_malformed_is_refused(site: Site, method: str, path: str, body: dict[str, Any] | None) -> None:
    if body is not None:
        body["experiment_uid"] = str(site.experiment().uid)
    http = site.client.http(Service.ACQUISITION)
    answer = httpx2.request(method, f"{http.url}/api/v1{path}", json=body, headers=http.credentials.headers())
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_entries_come_once_and_in_order_and_by_state(site: Site) -> None:
    daq = site.client.daqs.start(site.daq(site.directory(), site.experiment()))
    found = [
        Seen(
            f"{number:05}.tif".encode(),
            JournalState.SKIPPED if number % 100 == 0 else JournalState.CANDIDATE,
            reason="r",
        )
        for number in range(PAGE + 3)
    ]
    site.see(daq, *found, Seen(b"\xff\n", JournalState.CANDIDATE))
    entries = list(site.client.daqs.entries(daq.uid))
    assert [entry.relpath for entry in entries] == sorted([seen.path for seen in found] + [b"\xff\n"])
    skipped = list(site.client.daqs.entries(daq.uid, JournalState.SKIPPED))
    assert [entry.path for entry in skipped] == [
        "00000.tif",
        "00100.tif",
        "00200.tif",
        "00300.tif",
        "00400.tif",
        "00500.tif",
    ]
    shown = site.client.daqs.get(daq.uid)
    assert (shown.count(JournalState.SKIPPED), shown.count(JournalState.CANDIDATE)) == (6, PAGE - 2)


def test_waiting_ends_with_the_daq_and_tells_of_every_change(site: Site) -> None:
    daq = site.client.daqs.start(site.daq(site.directory(), site.experiment()))
    with pytest.raises(UnavailableError, match=r"has not ended within 0\.1 s"):
        site.client.daqs.wait(daq.uid, timeout_s=0.1)
    states: list[State] = []
    is_seen = threading.Event()

    def ends_later() -> None:
        is_seen.wait(10)
        site.end(daq.uid, State.FAILED)

    def note(item: Acquisition) -> None:
        states.append(item.state)
        is_seen.set()

    thread = threading.Thread(target=ends_later)
    thread.start()
    assert site.client.daqs.wait(daq.uid, timeout_s=30, on_change=note).state is State.FAILED
    thread.join()
    assert states == [State.PENDING, State.FAILED]


def files_to_put(directory: Path) -> list[tuple[RelPath, Path]]:
    contents = {
        b"big.bin": os.urandom(PUT_CHUNK_BYTES + 5),
        b"empty": b"",
        b"d/a b\xff\n": b"text",
        b"whole": b"x" * 17,
    }
    found = []
    for number, (name, content) in enumerate(contents.items()):
        source = directory / str(number)
        source.write_bytes(content)
        os.utime(source, ns=(1, 1_600_000_000_000_000_000 + number))
        found.append((RelPath(name), source))
    return found


def sent(site: Site, upload: Acquisition) -> dict[bytes, tuple[bytes, int]]:
    top = b"/" + upload.relpath
    paths = [os.path.join(directory, name) for directory, _, names in os.walk(top) for name in names]
    return {os.path.relpath(p, top): (Path(os.fsdecode(p)).read_bytes(), os.stat(p).st_mtime_ns) for p in paths}


def test_files_that_are_put_arrive_byte_for_byte_with_their_times(site: Site, tmp_path: Path) -> None:
    experiment = site.experiment()
    files = files_to_put(tmp_path)
    told: list[int] = []
    new = NewPut(experiment_uid=experiment.uid, destination="from a laptop")
    upload = site.member(experiment).uploads.put(new, files, on_bytes=told.append)
    assert (upload.state, upload.is_put, upload.destination) == (State.RUNNING, True, "from a laptop")
    assert sent(site, upload) == {bytes(p): (s.read_bytes(), s.stat().st_mtime_ns) for p, s in files}
    assert sum(told) == sum(source.stat().st_size for _, source in files)
    assert (site.spool / str(upload.uid)).stat().st_mode & 0o077 == 0


def test_a_put_that_broke_off_goes_on(site: Site, tmp_path: Path) -> None:
    experiment = site.experiment()
    files = files_to_put(tmp_path)

    class WiresCutError(Exception):
        pass

    def cut(_size: int) -> None:
        raise WiresCutError

    new = NewPut(experiment_uid=experiment.uid, uid=new_uid())
    with pytest.raises(WiresCutError):
        site.client.uploads.put(new, files, on_bytes=cut)
    part = site.spool / str(new.uid) / "parts" / "big.bin"
    assert part.stat().st_size == PUT_CHUNK_BYTES
    inode = part.stat().st_ino
    upload = site.client.uploads.put(new, files)
    assert upload.uid == new.uid
    assert sent(site, upload) == {bytes(p): (s.read_bytes(), s.stat().st_mtime_ns) for p, s in files}
    assert (site.spool / str(new.uid) / "files" / "big.bin").stat().st_ino == inode
    assert site.client.uploads.put(new, []).uid == new.uid


@pytest.mark.parametrize("change", ["grows", "shrinks", "is rewritten"])
def test_a_source_that_changes_while_it_is_sent_is_not_taken(site: Site, tmp_path: Path, change: str) -> None:
    experiment, source = site.experiment(), tmp_path / "busy"
    source.write_bytes(b"1" * (PUT_CHUNK_BYTES + 5))

    def disturb(_size: int) -> None:
        with source.open("r+b") as file:
            if change == "grows":
                file.seek(0, os.SEEK_END)
                file.write(b"more")
            elif change == "shrinks":
                file.truncate(PUT_CHUNK_BYTES)
            else:
                file.write(b"2")

    new = NewPut(experiment_uid=experiment.uid, uid=new_uid())
    with pytest.raises(SourceError, match="changed while it was sent"):
        site.client.uploads.put(new, [(RelPath("busy"), source)], on_bytes=disturb)
    assert site.client.uploads.get(new.uid or new_uid()).state is State.PENDING
    upload = site.client.uploads.put(new, [(RelPath("busy"), source)])
    assert sent(site, upload)[b"busy"][0] == source.read_bytes()


def test_what_cannot_be_read_is_said_before_the_put_is_closed(site: Site, tmp_path: Path) -> None:
    new = NewPut(experiment_uid=site.experiment().uid)
    for source, sentence in ((tmp_path / "missing", "no such file"), (tmp_path, "is not a file")):
        with pytest.raises(SourceError, match=sentence):
            site.client.uploads.put(new, [(RelPath("a"), source)])
    with pytest.raises(InvalidError, match="no files"):
        site.client.uploads.put(new, [])


def test_chunks_that_leave_a_gap_climb_or_are_too_large_are_refused(site: Site) -> None:
    http = site.client.http(Service.ACQUISITION)
    put = http.call("POST", "/api/v1/puts", Acquisition, body=NewPut(experiment_uid=site.experiment().uid))

    def send(path: bytes, content: bytes, offset: int, size: int) -> None:
        query = {"offset": offset, "size": size}
        http.call("PUT", f"/api/v1/puts/{put.uid}/files/{to_b64(path)}", content=content, query=query)

    with pytest.raises(ConflictError, match="send from 0 on") as refused:
        send(b"a", b"1", 5, 6)
    assert refused.value.details["size"] == 0
    for path in (b"../a", b"/a", b"a/../../b", b"a\0"):
        with pytest.raises(InvalidError, match="plain relative path"):
            send(path, b"1", 0, 1)
    with pytest.raises(TooLargeError):
        send(b"a", b"x" * (PUT_CHUNK_BYTES + 1), 0, PUT_CHUNK_BYTES + 1)
    with pytest.raises(InvalidError, match="base64"):
        http.call("PUT", f"/api/v1/puts/{put.uid}/files/*", content=b"1", query={"offset": 0, "size": 1})
    with pytest.raises(InvalidError):
        send(b"a", b"1", -1, 1)
    with pytest.raises(InvalidError, match="no files"):
        http.call("POST", f"/api/v1/puts/{put.uid}:close")


def test_the_plugins_of_the_station_are_listed(site: Site) -> None:
    found = {(plugin.group, plugin.name): plugin for plugin in site.client.plugins.list()}
    catalogue = found["beamkeeper.processors", "catalogue"]
    assert (catalogue.package, catalogue.is_active) == ("beamkeeper", True)
    assert found["beamkeeper.transfers", "copy"].is_active


def test_a_directory_that_hangs_does_not_hold_the_database(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system is looked at before the writing transaction, so that others go on meanwhile."""
    experiment, other = site.experiment(), site.experiment()
    slow, quick = site.directory(), site.directory()
    is_looking, may_go_on = threading.Event(), threading.Event()
    real = os.scandir

    def scandir(path: Any = ".") -> Any:
        if path == os.fsencode(slow):
            is_looking.set()
            may_go_on.wait(20)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    thread = threading.Thread(target=lambda: site.client.daqs.start(site.daq(slow, experiment)))
    thread.start()
    try:
        assert is_looking.wait(10)
        began = time.monotonic()
        site.member(other).daqs.start(site.daq(quick, other))
        assert time.monotonic() - began < 15
        assert list(site.client.daqs.list(experiment_uid=experiment.uid)) == []
    finally:
        may_go_on.set()
        thread.join()
    assert len(list(site.client.daqs.list(experiment_uid=experiment.uid))) == 1
