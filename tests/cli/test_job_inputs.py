"""`dm job submit` on what a query or a dataset names: the files themselves are the job's input, in their order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from beamkeeper.cli.app import run
from beamkeeper.db.base import new_uid
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.files import NewFile
from beamkeeper.domain.runs import NewRun
from beamkeeper.domain.status import Service
from beamkeeper.domain.workflows import checked_definition
from beamkeeper.testing.catalogue import new_file
from beamkeeper.testing.services import Running, running

NAMES = ("data/b.tif", "data/a.tif", "data/c.h5", "data/d 1.h5")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(Service.CATALOG, Service.PROCESSING, directory=tmp_path_factory.mktemp("site")) as made:
        definition: dict[str, Any] = {"name": "each", "owner": "ada", "stages": {"1": {"command": 'cat "$filePath"'}}}
        made.client.workflows.add(checked_definition(definition))
        yield made


@pytest.fixture
def coffee(site: Running) -> Experiment:
    made = site.client.experiments.create(NewExperiment(name=f"e{new_uid().hex}", station="station"))
    register(site, [new_file(name, experiment_uid=made.uid) for name in NAMES])
    return made


def register(site: Running, files: list[NewFile]) -> None:
    service = site.as_service()
    service.credentials.mirror = site.client.credentials.mirror
    service.files.register(files)


@pytest.fixture
def dm(site: Running, coffee: Experiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Give what runs `dm job submit each` and returns the paths of the job's files, or what it said where it failed."""
    monkeypatch.setenv("BEAMKEEPER_URL", site.urls[Service.STORAGE])
    monkeypatch.setenv("BEAMKEEPER_TOKEN", site.bootstrap.operator.token)

    def submit(*words: str, status: int = 0, experiment: str = coffee.name) -> Any:
        of = ["--experiment", experiment] if experiment else []
        capsys.readouterr()
        assert run(["job", "submit", "each", *words, *of, "--json"]) == status
        printed = capsys.readouterr()
        if status:
            return printed.err
        return site.client.jobs.record(UUID(json.loads(printed.out)["uid"])).files

    return submit


def test_a_query_and_a_dataset_name_the_files_of_a_job(site: Running, coffee: Experiment, dm: Any) -> None:
    found = dm("--query", 'path ~ "*.tif"')
    assert [file.experiment_path for file in found] == ["data/a.tif", "data/b.tif"]
    assert Path(found[0].path) == site.area / coffee.directory / "data" / "a.tif"
    assert run(["dataset", "create", "steel", "--experiment", coffee.name]) == 0
    assert run(["dataset", "add", "steel", "data/*.h5", "data/a.tif", "--experiment", coffee.name]) == 0
    named = {file.experiment_path for file in dm("--dataset", "steel")}
    assert named == {"data/c.h5", "data/d 1.h5", "data/a.tif"}
    both = [file.experiment_path for file in dm("--query", 'path ~ "*.tif"', "--dataset", "steel")]
    assert (len(both), set(both)) == (4, set(NAMES))


def test_a_job_on_a_run_has_its_files_and_is_found_by_it(
    site: Running, coffee: Experiment, dm: Any, capsys: Any
) -> None:
    made = site.client.runs.create(NewRun(experiment_uid=coffee.uid, name="142"))
    uids = {file.path: file.uid for file in site.client.files.lookup(coffee.uid, [b"data/a.tif", b"data/c.h5"])}
    site.client.runs.add_files(made.uid, list(uids.values()))
    assert {file.experiment_path for file in dm("--run", "142")} == set(uids)
    dm("--query", "path ~ *.tif")
    capsys.readouterr()
    assert run(["job", "list", "--run", "142", "--experiment", coffee.name, "--json"]) == 0
    assert [job["run_uid"] for job in json.loads(capsys.readouterr().out)] == [str(made.uid)]
    assert run(["file", "list", "--stale", "--experiment", coffee.name]) == 0


def test_jobs_are_listed_by_when_they_were_submitted(site: Running, coffee: Experiment, dm: Any, capsys: Any) -> None:
    for _ in range(3):
        dm("--query", "path ~ *.tif")
    jobs = list(site.client.jobs.list(experiment_uid=coffee.uid))[::-1]
    uids, at = [str(job.uid) for job in jobs], jobs[1].submitted_at

    def listed(*words: str) -> list[str]:
        capsys.readouterr()
        assert run(["job", "list", *words, "--experiment", coffee.name, "--json"]) == 0
        return [job["uid"] for job in json.loads(capsys.readouterr().out)]

    assert listed("--since", at.isoformat()) == uids[1:]
    assert listed("--until", at.isoformat()) == uids[:1]
    assert listed("--since", at.isoformat(), "--until", (at + timedelta(microseconds=1)).isoformat()) == uids[1:2]
    assert listed("--since", f"{at.astimezone():%Y-%m-%d}", "--until", f"{at.astimezone():%Y-%m-%d}") == uids
    assert run(["job", "list", "--since", "yesterday"]) == 2


def test_the_help_of_a_submission_has_the_arguments_of_the_workflow_that_is_named(
    site: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    depth = {"type": "int", "required": True, "help": "How deep."}
    mode = {"type": "choice", "choices": ["fast", "fine"], "default": "fast"}
    declared: dict[str, Any] = {"name": "deep", "arguments": {"depth": depth, "mode": mode}}
    site.client.workflows.add(checked_definition({**declared, "stages": {"1": {"command": "echo $depth $mode"}}}))
    monkeypatch.setenv("BEAMKEEPER_URL", site.urls[Service.STORAGE])
    monkeypatch.setenv("BEAMKEEPER_TOKEN", site.bootstrap.operator.token)

    def told(*words: str) -> str:
        assert run(["job", "submit", *words, "--help"]) == 0
        return " ".join(capsys.readouterr().out.split())

    assert "depth:INT How deep; required mode:CHOICE default: fast; one of fast, fine" in told("deep", "mode:fine")
    assert "it declares no arguments" in told("each")
    assert 'there is no workflow "none"' in told("none")
    assert "which arguments it has" in told()


def test_what_names_no_file_is_refused(dm: Any) -> None:
    assert "no such file" in dm("--query", 'path ~ "*.cbf"', status=6)
    assert "no dataset" in dm("--dataset", "none", status=6)
    assert "--experiment" in dm("--query", "path ~ x", experiment="", status=2)


def test_a_file_that_changed_since_its_dataset_was_frozen_is_not_taken_for_it(
    site: Running, coffee: Experiment, dm: Any
) -> None:
    assert run(["dataset", "create", "steel", "--experiment", coffee.name]) == 0
    assert run(["dataset", "add", "steel", "data/c.h5", "--experiment", coffee.name]) == 0
    assert run(["dataset", "freeze", "steel", "--yes", "--experiment", coffee.name]) == 0
    assert [file.experiment_path for file in dm("--dataset", "steel")] == ["data/c.h5"]
    register(site, [new_file("data/c.h5", content=b"other", experiment_uid=coffee.uid, number=2)])
    assert "data/c.h5" in dm("--dataset", "steel", status=7)
