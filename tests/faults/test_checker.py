"""The checker finds what it is there to find: each violation is planted once by hand."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from blake3 import blake3

from beamkeeper.testing.checker import Harm
from faults.lab import Lab, Trial

UNVERIFY = """
    update versions set is_verified = 0
    where file_id = (select id from files where path = :path and experiment_uid in (:hex, :uid))
"""
TAKE_EARLY = """
    update versions set transferred_at = 1
    where file_id = (select id from files where path = :path and experiment_uid in (:hex, :uid))
"""
RESIZE = """
    update versions set size = :size
    where file_id = (select id from files where path = :path and experiment_uid in (:hex, :uid))
"""
OTHER_DIGEST = """
    update checksums set value = :digest where version_id in (
        select v.id from versions v join files f on f.id = v.file_id
        where f.path = :path and f.experiment_uid in (:hex, :uid)
    )
"""
FORGET = "update files set deleted_at = 1 where path = :path and experiment_uid in (:hex, :uid)"
SKIP = "update journal set state = 'skipped', reason = '' where path = :path"
TWICE = (
    "pragma legacy_alter_table = on",
    "alter table versions rename to versions_true",
    "create table versions as select * from versions_true",
    "insert into versions select * from versions_true",
)
"""The database would refuse it, so the table is made anew without that rule."""


@pytest.fixture
def trial(lab: Lab) -> Iterator[Trial]:
    made = lab.trial("planted")
    made.begin()
    made.writer.renamed(b"a.dat", b"first")
    made.writer.plain(b"below/b.dat", b"another file")
    made.await_available(2)
    made.writer.renamed(b"a.dat", b"second")
    assert made.settle() == []
    yield made
    made.close()


def change(trial: Trial, service: str, statement: str, path: bytes, **values: str | int) -> None:
    uid = trial.experiment.uid
    with closing(sqlite3.connect(trial.lab.station.data / f"{service}.db", timeout=30)) as connection:
        connection.execute(statement, {"path": path, "uid": str(uid), "hex": uid.hex, **values})
        connection.commit()


def stored(trial: Trial, name: str = "data/a.dat") -> Path:
    path = trial.stored / name
    path.chmod(0o640)
    return path


def delete_file(trial: Trial) -> None:
    stored(trial).unlink()


def truncate_file(trial: Trial) -> None:
    os.truncate(stored(trial), 3)


def flip_a_bit(trial: Trial) -> None:
    path = stored(trial)
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def delete_the_version_before(trial: Trial) -> None:
    (trial.stored / ".dm" / "versions" / "data" / "a.dat" / "1").unlink()


def put_a_dark_file(trial: Trial) -> None:
    (trial.stored / "data" / "below" / "dark.dat").write_bytes(b"nobody's")


def leave_something_in_staging(trial: Trial) -> None:
    (trial.stored / ".dm" / "staging" / "left").mkdir()
    (trial.stored / ".dm" / "staging" / "left" / "c.dat").write_bytes(b"left")


def forget_a_row(trial: Trial) -> None:
    """The journal calls it available, and the catalogue does not have it."""
    change(trial, "catalog", FORGET, b"data/below/b.dat")


def take_it_back_as_unverified(trial: Trial) -> None:
    change(trial, "catalog", UNVERIFY, b"data/below/b.dat")


def store_it_before_it_was_closed(trial: Trial) -> None:
    change(trial, "catalog", TAKE_EARLY, b"data/below/b.dat")


def store_a_state_that_never_was(trial: Trial) -> None:
    """Bytes of a file that grew: the storage, its checksum and the source agree, the writer does not."""
    (trial.source / "below" / "b.dat").write_bytes(b"other")
    stored(trial, "data/below/b.dat").write_bytes(b"other")
    change(trial, "catalog", OTHER_DIGEST, b"data/below/b.dat", digest=blake3(b"other").hexdigest())
    change(trial, "catalog", RESIZE, b"data/below/b.dat", size=5)


def let_a_file_go_without_a_reason(trial: Trial) -> None:
    change(trial, "acquisition", SKIP, b"below/b.dat")
    forget_a_row(trial)
    stored(trial, "data/below/b.dat").unlink()


def repeat_a_version(trial: Trial) -> None:
    """One content as two versions: what a blind repetition would leave."""
    kept = trial.stored / ".dm" / "versions" / "data" / "a.dat" / "1"
    kept.chmod(0o640)
    kept.write_bytes(b"second")
    change(trial, "catalog", OTHER_DIGEST, b"data/a.dat", digest=blake3(b"second").hexdigest())
    change(trial, "catalog", RESIZE, b"data/a.dat", size=6)


@pytest.mark.parametrize(
    ("plant", "harm"),
    [
        (delete_file, Harm.FALSE_COMPLETE),
        (truncate_file, Harm.CORRUPT),
        (flip_a_bit, Harm.CORRUPT),
        (delete_the_version_before, Harm.FALSE_COMPLETE),
        (put_a_dark_file, Harm.DARK),
        (leave_something_in_staging, Harm.DARK),
        (forget_a_row, Harm.FALSE_COMPLETE),
        (take_it_back_as_unverified, Harm.FALSE_COMPLETE),
        (store_it_before_it_was_closed, Harm.FALSE_COMPLETE),
        (store_a_state_that_never_was, Harm.CORRUPT),
        (let_a_file_go_without_a_reason, Harm.LOST),
        (repeat_a_version, Harm.DUPLICATE),
    ],
)
def test_a_violation_that_is_planted_is_found(trial: Trial, plant: Callable[[Trial], None], harm: Harm) -> None:
    plant(trial)
    assert harm in {finding.harm for finding in trial.findings()}


def test_a_row_that_is_there_twice_is_found(lab: Lab) -> None:
    with lab.other_station():
        made = lab.trial("twice")
        try:
            made.begin()
            made.writer.renamed(b"a.dat", b"first")
            assert made.settle() == []
            with closing(sqlite3.connect(made.lab.station.data / "catalog.db", timeout=30)) as connection:
                for statement in TWICE:
                    connection.execute(statement)
                connection.commit()
            assert Harm.DUPLICATE in {finding.harm for finding in made.findings()}
        finally:
            made.close()


def test_a_file_that_nobody_stores_is_found(trial: Trial) -> None:
    trial.client.daqs.stop(trial.daq.uid)
    trial.client.daqs.wait(trial.daq.uid)
    (trial.source / "unseen.dat").write_bytes(b"after the end")
    (found,) = trial.findings()
    assert (found.harm, found.path) == (Harm.LOST, b"unseen.dat")
