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


PLANTED = tuple(f"file_{i:02d}.dat" for i in range(12))


@pytest.fixture(scope="module")
def trial(lab: Lab) -> Iterator[Trial]:
    """A clean trial with a file for each violation, and a version before it."""
    made = lab.trial("planted")
    made.begin()
    for name in PLANTED:
        made.writer.renamed(name.encode(), b"first")
    made.await_available(len(PLANTED))
    for name in PLANTED:
        made.writer.renamed(name.encode(), b"second")
    assert made.settle() == []
    yield made
    lab.up()  # a test with a station of its own leaves this one down, and then a DAQ of it would go on later
    made.close()


def change(trial: Trial, service: str, statement: str, path: bytes, **values: str | int) -> None:
    uid = trial.experiment.uid
    with closing(sqlite3.connect(trial.lab.station.data / f"{service}.db", timeout=30)) as connection:
        connection.execute(statement, {"path": path, "uid": str(uid), "hex": uid.hex, **values})
        connection.commit()


def stored(trial: Trial, name: str) -> Path:
    path = trial.stored / "data" / name
    path.chmod(0o640)
    return path


def kept(trial: Trial, name: str) -> Path:
    path = trial.stored / ".dm" / "versions" / "data" / name / "1"
    path.chmod(0o640)
    return path


def plain(name: str) -> bytes:
    return b"data/" + name.encode()


def delete_file(trial: Trial, name: str) -> None:
    stored(trial, name).unlink()


def truncate_file(trial: Trial, name: str) -> None:
    os.truncate(stored(trial, name), 3)


def flip_a_bit(trial: Trial, name: str) -> None:
    path = stored(trial, name)
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


def delete_the_version_before(trial: Trial, name: str) -> None:
    kept(trial, name).unlink()


def put_a_dark_file(trial: Trial, name: str) -> None:
    """Of a name of its own, as nobody's file has."""
    (trial.stored / "data" / f"{name}.dark").write_bytes(b"nobody's")


def leave_it_in_staging(trial: Trial, name: str) -> None:
    (trial.stored / ".dm" / "staging" / name).mkdir()
    (trial.stored / ".dm" / "staging" / name / "left").write_bytes(b"left")


def forget_a_row(trial: Trial, name: str) -> None:
    """The journal calls it available, and the catalogue does not have it."""
    change(trial, "catalog", FORGET, plain(name))


def take_it_back_as_unverified(trial: Trial, name: str) -> None:
    change(trial, "catalog", UNVERIFY, plain(name))


def store_it_before_it_was_closed(trial: Trial, name: str) -> None:
    change(trial, "catalog", TAKE_EARLY, plain(name))


def store_a_state_that_never_was(trial: Trial, name: str) -> None:
    """Bytes of a file that grew: the storage, its checksum and the source agree, the writer does not."""
    for path in (trial.source / name, stored(trial, name), kept(trial, name)):
        path.write_bytes(b"other")
    change(trial, "catalog", OTHER_DIGEST, plain(name), digest=blake3(b"other").hexdigest())
    change(trial, "catalog", RESIZE, plain(name), size=5)


def let_it_go_without_a_reason(trial: Trial, name: str) -> None:
    change(trial, "acquisition", SKIP, name.encode())
    forget_a_row(trial, name)
    stored(trial, name).unlink()


def repeat_a_version(trial: Trial, name: str) -> None:
    """One content as two versions: what a blind repetition would leave."""
    kept(trial, name).write_bytes(b"second")
    change(trial, "catalog", OTHER_DIGEST, plain(name), digest=blake3(b"second").hexdigest())
    change(trial, "catalog", RESIZE, plain(name), size=6)


VIOLATIONS = (
    (delete_file, Harm.FALSE_COMPLETE),
    (truncate_file, Harm.CORRUPT),
    (flip_a_bit, Harm.CORRUPT),
    (delete_the_version_before, Harm.FALSE_COMPLETE),
    (put_a_dark_file, Harm.DARK),
    (leave_it_in_staging, Harm.DARK),
    (forget_a_row, Harm.FALSE_COMPLETE),
    (take_it_back_as_unverified, Harm.FALSE_COMPLETE),
    (store_it_before_it_was_closed, Harm.FALSE_COMPLETE),
    (store_a_state_that_never_was, Harm.CORRUPT),
    (let_it_go_without_a_reason, Harm.LOST),
    (repeat_a_version, Harm.DUPLICATE),
)


@pytest.mark.parametrize(("name", "plant", "harm"), [(n, *v) for n, v in zip(PLANTED, VIOLATIONS, strict=True)])
def test_a_violation_that_is_planted_is_found(
    trial: Trial, name: str, plant: Callable[[Trial, str], None], harm: Harm
) -> None:
    assert not [found for found in trial.findings() if name.encode() in found.path]
    plant(trial, name)
    assert harm in {found.harm for found in trial.findings() if name.encode() in found.path}


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


def test_a_file_that_nobody_stores_is_found(lab: Lab) -> None:
    made = lab.trial("unseen")
    made.begin()
    made.client.daqs.stop(made.daq_uid)
    made.client.daqs.wait(made.daq_uid)
    (made.source / "unseen.dat").write_bytes(b"after the end")
    (found,) = made.findings()
    made.close()
    assert (found.harm, found.path) == (Harm.LOST, b"unseen.dat")
