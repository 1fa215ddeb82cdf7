"""Files that clients send: gaps, re-sent chunks, climbing paths, and what closing a put demands."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamkeeper.core import acquisition as core
from beamkeeper.core import spool
from beamkeeper.core.sources import Rules
from beamkeeper.core.spool import Chunk
from beamkeeper.db.base import new_uid
from beamkeeper.domain.acquisition import PUT_CHUNK_BYTES, Acquisition, Finished, Kind, State, StopRequest
from beamkeeper.domain.errors import (
    ConflictError,
    DestinationError,
    InvalidError,
    NotFoundError,
    NotPermittedError,
    TooLargeError,
)
from beamkeeper.domain.names import RelPath
from beamkeeper.domain.problems import Problem, ProblemKind
from beamkeeper.domain.users import Caller, Role
from beamkeeper.engine.acquire import AcquireLoop
from beamkeeper.engine.intake import Rules as IntakeRules
from beamkeeper.testing.beamline import Beamline

UID = UUID(int=7)


def chunk(path: str | bytes, content: bytes, offset: int = 0, size: int | None = None, at: int | None = None) -> Chunk:
    return Chunk(RelPath(path), offset, offset + len(content) if size is None else size, content, at)


def whole(tmp_path: Path, uid: UUID = UID) -> dict[str, bytes]:
    top = tmp_path / str(uid) / "files"
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def test_a_file_arrives_in_chunks_and_is_whole_with_the_last(tmp_path: Path) -> None:
    assert spool.write(tmp_path, UID, chunk("a/b.tif", b"one ", size=8)) == 4
    assert whole(tmp_path) == {}
    assert spool.write(tmp_path, UID, chunk("a/b.tif", b"two!", 4)) == 8
    assert whole(tmp_path) == {"a/b.tif": b"one two!"}


def test_an_empty_file_arrives_with_an_empty_chunk(tmp_path: Path) -> None:
    assert spool.write(tmp_path, UID, chunk("empty", b"")) == 0
    assert whole(tmp_path) == {"empty": b""}


def test_a_gap_is_refused_and_says_from_where_to_send(tmp_path: Path) -> None:
    spool.write(tmp_path, UID, chunk("a", b"1234", size=12))
    with pytest.raises(ConflictError, match="send from 4 on") as refused:
        spool.write(tmp_path, UID, chunk("a", b"9abc", 8))
    assert refused.value.details["size"] == 4
    with pytest.raises(ConflictError, match="send from 0 on"):
        spool.write(tmp_path, UID, chunk("b", b"5", 4))
    spool.write(tmp_path, UID, chunk("a", b"56789abc", 4))
    assert spool.seal(tmp_path, UID) == 1
    assert whole(tmp_path) == {"a": b"123456789abc"}


def test_an_empty_chunk_only_asks_how_much_is_there(tmp_path: Path) -> None:
    assert spool.write(tmp_path, UID, chunk("a", b"", size=8)) == 0
    spool.write(tmp_path, UID, chunk("a", b"1234", size=8))
    assert spool.write(tmp_path, UID, chunk("a", b"", size=8)) == 4
    assert spool.write(tmp_path, UID, chunk("a", b"5678", 4)) == 8
    assert spool.write(tmp_path, UID, chunk("a", b"", size=8)) == 8


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=64),
    cuts=st.lists(st.integers(0, 64), max_size=5),
    again=st.lists(st.integers(0, 5), max_size=5),
)
def test_chunks_sent_again_in_any_order_make_the_same_file(
    tmp_path: Path, content: bytes, cuts: list[int], again: list[int]
) -> None:
    uid, size = uuid4(), len(content)
    edges = sorted({0, size, *(cut for cut in cuts if cut < size)})
    pieces = [(begin, content[begin:end]) for begin, end in itertools.pairwise(edges)] or [(0, b"")]
    for index, (offset, piece) in enumerate(pieces):
        spool.write(tmp_path, uid, chunk("f", piece, offset, size))
        for earlier in (number for number in again if number <= index):
            reached = spool.write(tmp_path, uid, chunk("f", pieces[earlier][1], pieces[earlier][0], size))
            assert reached == offset + len(piece)
    assert whole(tmp_path, uid) == {"f": content}


def test_a_part_of_an_older_state_of_the_source_begins_again(tmp_path: Path) -> None:
    spool.write(tmp_path, UID, chunk("a", b"old!old!", size=12, at=1))
    assert spool.write(tmp_path, UID, chunk("a", b"", size=8, at=2)) == 0
    with pytest.raises(ConflictError, match="send from 0 on"):
        spool.write(tmp_path, UID, chunk("a", b"new!", 4, at=2))
    spool.write(tmp_path, UID, chunk("a", b"new!", size=8, at=2))
    spool.write(tmp_path, UID, chunk("a", b"new!", 4, at=2))
    assert whole(tmp_path) == {"a": b"new!new!"}


def test_the_time_of_the_source_is_kept(tmp_path: Path) -> None:
    at = 1_700_000_000_123_456_789
    spool.write(tmp_path, UID, chunk("a", b"1234", size=8, at=at))
    spool.write(tmp_path, UID, chunk("a", b"5678", 4, at=at))
    assert (tmp_path / str(UID) / "files" / "a").stat().st_mtime_ns == at


def test_other_contents_under_the_same_name_are_refused(tmp_path: Path) -> None:
    spool.write(tmp_path, UID, chunk("a", b"1234", at=1))
    for other in (chunk("a", b"12345", at=1), chunk("a", b"4321", at=2)):
        with pytest.raises(ConflictError, match="put already"):
            spool.write(tmp_path, UID, other)
    assert whole(tmp_path) == {"a": b"1234"}


@pytest.mark.parametrize("path", ["../a", "a/../../b", "/etc/x", "a//b", "./a", "..", "", "a/", b"a\0b"])
def test_a_climbing_path_is_no_path(path: str | bytes) -> None:
    with pytest.raises(InvalidError, match="plain relative path"):
        chunk(path, b"x")


def test_links_in_the_spool_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(b"safe")
    spool.write(tmp_path, UID, chunk("here", b"1", size=2))
    for tree in ("files", "parts"):
        (tmp_path / str(UID) / tree / "dir").symlink_to(outside)
        (tmp_path / str(UID) / tree / "link").symlink_to(outside / "victim")
    for path in ("dir/victim", "dir/new", "link"):
        with pytest.raises(ConflictError):
            spool.write(tmp_path, UID, chunk(path, b"evil"))
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"victim": b"safe"}


@pytest.mark.parametrize("first", ["a", "a/b"])
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_name_cannot_be_a_file_and_a_directory(tmp_path: Path, first: str, is_whole: bool) -> None:
    second = "a/b" if first == "a" else "a"
    spool.write(tmp_path, UID, chunk(first, b"1", size=1 if is_whole else 2))
    with pytest.raises(ConflictError):
        spool.write(tmp_path, UID, chunk(second, b"1"))


def test_hostile_names_arrive_byte_for_byte(tmp_path: Path) -> None:
    names = [b"new\nline", b"\xff\xfe", b"x" * 255, b"-rf", b"a b", b"\x1b[31m", "\u202e".encode()]
    for name in names:
        spool.write(tmp_path, UID, chunk(name, name))
    assert sorted(os.listdir(os.fsencode(tmp_path / str(UID) / "files"))) == sorted(names)


@pytest.mark.parametrize("path", [b"x" * 256, b"/".join([b"d"] * 300), b"/".join([b"d" * 250] * 20)])
def test_names_that_the_spool_cannot_hold_are_refused(tmp_path: Path, path: bytes) -> None:
    with pytest.raises(InvalidError, match="too long"):
        spool.write(tmp_path, UID, chunk(path, b"x"))


def test_chunks_beyond_the_limit_or_the_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TooLargeError):
        spool.write(tmp_path, UID, chunk("a", b"x" * (PUT_CHUNK_BYTES + 1)))
    with pytest.raises(InvalidError, match="goes beyond the 3 bytes"):
        spool.write(tmp_path, UID, chunk("a", b"1234", size=3))


def test_a_spool_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises((DestinationError, ConflictError)):
        spool.write(tmp_path / "file", UID, chunk("a", b"x"))


def test_the_same_chunk_sent_many_times_at_once_makes_one_file(tmp_path: Path) -> None:
    sent = chunk("d/a", os.urandom(100_000))
    with ThreadPoolExecutor(8) as pool:
        reached = list(pool.map(lambda _: spool.write(tmp_path, UID, sent), range(32)))
    assert set(reached) == {len(sent.content)}
    assert whole(tmp_path) == {"d/a": sent.content}
    assert spool.seal(tmp_path, UID) == 1


def test_a_put_closes_when_everything_is_whole(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="no files"):
        spool.seal(tmp_path, UID)
    spool.write(tmp_path, UID, chunk("a", b"1"))
    spool.write(tmp_path, UID, chunk("d/half", b"1", size=2))
    with pytest.raises(ConflictError, match="d/half"):
        spool.seal(tmp_path, UID)
    spool.write(tmp_path, UID, chunk("d/half", b"2", 1))
    assert spool.seal(tmp_path, UID) == 2


# The verbs


@pytest.fixture
def beamline(database_url: str, tmp_path: Path) -> Iterator[Beamline]:
    made = Beamline(database_url, tmp_path / "storage")
    yield made
    made.close()


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    return Rules(agent="det1", spool=tmp_path / "spool", roots=(), forbidden=(tmp_path,))


def begin(beamline: Beamline, rules: Rules, who: Caller, uid: UUID | None = None) -> Acquisition:
    with beamline.database.write() as tx:
        return core.start_put(tx, who, beamline.put(uid=uid, destination="from laptops"), rules=rules)


def send(beamline: Beamline, rules: Rules, who: Caller, put: Acquisition, sent: Chunk) -> int:
    with beamline.database.read() as tx:
        return core.put_chunk(tx, who, put.uid, chunk=sent, rules=rules).size


def close(beamline: Beamline, rules: Rules, who: Caller, put: Acquisition) -> Acquisition:
    with beamline.database.read() as tx:
        core.seal_put(tx, who, put.uid, rules=rules)
    with beamline.database.write() as tx:
        return core.close_put(tx, who, put.uid)


def test_a_put_becomes_a_running_upload_of_what_was_sent(beamline: Beamline, rules: Rules) -> None:
    member = beamline.caller(Role.USER)
    put = begin(beamline, rules, member)
    assert (put.kind, put.state, put.is_put, put.finished) == (Kind.UPLOAD, State.PENDING, True, Finished.CLOSED)
    assert send(beamline, rules, member, put, chunk("a", b"1234")) == 4
    with beamline.database.read() as tx:
        assert tx.acquisitions.active() == []
    upload = close(beamline, rules, member, put)
    assert close(beamline, rules, member, put) == upload
    assert (upload.state, upload.started_at) == (State.RUNNING, beamline.clock.now)
    assert os.listdir(b"/" + upload.relpath) == [b"a"]
    with pytest.raises(ConflictError, match="closed"):
        send(beamline, rules, member, put, chunk("b", b"1234"))
    with beamline.database.read() as tx:
        assert [found.uid for found in tx.acquisitions.active()] == [put.uid]


def test_beginning_a_put_twice_goes_on_with_it(beamline: Beamline, rules: Rules) -> None:
    member, uid = beamline.caller(Role.USER), new_uid()
    assert begin(beamline, rules, member, uid) == begin(beamline, rules, member, uid)


def test_a_put_that_is_not_whole_stays_open(beamline: Beamline, rules: Rules) -> None:
    member = beamline.caller(Role.USER)
    put = begin(beamline, rules, member)
    with pytest.raises(InvalidError, match="no files"):
        close(beamline, rules, member, put)
    assert send(beamline, rules, member, put, chunk("a", b"1", size=2)) == 1
    with pytest.raises(ConflictError, match="is not whole"):
        close(beamline, rules, member, put)
    assert send(beamline, rules, member, put, chunk("a", b"2", 1)) == 2
    assert close(beamline, rules, member, put).state is State.RUNNING


def test_only_who_may_put_files_sends_and_closes(beamline: Beamline, rules: Rules) -> None:
    member = beamline.caller(Role.USER)
    viewer, stranger = beamline.caller(Role.STATION_VIEWER), beamline.caller(Role.PI, "tea")
    put = begin(beamline, rules, member)
    for who, error in ((viewer, NotPermittedError), (stranger, NotFoundError)):
        with pytest.raises(error):
            begin(beamline, rules, who)
        with pytest.raises(error):
            send(beamline, rules, who, put, chunk("a", b"1"))
        with pytest.raises(error):
            close(beamline, rules, who, put)
    assert not (rules.spool / str(put.uid)).exists()


def test_nothing_can_be_sent_to_an_upload_of_a_directory(beamline: Beamline, rules: Rules, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").touch()
    manager, new = beamline.caller(Role.STATION_MANAGER), beamline.upload(source)
    open_rules = replace(rules, forbidden=())
    with beamline.database.write() as tx:
        upload = core.start_upload(tx, manager, new, place=core.look(tx, manager, new, rules=open_rules))
    for ask in (
        lambda: send(beamline, rules, manager, upload, chunk("b", b"1")),
        lambda: close(beamline, rules, manager, upload),
    ):
        with pytest.raises(NotFoundError, match="is no put"):
            ask()


def test_a_put_that_is_stopped_is_given_up_and_swept_away(beamline: Beamline, rules: Rules) -> None:
    member = beamline.caller(Role.USER)
    kept, given_up, done = (begin(beamline, rules, member) for _ in range(3))
    for put in (kept, given_up, done):
        send(beamline, rules, member, put, chunk("a", b"1"))
    close(beamline, rules, member, done)
    with beamline.database.write() as tx:
        tx.acquisitions.mark_ended(done.uid, State.DONE)
        stopped = core.stop(tx, member, given_up.uid, request=StopRequest())
    assert stopped.state is State.ABORTED
    with pytest.raises(ConflictError):
        close(beamline, rules, member, given_up)
    (rules.spool / "somebody's").mkdir()
    with beamline.database.read() as tx:
        assert core.sweep_spool(tx, rules) == 2
        assert core.sweep_spool(tx, rules) == 0
    assert sorted(os.listdir(rules.spool)) == sorted([str(kept.uid), "somebody's"])


def test_a_put_whose_client_never_comes_back_is_given_up_and_told_of(beamline: Beamline, rules: Rules) -> None:
    member = beamline.caller(Role.USER)
    beamline.clock.now = datetime.now(UTC)
    put, other, closed = (begin(beamline, rules, member) for _ in range(3))
    for each in (put, closed):
        send(beamline, rules, member, each, chunk("a", b"1234"))
    upload = close(beamline, rules, member, closed)
    told: list[Problem] = []
    loop = AcquireLoop(
        beamline.database,
        replace(rules, agent="another"),
        IntakeRules(quiet_s=1.0, scan_interval_s=1.0),
        wake_workers=lambda: None,
        report=list[str]().append,
        tell=told.append,
    )
    beamline.clock.now += timedelta(hours=23)
    with beamline.database.read() as tx:
        assert core.expired_puts(tx, rules) == []
    beamline.clock.now += timedelta(hours=2)
    loop.step()
    with beamline.database.read() as tx:
        found = {uid: tx.acquisitions.get(uid) for uid in (put.uid, other.uid, closed.uid)}
    assert [found[uid].state for uid in found] == [State.ABORTED, State.ABORTED, upload.state]
    assert "nothing was sent for 24 hours" in found[put.uid].message
    assert [(problem.kind, problem.acquisition_uid) for problem in told] == [
        (ProblemKind.PUT_EXPIRED, put.uid),
        (ProblemKind.PUT_EXPIRED, other.uid),
    ]
    assert spool.puts_in(rules.spool) == [closed.uid]
    with pytest.raises(ConflictError, match="takes no more files"):
        send(beamline, rules, member, put, chunk("a", b"1234"))
    loop.ended()


def test_a_put_that_still_sends_is_not_given_up(beamline: Beamline, rules: Rules) -> None:
    member = beamline.caller(Role.USER)
    beamline.clock.now = datetime.now(UTC) - timedelta(hours=30)
    put = begin(beamline, rules, member)
    beamline.clock.now = datetime.now(UTC)
    send(beamline, rules, member, put, chunk("d/a", b"12", 0))  # just now, however old its source is
    with beamline.database.write() as tx:
        assert core.expired_puts(tx, rules) == []
        assert core.expire_put(tx, put.uid, rules) is not None
        assert core.expire_put(tx, put.uid, rules) is None
