"""The ledger's queries, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event

from beamkeeper.db import CatalogTransaction, Database
from beamkeeper.db.base import new_uid
from beamkeeper.db.schema import create
from beamkeeper.domain.errors import InvalidError, NotFoundError
from beamkeeper.domain.files import FileHistory, FileKind, FileQuery, NewFile, ReadFrom, ReplicaState
from beamkeeper.domain.ledger import (
    DirectoryCount,
    DirectoryQuery,
    FileProof,
    NewVerification,
    Recorded,
    ReplicaQuery,
    StoredReplica,
)
from beamkeeper.domain.names import Algorithm, Checksum, to_b64
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import Reach
from beamkeeper.testing.beamline import Clock
from beamkeeper.testing.catalogue import EXPERIMENT, TAKEN, new_file

Catalog = Database[CatalogTransaction]
OTHER = UUID("01900000-0000-7000-8000-000000000002")
EVERYTHING = Reach(is_all=True)
WRONG = Checksum(algorithm=Algorithm.SHA256, value="0" * 64)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalog(database_url: str, clock: Clock) -> Iterator[Catalog]:
    with closing(Database(database_url, CatalogTransaction, clock=clock)) as database:
        create(database, Service.CATALOG)
        yield database


def register(catalog: Catalog, *files: NewFile | str) -> None:
    with catalog.write() as tx:
        tx.files.register([new_file(file) if isinstance(file, str) else file for file in files], by="service")


def history(catalog: Catalog, path: bytes | str) -> FileHistory:
    raw = path.encode() if isinstance(path, str) else path
    with catalog.read() as tx:
        (file,) = tx.files.lookup(EXPERIMENT, [raw])
        return tx.files.history(file.uid)


def seen(replica_uid: UUID, at: datetime, *, is_match: bool = True, **changes: Any) -> NewVerification:
    values: dict[str, Any] = {"uid": new_uid(), "read_from": ReadFrom.DEVICE, "checksum": None if is_match else WRONG}
    return NewVerification(replica_uid=replica_uid, verified_at=at, is_match=is_match, **{**values, **changes})


def record(catalog: Catalog, *items: NewVerification) -> list[Recorded]:
    with catalog.write() as tx:
        return tx.ledger.record(items, by="service")


def due(catalog: Catalog, reach: Reach = EVERYTHING, **wanted: Any) -> list[StoredReplica]:
    """Return the replicas that a query finds, over all its pages."""
    found: list[StoredReplica] = []
    query = ReplicaQuery(**wanted)
    with catalog.read() as tx:
        while True:
            page = tx.ledger.replicas(query, reach)
            found += page.items
            if page.next is None:
                return found
            query = query.model_copy(update={"after": page.next})


def proof(catalog: Catalog, path: str) -> FileProof:
    with catalog.read() as tx:
        (found,) = tx.ledger.proofs(EXPERIMENT, [path.encode()])
    return found


def test_a_mismatch_makes_a_replica_suspect_and_its_file_unverified(catalog: Catalog, clock: Clock) -> None:
    register(catalog, "data/a")
    (replica,) = history(catalog, "data/a").replicas
    at = clock.tick()
    (recorded,) = record(catalog, seen(replica.uid, at, is_match=False, message="it has other bytes"))
    assert (recorded.replica_uid, recorded.state) == (replica.uid, ReplicaState.SUSPECT)
    now = history(catalog, "data/a")
    assert (now.file.is_verified, now.file.verified_at, now.versions[0].verified_at) == (False, None, None)
    assert (now.replicas[0].state, now.replicas[0].verified_at) == (ReplicaState.SUSPECT, TAKEN)
    assert [(row.is_match, row.message) for row in now.ledger] == [(True, ""), (False, "it has other bytes")]
    assert (now.ledger[1].checksum, now.ledger[1].by, now.ledger[1].verified_at) == (WRONG, "service", at)


def test_a_match_makes_an_unverified_replica_verified(catalog: Catalog, clock: Clock) -> None:
    register(catalog, new_file("data/a", read_from=None, verified_at=None))
    before = history(catalog, "data/a")
    assert (before.file.is_verified, before.replicas[0].state) == (False, ReplicaState.UNVERIFIED)
    at = clock.tick()
    record(catalog, seen(before.replicas[0].uid, at))
    now = history(catalog, "data/a")
    assert (now.file.is_verified, now.file.verified_at) == (True, at)
    assert (now.replicas[0].state, now.replicas[0].verified_at) == (ReplicaState.VERIFIED, at)


def test_recording_again_changes_nothing(catalog: Catalog, clock: Clock) -> None:
    register(catalog, "data/a")
    (replica,) = history(catalog, "data/a").replicas
    bad, good = seen(replica.uid, clock.tick(), is_match=False), seen(replica.uid, clock.tick())
    record(catalog, bad)
    record(catalog, good)
    (again,) = record(catalog, bad)
    assert again.state is ReplicaState.VERIFIED
    assert len(history(catalog, "data/a").ledger) == 3


def test_what_was_found_last_counts_whatever_arrives_first(catalog: Catalog, clock: Clock) -> None:
    register(catalog, "data/a")
    (replica,) = history(catalog, "data/a").replicas
    early, late = clock.tick(), clock.tick()
    record(catalog, seen(replica.uid, late, is_match=False))
    (recorded,) = record(catalog, seen(replica.uid, early))
    assert recorded.state is ReplicaState.SUSPECT
    assert not history(catalog, "data/a").file.is_verified
    both = [seen(replica.uid, late + timedelta(seconds=2)), seen(replica.uid, late + timedelta(seconds=1))]
    record(catalog, *both)
    assert history(catalog, "data/a").replicas[0].verified_at == late + timedelta(seconds=2)


def test_one_good_replica_of_two_is_enough(catalog: Catalog, clock: Clock) -> None:
    register(catalog, "data/a", "data/b")
    a, b = (history(catalog, path).replicas[0] for path in ("data/a", "data/b"))
    record(catalog, seen(a.uid, clock.tick(), is_match=False), seen(b.uid, clock.tick()))
    assert [history(catalog, path).file.is_verified for path in ("data/a", "data/b")] == [False, True]


def test_a_replica_that_is_not_known_is_named(catalog: Catalog) -> None:
    register(catalog, "data/a")
    (replica,) = history(catalog, "data/a").replicas
    with catalog.read() as tx:
        assert tx.ledger.experiments_of([replica.uid]) == {replica.uid: EXPERIMENT}
        with pytest.raises(NotFoundError, match="no replica"):
            tx.ledger.experiments_of([replica.uid, new_uid()])


def test_replicas_come_by_age_and_never_looked_at_before_all(catalog: Catalog, clock: Clock) -> None:
    old, older = TAKEN - timedelta(days=1), TAKEN - timedelta(days=2)
    register(
        catalog,
        new_file("data/new"),
        new_file("data/older", verified_at=older),
        new_file("data/old", verified_at=old, chunks=["ab"]),
        new_file("data/never", read_from=None, verified_at=None),
        new_file(
            "data/link", kind=FileKind.LINK, checksums=(), size=0, link_target_b64=to_b64(b"t"), verified_at=older
        ),
        new_file("data/elsewhere", experiment_uid=OTHER, verified_at=older),
    )
    for limit in (1, 2, 100):
        found = [one.path for one in due(catalog, experiment_uid=EXPERIMENT, limit=limit)]
        assert found[0] == "data/never"
        assert set(found[1:3]) == {"data/older", "data/link"}
        assert found[3:] == ["data/old", "data/new"]
    assert len(due(catalog)) == 6
    assert len(due(catalog, checked_before=TAKEN)) == 5
    by_path = {one.path: one for one in due(catalog)}
    assert by_path["data/never"].checked_at is None
    assert by_path["data/old"].checked_at == old
    assert by_path["data/link"].link_target_b64 == to_b64(b"t")
    assert (by_path["data/link"].kind, by_path["data/old"].kind) == (FileKind.LINK, FileKind.FILE)
    assert by_path["data/old"].checksums == new_file("data/old").checksums


def test_older_versions_are_due_too(catalog: Catalog) -> None:
    register(catalog, new_file("data/a", content=b"1"), new_file("data/a", content=b"22", number=2))
    assert sorted((one.number, one.size) for one in due(catalog)) == [(1, 1), (2, 2)]


def test_what_was_just_looked_at_is_due_no_more_whatever_was_found(catalog: Catalog, clock: Clock) -> None:
    register(catalog, "data/a", "data/b", "data/c")
    a, b = (history(catalog, path).replicas[0] for path in ("data/a", "data/b"))
    record(catalog, seen(a.uid, clock.now), seen(b.uid, clock.now, is_match=False))
    assert [one.path for one in due(catalog, checked_before=clock.now)] == ["data/c"]


def test_other_stations_replicas_are_not_within_reach(catalog: Catalog) -> None:
    register(catalog, "data/a")
    assert due(catalog, Reach(stations=frozenset({new_uid()}))) == []


def test_a_cursor_that_is_none_is_refused(catalog: Catalog) -> None:
    for cursor in ("x", to_b64(b'[1,"x"]').rstrip("="), to_b64(b"[]").rstrip("=")):
        with pytest.raises(InvalidError):
            due(catalog, after=cursor)


def test_only_a_read_from_the_device_is_fresh(catalog: Catalog, clock: Clock) -> None:
    register(catalog, new_file("data/a", read_from=ReadFrom.CACHE))
    (replica,) = history(catalog, "data/a").replicas
    assert proof(catalog, "data/a").replicas[0].device_read_at is None
    at = clock.tick()
    record(catalog, seen(replica.uid, at, read_from=ReadFrom.OTHER_HOST))
    record(catalog, seen(replica.uid, clock.tick(), read_from=ReadFrom.CACHE))
    (shown,) = proof(catalog, "data/a").replicas
    assert shown.device_read_at == at
    assert shown.is_fresh(at)
    assert not shown.is_fresh(at + timedelta(seconds=1))
    record(catalog, seen(replica.uid, clock.tick(), is_match=False))
    (shown,) = proof(catalog, "data/a").replicas
    assert not shown.is_fresh(at)


def test_a_proof_is_of_the_newest_version(catalog: Catalog) -> None:
    register(catalog, new_file("data/a", content=b"1"), new_file("data/a", content=b"22", number=2), "data/b")
    found = proof(catalog, "data/a")
    assert (found.file.version, len(found.replicas)) == (2, 1)
    assert found.replicas[0].replica.version_uid == found.file.version_uid
    with catalog.read() as tx:
        paths = [found.file.path for found in tx.ledger.proofs(EXPERIMENT, [b"data/b", b"data/a", b"data/none"])]
    assert paths == ["data/a", "data/b"]


def directories(catalog: Catalog, **wanted: Any) -> list[DirectoryCount]:
    found: list[DirectoryCount] = []
    query = DirectoryQuery(**wanted)
    with catalog.read() as tx:
        while True:
            page = tx.ledger.directories(EXPERIMENT, query)
            found += page.items
            if page.next is None:
                return found
            query = query.model_copy(update={"after": page.next})


def test_files_are_counted_by_directory(catalog: Catalog, clock: Clock) -> None:
    register(
        catalog,
        new_file("data/top", content=b"1"),
        new_file("data/a/1", content=b"22"),
        new_file("data/a/2", content=b"22", read_from=None, verified_at=None),
        new_file("data/a/b/3", content=b"1"),
        new_file("data/a.d/4", content=b"1"),
        new_file("data/a/1", content=b"333", number=2),
        new_file("data/hidden/5"),
        new_file("data/a/6", experiment_uid=OTHER),
    )
    record(catalog, seen(history(catalog, "data/a/b/3").replicas[0].uid, clock.now, is_match=False))
    with catalog.write() as tx:
        tx.files.hide(FileQuery(experiment_uid=EXPERIMENT, glob="data/hidden/*"), by="me")
    for limit in (1, 2, 100):
        found = [(d.path, d.files, d.bytes, d.verified, d.suspect) for d in directories(catalog, limit=limit)]
        assert found == [
            ("data", 1, 1, 1, 0),
            ("data/a", 2, 5, 1, 0),
            ("data/a.d", 1, 1, 1, 0),
            ("data/a/b", 1, 1, 0, 1),
        ]
    below = directories(catalog, below_b64=to_b64(b"data/a"))
    assert [d.path for d in below] == ["data/a", "data/a/b"]
    assert directories(catalog, below_b64=to_b64(b"data/none")) == []


@pytest.mark.parametrize(
    ("query", "index"),
    [(ReplicaQuery(is_to_read=True), "ix_replicas_to_read"), (ReplicaQuery(), "ix_replicas_checked_at_uid")],
)
def test_what_a_station_asks_for_again_and_again_is_read_in_its_own_order(
    tmp_path: Path, clock: Clock, query: ReplicaQuery, index: str
) -> None:
    """Not by going through every file of the station; PostgreSQL plans by its statistics."""
    with closing(Database(f"sqlite:///{tmp_path / 'catalog.db'}", CatalogTransaction, clock=clock)) as catalog:
        create(catalog, Service.CATALOG)
        _reads_in_its_own_order(catalog, query, index)


def _reads_in_its_own_order(catalog: Catalog, query: ReplicaQuery, index: str) -> None:
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if "FROM replicas" in statement:
            asked.append((statement, values))

    with catalog.read() as tx:
        event.listen(catalog.engine, "before_cursor_execute", note)
        tx.ledger.replicas(query, Reach(stations=frozenset({OTHER})))
        event.remove(catalog.engine, "before_cursor_execute", note)
    (statement, values), *_ = asked
    with catalog.engine.connect() as connection:
        plan = [step[3] for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
    assert index in plan[0], plan
    assert not any("TEMP B-TREE" in step for step in plan), plan
