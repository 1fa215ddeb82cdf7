"""Modes of verification on a whole station: read back at once, later by itself, or not until it is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import Acquisition, NewUpload, State
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import FileHistory, FileKind, FileQuery, ReadFrom, ReplicaState, Verify
from beamkeeper.domain.inspections import NewScrub
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.wipes import NewWipe, WipeState
from beamkeeper.testing.station import Station, experiment, station, until
from beamkeeper.testing.stored import writable

DEFERRED = 'verify = "deferred"\n[wipe]\nmin_age_hours = 0\n'
NEVER = "verify_bytes_s = 1\n"
"""After the first batch of what is to be read, none follows in the time of a test."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Station, Client]]:
    with station(tmp_path_factory.mktemp("station"), settings=DEFERRED) as made:
        yield made, made.start()


def take(
    client: Client, of: Experiment, source: Path, verify: Verify | None = None, *, ends: State = State.DONE
) -> Acquisition:
    new = NewUpload(experiment_uid=of.uid, verify=verify, **path_fields(os.fsencode(source)[1:]))
    ended = client.uploads.wait(client.uploads.start(new).uid, timeout_s=60)
    assert ended.state is ends
    return ended


def write(source: Path, *names: str) -> None:
    source.mkdir(exist_ok=True)
    for name in names:
        (source / name).write_bytes(os.urandom(1000))


def histories(client: Client, of: Experiment) -> list[FileHistory]:
    return [client.files.history(file.uid) for file in client.files.find(FileQuery(experiment_uid=of.uid))]


def states(client: Client, of: Experiment) -> set[ReplicaState]:
    return {replica.state for history in histories(client, of) for replica in history.replicas}


def wipe_state(client: Client, source: Path) -> tuple[WipeState, bool | None]:
    found = client.wipes.wait(client.wipes.plan(NewWipe(**path_fields(os.fsencode(source)[1:]))).uid)
    return found.state, found.is_safe


def test_what_is_stored_unverified_is_read_later_by_itself_and_the_ledger_says_how(
    running: tuple[Station, Client], tmp_path: Path
) -> None:
    _, client = running
    of = experiment(client, "later")
    write(tmp_path / "det", "a.tif", "b.tif")
    (tmp_path / "det" / "link").symlink_to("a.tif")
    ended = take(client, of, tmp_path / "det")
    assert ended.verify is Verify.DEFERRED  # as the settings say
    until(lambda: states(client, of) == {ReplicaState.VERIFIED}, "the reading")
    for history in histories(client, of):
        assert history.file.is_verified
        if history.file.kind is FileKind.FILE:  # a link's target is its content: it is known when it is stored
            (row,) = history.ledger
            assert (row.is_match, row.checksum) == (True, history.file.checksums[0])
            assert row.read_from in (ReadFrom.DEVICE, ReadFrom.CACHE)


def test_a_copy_that_decayed_before_it_was_read_is_suspect_and_no_longer_taken_for_stored(
    running: tuple[Station, Client], tmp_path: Path
) -> None:
    made, client = running
    of = experiment(client, "decayed")
    write(tmp_path / "det", "a.tif")
    take(client, of, tmp_path / "det", Verify.NONE)
    stored = made.storage / of.directory / "data" / "a.tif"
    writable(stored).write_bytes(bytes(1000))
    scrub = client.scrubs.wait(client.scrubs.start(NewScrub(experiment_uid=of.uid, older_than_s=0)).uid)
    assert scrub.different == 1
    assert client.files.history(histories(client, of)[0].file.uid).file.is_suspect
    # Bytes that the catalogue does not know are never replaced: it is put aside, with the reason.
    again = take(client, of, tmp_path / "det", ends=State.FAILED)
    assert [(t.state, t.reason_code) for t in again.tallies] == [("quarantined", "conflict")]


def test_what_is_never_read_by_itself_stays_unverified_until_a_scrub(
    running: tuple[Station, Client], tmp_path: Path
) -> None:
    _, client = running
    of, other = experiment(client, "never"), experiment(client, "other")
    write(tmp_path / "det", "a.tif", "b.tif")
    write(tmp_path / "det2", "c.tif")
    take(client, of, tmp_path / "det", Verify.NONE)
    take(client, other, tmp_path / "det2")
    until(lambda: states(client, other) == {ReplicaState.VERIFIED}, "the reading of what came after")
    assert states(client, of) == {ReplicaState.UNVERIFIED}
    assert all(history.ledger == () and not history.file.is_suspect for history in histories(client, of))

    again = take(client, of, tmp_path / "det", Verify.NONE)  # only other bytes make a version
    assert [(t.state, t.reason_code, t.files) for t in again.tallies] == [("skipped", "unchanged", 2)]
    os.utime(tmp_path / "det" / "a.tif")
    take(client, of, tmp_path / "det", Verify.NONE)
    assert [history.file.version for history in histories(client, of)] == [1, 1]

    client.scrubs.wait(client.scrubs.start(NewScrub(experiment_uid=of.uid, older_than_s=0)).uid)
    assert states(client, of) == {ReplicaState.VERIFIED}


def test_what_waits_to_be_read_is_not_safe_to_wipe_and_a_restart_forgets_none(tmp_path: Path) -> None:
    with station(tmp_path, settings=NEVER + DEFERRED) as made:
        client = made.start()
        first, second = experiment(client, "first"), experiment(client, "second")
        write(tmp_path / "det", "a.tif")
        take(client, first, tmp_path / "det")
        until(lambda: states(client, first) == {ReplicaState.VERIFIED}, "the first batch")  # and 1000 s of pause
        write(tmp_path / "det2", "b.tif")
        take(client, second, tmp_path / "det2")
        assert states(client, second) == {ReplicaState.UNVERIFIED}
        made.kill()
        client = made.start()
        until(lambda: states(client, second) == {ReplicaState.VERIFIED}, "the second, after a restart")
        assert wipe_state(client, tmp_path / "det2") == (WipeState.PLANNED, True)
