"""Arrival from end to end: the writer's own word, master files and what they miss, and a site's own hook."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import h5py
import numpy as np
import pytest

from beamkeeper.cli.app import run
from beamkeeper.client import Client
from beamkeeper.domain.acquisition import Acquisition, JournalState, NewDaq, NewUpload, State
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import path_fields
from beamkeeper.testing.station import Station, experiment, station, until

J = JournalState
HOOK = """
import json, os, sys
told = json.load(sys.stdin)
descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.write(descriptor, (json.dumps(told) + "\\n").encode())
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    directory = tmp_path_factory.mktemp("station")
    command = [sys.executable, "-c", HOOK, str(directory / "told")]
    with station(directory, settings=f"on_problem = {json.dumps(command)}\n") as found:
        found.start()
        yield found


@pytest.fixture
def client(made: Station) -> Client:
    return made._clients[-1]


@pytest.fixture
def coffee(client: Client) -> Experiment:
    return experiment(client, f"e{uuid4().hex[:12]}")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "detector").mkdir()
    return tmp_path / "detector"


def start(client: Client, of: Experiment, directory: Path, **options: object) -> Acquisition:
    at = path_fields(os.fsencode(directory)[1:])
    return client.daqs.start(NewDaq.model_validate({"experiment_uid": of.uid, **at, **options}))


def available(client: Client, daq: Acquisition) -> set[str | None]:
    return {entry.path for entry in client.daqs.entries(daq.uid, J.AVAILABLE)}


def metadata_of(client: Client, of: Experiment, path: str) -> dict[str, Any]:
    (file,) = [f for f in client.files.find(FileQuery(experiment_uid=of.uid)) if f.path == path]
    return dict(file.metadata)


def told(made: Station, kind: str) -> list[dict[str, Any]]:
    path = made.directory / "told"
    lines = path.read_text().splitlines() if path.exists() else []
    return [fact for fact in map(json.loads, lines) if fact["kind"] == kind]


def write_master(path: Path, *linked: str) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        for number, name in enumerate(linked):
            file[f"entry/data/data_{number:06}"] = h5py.ExternalLink(name, "/data")


def write_data(path: Path) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file["data"] = np.arange(100)


