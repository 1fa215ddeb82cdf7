"""What a job keeps: under a session of its own, derived from what it worked on, and made again by its name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import NewDaq, NewPut
from beamkeeper.domain.errors import NotPermittedError
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.names import RelPath, path_fields
from beamkeeper.domain.processing import Job, JobStatus
from beamkeeper.domain.workflows import checked_definition
from beamkeeper.domain.workflows.plans import JobPlan
from beamkeeper.testing.station import Station, experiment, station, until

DM = f"{sys.executable} -c 'from beamkeeper.cli.app import main; main()'"
SUM: dict[str, Any] = {
    "name": "sum",
    "stages": {
        "1-sum": {"command": 'sha256sum "$filePath" > sum.txt', "environment": {"BINS": "7"}},
        "2-keep": {"command": f"{DM} put sum.txt --analysis --destination sums", "environment": {"BINS": "8"}},
    },
}
TELL: dict[str, Any] = {
    "name": "tell",
    "stages": {"1": {"command": "env; tr '\\000' ' ' < /proc/$$/cmdline; echo $filePath"}},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Station, Client, Experiment]]:
    with station(tmp_path_factory.mktemp("results")) as made:
        client = made.start()
        for definition in (SUM, TELL):
            client.workflows.add(checked_definition(definition))
        yield made, client, experiment(client)


def delivered(client: Client, of: Experiment, directory: Path, workflow: str) -> Job:
    """Run a workflow on one file of a DAQ, and return its job when it has ended."""
    directory.mkdir()
    (directory / f"{workflow}.dat").write_bytes(b"counts")
    plan = JobPlan(workflow=workflow)
    new = NewDaq(experiment_uid=of.uid, workflow=plan, **path_fields(os.fsencode(directory).lstrip(b"/")))
    daq = client.daqs.start(new)
    found = until(lambda: list(client.jobs.list(workflow=workflow, experiment_uid=of.uid)), "the job")
    client.daqs.stop(daq.uid)
    return client.jobs.wait(found[0].uid, 60)


def dm(client: Client, *words: str) -> str:
    """Run a command as a person does who is logged in."""
    login = {"BEAMKEEPER_URL": client.url, "BEAMKEEPER_TOKEN": client.credentials.token or ""}
    done = subprocess.run(
        [sys.executable, "-c", "from beamkeeper.cli.app import main; main()", *words],
        env={**os.environ, **login},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_result_leads_back_to_the_raw_file_and_is_made_again(
    site: tuple[Station, Client, Experiment], tmp_path: Path
) -> None:
    _, client, coffee = site
    job = delivered(client, coffee, tmp_path / "d", "sum")
    record = client.jobs.record(job.uid)
    assert job.status is JobStatus.DONE, record.child_processes
    (result,) = client.files.lookup(coffee.uid, [RelPath("analysis/sums/sum.txt")])
    found = client.provenance.why(result.uid)
    assert [file.file and str(file.file.relpath, "ascii") for file in found.files] == [
        "analysis/sums/sum.txt",
        "data/sum.dat",
    ]
    (link,) = found.links
    assert (link.job, link.stage) == (str(job.uid), "2-keep")
    assert link.making is not None
    assert (link.making.workflow, link.making.workflow_version, link.making.number) == ("sum", 1, 2)
    assert "put sum.txt" in link.making.command
    assert link.making.host == os.uname().nodename
    assert link.making.environment["BINS"] == "8"
    assert not any(name.startswith("BEAMKEEPER") for name in link.making.environment)
    said = dm(client, "why", "analysis/sums/sum.txt", "--experiment", coffee.name)
    assert f"└─ data/sum.dat version 1, made by sum 1 on {os.uname().nodename}, job {job.uid} (2-keep)" in said
    again = json.loads(dm(client, "--json", "rerun", "analysis/sums/sum.txt", "--experiment", coffee.name))
    made = client.jobs.wait(UUID(again["uid"]), 60)
    assert (made.status, made.rerun_of) == (JobStatus.DONE, job.uid)


def test_the_token_of_a_job_is_for_its_experiment_and_its_time_and_is_nowhere_to_be_read(
    site: tuple[Station, Client, Experiment], tmp_path: Path
) -> None:
    here, client, coffee = site
    job = delivered(client, coffee, tmp_path / "d", "tell")
    assert job.status is JobStatus.DONE
    text = client.jobs.log(job.uid, 1).text
    assert f"BEAMKEEPER_EXPERIMENT={coffee.name}" in text
    assert "BEAMKEEPER_TOKEN=" in text
    assert not re.search(r"bk_[\w-]{40}", text)
    kept = [path for path in here.data.rglob("*") if path.is_file() and re.search(rb"bk_[\w-]{43}", path.read_bytes())]
    assert {path.name for path in kept} == {"first-session.json", "service.key"}
    assert not re.search(r"bk_[\w-]{40}", here.log.read_text())


def test_only_a_job_says_that_it_made_something(site: tuple[Station, Client, Experiment], tmp_path: Path) -> None:
    _, client, coffee = site
    with pytest.raises(NotPermittedError):
        client.uploads.put(NewPut(experiment_uid=coffee.uid, attempt_uid=coffee.uid), [])
