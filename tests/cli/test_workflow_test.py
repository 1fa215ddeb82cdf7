"""`dm workflow test` on what the station has: the last files of a DAQ or a query, beside the version that is live."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from beamkeeper.cli.app import run
from beamkeeper.db.base import new_uid
from beamkeeper.db.journal import Seen
from beamkeeper.domain.acquisition import JournalState, NewDaq
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.files import FileKind, SourceIdentity
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.status import Service
from beamkeeper.domain.workflows import checked_definition
from beamkeeper.testing.catalogue import new_file
from beamkeeper.testing.services import Running, running

Test = Callable[..., Any]
LIVE: dict[str, Any] = {
    "name": "count",
    "owner": "ada",
    "stages": {"1": {"command": 'wc -c < "$filePath"', "outputVariableRegexList": ["(?P<size>\\d+)"]}},
}
NEW = """
name: count
owner: ada
stages:
  1:
    command: 'grep -q photons "$filePath" && wc -w < "$filePath"; dm put "$filePath"'
    outputVariableRegexList: ['(?P<size>\\d+)']
  2:
    command: 'test "$size" -gt 0'
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    services = (Service.ACQUISITION, Service.CATALOG, Service.PROCESSING)
    with running(*services, directory=tmp_path_factory.mktemp("site")) as made:
        made.client.workflows.add(checked_definition(LIVE))
        yield made


@pytest.fixture
def coffee(site: Running) -> Experiment:
    return site.client.experiments.create(NewExperiment(name=f"e{new_uid().hex}", station="station"))


@pytest.fixture
def try_out(site: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Test:
    """Give what runs `dm workflow test` on the new definition and returns its answer, or what it prints."""
    monkeypatch.setenv("BEAMKEEPER_URL", site.urls[Service.STORAGE])
    monkeypatch.setenv("BEAMKEEPER_TOKEN", site.bootstrap.operator.token)
    (tmp_path / "count.yaml").write_text(NEW)

    def tried(*words: str, status: int = 0, is_json: bool = True) -> Any:
        capsys.readouterr()
        more = ["--json"] if is_json else []
        assert run(["workflow", "test", str(tmp_path / "count.yaml"), *words, *more]) == status
        printed = capsys.readouterr()
        return json.loads(printed.out) if is_json and printed.out else printed.out + printed.err

    return tried


def names(trials: Sequence[Any]) -> list[str]:
    return [Path(trial["file"]).name for trial in trials]


def test_it_runs_on_the_newest_files_of_a_query_and_tells_what_is_another_result(
    site: Running, coffee: Experiment, try_out: Test
) -> None:
    service = site.as_service()
    service.credentials.mirror = site.client.credentials.mirror
    for number, text in enumerate(("old", "photons and more", "dark")):
        path = site.area / coffee.directory / "data" / f"{number}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        service.files.register([new_file(f"data/{number}.tif", experiment_uid=coffee.uid)])
    wanted = ("--query", "path ~ *.tif", "--experiment", coffee.name)
    found = try_out(*wanted, "--last", "2", status=10)
    assert names(found["trials"]) == names(found["before"]) == ["2.tif", "1.tif"]
    assert [bool(trial["failure"]) for trial in found["trials"]] == [True, False]
    assert all(trial["seconds"] > 0 for trial in found["trials"])
    assert "$size: 16 before, 3 now" in found["differences"][1]
    told = try_out(*wanted, "--last", "2", status=10, is_json=False)
    assert "2 files, 1 failed" in told
    assert "the version that is live: 2 files, 0 failed" in told
    assert len(try_out(*wanted, status=10)["trials"]) == 3
    assert list(site.client.jobs.list(experiment_uid=coffee.uid)) == []  # nothing of it goes live
    assert "no file to try it out on" in try_out("--query", "path ~ *.cbf", *wanted[2:], status=2)


def test_it_runs_on_the_last_files_of_a_daq_where_it_finds_them(
    site: Running, coffee: Experiment, try_out: Test, tmp_path: Path
) -> None:
    source = tmp_path / "detector"
    source.mkdir()
    daq = site.client.daqs.start(NewDaq(experiment_uid=coffee.uid, **path_fields(bytes(source).lstrip(b"/"))))
    database: Any = site.contexts[Service.ACQUISITION].database
    for number in range(3):
        (source / f"{number}.tif").write_text("photons")
        identity = SourceIdentity(dev=1, ino=number, size=7, mtime_ns=1, ctime_ns=1)
        with database.write() as tx:
            path = f"{number}.tif".encode()
            tx.journal.see(daq.uid, [Seen(path, JournalState.READY, FileKind.FILE, identity)])
            batch = tx.journal.claim(new_uid(), files=10, size=10**9)
            at = datetime.now(UTC) + timedelta(seconds=number)
            changes = {file.id: {"available_at": at} for file in batch.files}
            tx.journal.step(batch, JournalState.AVAILABLE, changes, free=True)
    found = try_out("--daq", str(daq.uid), "--last", "2")
    assert [trial["file"] for trial in found["trials"]] == [str(source / "2.tif"), str(source / "1.tif")]
    assert found["differences"] == [["$size: 7 before, 1 now"]] * 2