def test_announced_files_arrive_while_others_rest(
    client: Client,
    coffee: Experiment,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    daq = start(client, coffee, source, quiet_s=600)
    (source / "scan").mkdir()
    for name in ("scan/a.tif", "scan/b.tif", "c.tif", "rests.tif"):
        (source / name).write_bytes(b"frame")
    monkeypatch.setenv("BEAMKEEPER_URL", client.url)
    monkeypatch.setenv("BEAMKEEPER_TOKEN", client.credentials.token or "")
    monkeypatch.setenv("BEAMKEEPER_STATION", "TEST")
    assert run(["daq", "announce", str(daq.uid)[-8:], str(source / "c.tif"), "scan/"]) == 0
    assert f"2 announced to DAQ {daq.uid}." in capsys.readouterr().out
    until(lambda: available(client, daq) == {"scan/a.tif", "scan/b.tif", "c.tif"}, "what was announced")
    assert run(["daq", "announce", str(daq.uid), "/etc/passwd"]) == 2
    assert "is not in" in capsys.readouterr().err
    client.daqs.stop(daq.uid, now=True)


def test_a_sentinel_brings_a_scan_at_once(client: Client, coffee: Experiment, source: Path) -> None:
    daq = start(client, coffee, source, quiet_s=3, sentinel="*.done")
    until(lambda: client.daqs.get(daq.uid).state is State.RUNNING, "the first scan")
    began = time.monotonic()
    for number in range(20):
        (source / f"scan_1.{number:03}.tif").write_bytes(b"frame")
    (source / "scan_1.done").touch()
    until(lambda: client.daqs.get(daq.uid).count(J.AVAILABLE) >= 20, "the scan")
    assert time.monotonic() - began < 3
    client.daqs.stop(daq.uid)
    assert client.daqs.wait(daq.uid, timeout_s=60).count(J.AVAILABLE) == 21


def test_f15_a_dataset_is_complete_when_all_linked_files_are_there_and_else_says_what_is_missing(
    made: Station, client: Client, coffee: Experiment, source: Path
) -> None:
    daq = start(client, coffee, source, destination="run")
    write_data(source / "m_data_000001.h5")
    names = [f"m_data_{number:06}.h5" for number in (1, 2, 3)]
    write_master(source / "m_master.h5", *names)
    until(lambda: client.daqs.get(daq.uid).count(J.AVAILABLE) == 2, "master and data")
    until(lambda: [m.missing for m in client.daqs.masters(daq.uid)] == [2], "what is missing")
    (master,) = client.daqs.masters(daq.uid, is_complete=False)
    assert (master.path, master.linked) == ("data/run/m_master.h5", 3)
    assert master.first_missing == ("data/run/m_data_000002.h5", "data/run/m_data_000003.h5")
    assert metadata_of(client, coffee, "data/run/m_master.h5")["dataset"] == {
        "complete": False,
        "linked": 3,
        "missing": ["data/run/m_data_000002.h5", "data/run/m_data_000003.h5"],
        "missing_count": 2,
    }
    # The run is aborted: the DAQ ends, and what never came stays listed, whatever dies.
    client.daqs.stop(daq.uid)
    assert client.daqs.wait(daq.uid, timeout_s=60).state is State.DONE
    made.kill(signal.SIGKILL)
    again = made.start()
    assert again.daqs.get(daq.uid).masters.incomplete == 1
    # It comes after all, by hand.
    for name in names[1:]:
        write_data(source / name)
    at = path_fields(os.fsencode(source)[1:])
    upload = NewUpload.model_validate({"experiment_uid": coffee.uid, "destination": "run", **at})
    again.uploads.wait(again.uploads.start(upload).uid, timeout_s=60)
    until(lambda: again.daqs.get(daq.uid).masters.complete == 1, "the dataset", 30)
    found = metadata_of(again, coffee, "data/run/m_master.h5")
    assert found["dataset"] == {"complete": True, "linked": 3, "missing": [], "missing_count": 0}


def test_an_incomplete_dataset_is_shown_with_its_daq(
    client: Client,
    coffee: Experiment,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    daq = start(client, coffee, source)
    write_master(source / "m.h5", "never.h5")
    until(lambda: [m.missing for m in client.daqs.masters(daq.uid)] == [1], "what is missing")
    monkeypatch.setenv("BEAMKEEPER_URL", client.url)
    monkeypatch.setenv("BEAMKEEPER_TOKEN", client.credentials.token or "")
    monkeypatch.setenv("BEAMKEEPER_STATION", "TEST")
    with (source / "log").open("wb", buffering=0) as log:
        log.write(b"line\n")
        until(lambda: client.daqs.get(daq.uid).count(J.GROWING) == 1, "growth")
        assert run(["daq", "show", str(daq.uid)]) == 0
    shown = capsys.readouterr().out
    assert "0 complete, 1 incomplete" in shown
    assert "data/never.h5" in shown
    assert "a process has it open for writing" in shown
    client.daqs.stop(daq.uid, now=True)


def test_the_sites_own_command_is_told_of_quarantine_failure_and_a_directory_that_went(
    made: Station, client: Client, coffee: Experiment, tmp_path: Path
) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.tif").write_bytes(name.encode())
    first = start(client, coffee, tmp_path / "one")
    until(lambda: client.daqs.get(first.uid).count(J.AVAILABLE) == 1, "the first")
    second = start(client, coffee, tmp_path / "other")
    until(lambda: told(made, "files-quarantined"), "word of quarantine", 30)
    fact = told(made, "files-quarantined")[-1]
    assert (fact["acquisition_uid"], fact["paths"]) == (str(second.uid), ["same.tif"])
    assert (fact["station"], fact["experiment"]) == ("TEST", coffee.name)
    client.daqs.stop(second.uid)
    assert client.daqs.wait(second.uid, timeout_s=60).state is State.FAILED
    until(lambda: any(f["acquisition_uid"] == str(second.uid) for f in told(made, "daq-failed")), "word of failure")
    (tmp_path / "one").rename(tmp_path / "away")
    until(lambda: "unavailable" in client.daqs.get(first.uid).message, "the message", 20)
    until(lambda: told(made, "directory-unavailable"), "word of the directory")
    (tmp_path / "away").rename(tmp_path / "one")
    until(lambda: client.daqs.get(first.uid).message == "", "the message to be taken back", 20)
    client.daqs.stop(first.uid, now=True)
