"""A large file is staged while it is written, and what its writer changes afterwards is found out."""

from __future__ import annotations

import filecmp
import os
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import JournalState, NewDaq
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.files import CHUNK_BYTES
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.storage import NewStorageArea
from beamkeeper.testing.netns import End, why_not, wire
from beamkeeper.testing.remotes import sshd
from beamkeeper.testing.station import experiment, station, until

SETTINGS = f"ahead_bytes = {CHUNK_BYTES}\n"
GB = 1_000_000_000
LINK = "480mbit"


def staged(directory: Path, size: int) -> Path | None:
    """Return the one file that is staged for an experiment, once it has so many bytes."""
    found = (path for path in (directory / ".dm/staging").rglob("*") if path.is_file())
    return next((path for path in found if path.stat().st_size >= size), None)


def start(client: Client, of: Experiment, source: Path) -> UUID:
    source.mkdir()
    new = NewDaq(experiment_uid=of.uid, **path_fields(os.fsencode(source)[1:]))
    return client.daqs.start(new).uid


def is_available(client: Client, daq: UUID) -> Callable[[], bool]:
    return lambda: client.daqs.get(daq).count(JournalState.AVAILABLE) == 1


def test_a_large_file_is_staged_while_it_is_written_whatever_dies_and_what_changed_is_brought_again(
    tmp_path: Path,
) -> None:
    with station(tmp_path, settings=SETTINGS) as made:
        client = made.start()
        of = experiment(client)
        daq = start(client, of, source := tmp_path / "detector")
        with (source / "large.h5").open("wb") as writer:
            writer.write(os.urandom(2 * CHUNK_BYTES + 5))
            writer.flush()
            there = until(lambda: staged(made.storage / of.directory, 2 * CHUNK_BYTES), "two chunks in staging")
            inode = there.stat().st_ino
            made.kill()
            client = made.start()
            os.pwrite(writer.fileno(), b"written last", 0)
            writer.write(b"the end")
        until(is_available(client, daq), "that it is available")
        plain = made.storage / of.directory / "data/large.h5"
        assert plain.read_bytes() == (source / "large.h5").read_bytes()
        assert plain.stat().st_ino == inode  # what was staged became the file


@pytest.mark.long
@pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can be tested")
def test_4_gb_are_safe_within_a_minute_of_their_closing_though_the_link_takes_longer_for_them(tmp_path: Path) -> None:
    with wire() as made, made.at(End.STATION), sshd() as server:
        rate = ("tbf", "rate", LINK, "burst", "1mb", "latency", "400ms")
        made.inside(End.STATION, "tc", "qdisc", "replace", "dev", "lo", "root", *rate)
        keys = f'key_file = "{server.key}"\nknown_hosts = "{server.known_hosts}"\n'
        with station(tmp_path, settings=f"{SETTINGS}[transfer.rsync]\n{keys}") as beamline:
            client = beamline.start()
            (far := tmp_path / "far").mkdir()
            new = NewStorageArea(name="far", station_url=server.url(far), path=str(far))
            area = client.storage_areas.add(new)
            of = client.experiments.create(NewExperiment(name="far", station="TEST", storage_area_uid=area.uid))
            daq = start(client, of, source := tmp_path / "detector")
            with (source / "large.h5").open("wb") as writer:
                while (size := writer.tell()) < 4 * GB:
                    writer.write(os.urandom(CHUNK_BYTES))
                    writer.flush()
                    enough = size - 4 * CHUNK_BYTES
                    until(lambda enough=enough: enough < 0 or staged(far / of.directory, enough), "staging", 120)  # type: ignore[misc]
                os.pwrite(writer.fileno(), b"written last", 0)
            closed_at = time.monotonic()
            until(is_available(client, daq), "that it is available", 120)
            took_s = time.monotonic() - closed_at
            assert took_s < 60
            compared = filecmp.cmp(source / "large.h5", far / of.directory / "data/large.h5", shallow=False)
            assert compared
